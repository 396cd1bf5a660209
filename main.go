// Command lull serves WebSocket connections by the million, loads servers with
// them, and measures both.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/alecthomas/kong"
)

const description = `A WebSocket server for millions of mostly idle connections, a load generator
that opens as many, and tools to measure and tune the machine for both.`

type commands struct {
	Serve      serveCommand      `cmd:"" help:"Serve WebSocket connections as a chat or an echo server."`
	Load       loadCommand       `cmd:"" help:"Open many connections to a WebSocket server and measure it."`
	Compare    compareCommand    `cmd:"" help:"Compare results of lull load."`
	Agent      agentCommand      `cmd:"" help:"Carry out a share of loads that come from another machine."`
	Experiment experimentCommand `cmd:"" help:"Run a server and a load generator on this machine and write a report."`
	Doctor     doctorCommand     `cmd:"" help:"Show how many connections this machine can hold, and which limit stops it first."`
	Tune       tuneCommand       `cmd:"" help:"Raise limits that are too low for many connections, and revert them."`
	Bench      benchCommand      `cmd:"" help:"Compare the server with the floor program."`
	Config     configCommand     `cmd:"" help:"Show what lull serve would do, and which flag, variable or file says so."`
	Completion completionCommand `cmd:"" help:"Print what makes a shell complete lull's commands and flags."`
	Version    versionCommand    `cmd:"" help:"Show the version of lull."`

	File        configFlag       `name:"config" help:"A file with flags' values, in YAML; \"lull config --help\" describes it." placeholder:"FILE" predictor:"file"`
	ShowVersion kong.VersionFlag `name:"version" help:"Show the version of lull." env:"-"`
}

func main() {
	// A reader that has gone must not end a server. Without this, the first line
	// written to a closed stdout or stderr would.
	signal.Ignore(syscall.SIGPIPE)
	parser := newParser()
	complete(parser)
	command, err := parser.Parse(os.Args[1:])
	if err != nil {
		exit(parser, err, exitUsage)
	}
	keepSmall()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	command.BindTo(ctx, (*context.Context)(nil))
	if err := command.Run(); err != nil {
		exit(parser, err, exitFailed)
	}
}

// newParser returns the parser of lull's commands.
func newParser() *kong.Kong {
	var file configFile
	parser, err := kong.New(new(commands), append(accepts(),
		kong.Name("lull"), kong.Description(description), kong.UsageOnError(),
		kong.Vars{"version": versionLine()}, kong.ConfigureHelp(kong.HelpOptions{Compact: true}),
		kong.DefaultEnvars("LULL"), kong.Resolvers(&file), kong.Bind(&file))...)
	if err != nil {
		panic(err) // the commands' tags are wrong
	}
	return parser
}
