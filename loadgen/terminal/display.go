package terminal

import (
	"log/slog"
	"os"

	"golang.org/x/term"

	"github.com/seed-134acfd0/lull/loadgen/measure"
)

// Display shows a run. Close has to be called when the run has ended, on the
// goroutine that called the sink's methods, or after it.
type Display interface {
	measure.Sink
	Close()
}

// New returns a [Live] display if f is a terminal, and [Lines] otherwise.
func New(f *os.File, log *slog.Logger) Display {
	if term.IsTerminal(int(f.Fd())) {
		return NewLive(f)
	}
	return NewLines(log)
}
