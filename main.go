// Command lull serves WebSocket connections by the million, loads servers with
// them, and measures both.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/alecthomas/kong"
	"golang.org/x/term"
)

const description = `A WebSocket server for millions of connections that are mostly silent,
a load generator that opens as many, and the experiment that shows both.`

type commands struct {
	Serve      serveCommand      `cmd:"" help:"Serve WebSocket connections: a chat, or an echo."`
	Load       loadCommand       `cmd:"" help:"Open many connections to a WebSocket server and measure it."`
	Experiment experimentCommand `cmd:"" help:"Run server and generator on this machine and write a report."`
	Doctor     doctorCommand     `cmd:"" help:"Say what this machine holds, and what stops it first."`
	Tune       tuneCommand       `cmd:"" help:"Raise what is too low for so many connections, and put it back."`
	Bench      benchCommand      `cmd:"" help:"Compare the server with the floor program, round by round."`
}

// Exit codes.
const (
	exitFailed = 1  // it could not be done, connections failed or messages were lost
	exitUsage  = 64 // as in sysexits.h
)

// exitCode ends a command with it; what there was to say has been said.
type exitCode int

func (c exitCode) Error() string { return fmt.Sprintf("exit code %d", int(c)) }

// errNotOK ends a command whose output has said already what is wrong.
const errNotOK = exitCode(exitFailed)

func main() {
	var c commands
	parser, err := kong.New(&c,
		kong.Name("lull"), kong.Description(description), kong.UsageOnError(),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}))
	if err != nil {
		panic(err) // the commands' tags are wrong
	}
	command, err := parser.Parse(os.Args[1:])
	if err != nil {
		parser.Errorf("%s", err)
		fmt.Fprintln(os.Stderr, "Try «lull --help», or «lull COMMAND --help».")
		os.Exit(exitUsage)
	}
	keepSmall()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	command.BindTo(ctx, (*context.Context)(nil))
	var code exitCode
	switch err := command.Run(); {
	case err == nil:
	case errors.As(err, &code):
		os.Exit(int(code))
	default:
		parser.Errorf("%s", err)
		os.Exit(exitFailed)
	}
}

// keepSmall lets the garbage collector start at one megabyte in place of
// four, unless GOGC says otherwise. Connections are not in the heap, so there
// is little for it to look at, and three megabytes are the slots of a hundred
// thousand connections.
func keepSmall() {
	const percent = 25 // of 4 MB, the heap at which it would start
	if _, set := os.LookupEnv("GOGC"); !set {
		debug.SetGCPercent(percent)
	}
}

// newLog is for logs that people read on a terminal and programs elsewhere.
func newLog() *slog.Logger {
	if isTerminal(os.Stderr) {
		return slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	return slog.New(slog.NewJSONHandler(os.Stderr, nil))
}

func isTerminal(f *os.File) bool { return term.IsTerminal(int(f.Fd())) }
