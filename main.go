// Command lull serves WebSocket connections by the million, and loads servers
// with them.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/alecthomas/kong"
)

type cli struct {
	Serve serveCmd `cmd:"" help:"Serve WebSocket connections."`
	Load  loadCmd  `cmd:"" help:"Load a WebSocket server with connections."`
}

func main() {
	var c cli
	parser := kong.Parse(&c, kong.Name("lull"), kong.Description("A WebSocket server for millions of mostly idle connections."), kong.UsageOnError())
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	parser.BindTo(ctx, (*context.Context)(nil))
	parser.FatalIfErrorf(parser.Run())
}
