package terminal

import (
	"io"
	"os"
	"sync"
	"time"

	"github.com/vbauerster/cupwriter"
	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"github.com/seed-134acfd0/lull/loadgen/measure"
)

// drawEvery is the time from one picture to the next.
const drawEvery = 200 * time.Millisecond

// Live shows a run in rows that are drawn in the same place again and again. A
// goroutine of its own draws them, so a terminal that takes nothing, because somebody
// has stopped it, does not hold the run.
type Live struct {
	screen *mpb.Progress
	place  *mpb.Bar // all rows belong to it

	mu   sync.Mutex
	view view

	drawn []string // the rows of the picture that is being drawn; only the screen's goroutine has them
}

// NewLive shows a run on a terminal, until Close clears it.
func NewLive(terminal *os.File) *Live {
	return newLive(cupwriter.New(terminal, false), mpb.WithRefreshRate(drawEvery))
}

func newLive(w mpb.ConsoleWriter, options ...mpb.ContainerOption) *Live {
	l := new(Live)
	l.screen = mpb.New(append(options, mpb.WithConsoleWriter(w))...)
	rest := make([]mpb.BarFiller, rowsShown-1)
	for i := range rest {
		rest[i] = mpb.BarFillerFunc(func(w io.Writer, _ decor.Statistics) error { return l.row(w, i+1) })
	}
	l.place, _ = l.screen.Add(0, mpb.BarFillerFunc(l.first), mpb.BarFillerTrim(), mpb.BarRemoveOnComplete(), mpb.BarBtmExtender(rest...))
	return l
}

// first arranges all rows, and draws the first.
func (l *Live) first(w io.Writer, s decor.Statistics) error {
	l.mu.Lock()
	l.drawn = l.view.rows(s.AvailableWidth)
	l.mu.Unlock()
	_, err := io.WriteString(w, l.drawn[0]) // its line ends without our doing
	return err
}

// row draws a later row, if there is one.
func (l *Live) row(w io.Writer, i int) error {
	if i >= len(l.drawn) {
		return nil
	}
	_, err := io.WriteString(w, l.drawn[i]+"\n")
	return err
}

// Phase implements measure.Sink.
func (l *Live) Phase(name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.view.Phase(name)
}

// Snapshot implements measure.Sink.
func (l *Live) Snapshot(s *measure.Snapshot) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.view.Snapshot(s)
}

// Close clears the rows, so that the result stands in their place.
func (l *Live) Close() {
	l.place.Abort(true)
	l.screen.Wait()
}
