package server

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"
)

// journal writes log lines on a goroutine of its own, because a reactor must
// not wait for a full pipe, and only so many of each kind a second, because
// whoever sends bad input can send much of it.
type journal struct {
	log     *slog.Logger
	lines   chan line
	ended   chan struct{} // closed by close
	written chan struct{} // closed when run has ended
	lost    atomic.Uint64
}

type line struct {
	level slog.Level
	msg   string
	args  []any
}

const (
	linesWaiting = 256 // lines that may wait to be written
	linesAlike   = 20  // lines with the same message that are written in a second
)

func newJournal(log *slog.Logger) *journal {
	return &journal{log: log, lines: make(chan line, linesWaiting), ended: make(chan struct{}), written: make(chan struct{})}
}

// add queues a line if there is room. Any goroutine may call it.
func (j *journal) add(level slog.Level, msg string, args ...any) {
	select {
	case j.lines <- line{level, msg, args}:
	default:
		j.lost.Add(1)
	}
}

// run writes lines until the journal is closed.
func (j *journal) run() {
	defer close(j.written)
	second := time.NewTicker(time.Second)
	defer second.Stop()
	alike := map[string]int{}
	for {
		select {
		case l := <-j.lines:
			j.write(l, alike)
		case <-second.C:
			j.summarize(alike)
			clear(alike)
		case <-j.ended:
			for len(j.lines) > 0 {
				j.write(<-j.lines, alike)
			}
			j.summarize(alike)
			return
		}
	}
}

func (j *journal) write(l line, alike map[string]int) {
	if alike[l.msg]++; alike[l.msg] <= linesAlike {
		j.log.Log(context.Background(), l.level, l.msg, l.args...)
	}
}

// summarize says what was left out.
func (j *journal) summarize(alike map[string]int) {
	for msg, n := range alike {
		if n > linesAlike {
			j.lost.Add(uint64(n - linesAlike))
			j.log.Warn("more of the same in this second", "message", msg, "lines", n-linesAlike)
		}
	}
}

// closeTimeout is how long the end waits for the log. A pipe that nobody reads
// must not hold it up.
const closeTimeout = time.Second

// close writes what is waiting. Lines that are added later are lost.
func (j *journal) close() {
	close(j.ended)
	select {
	case <-j.written:
	case <-time.After(closeTimeout):
	}
}
