package server

import (
	"fmt"
	"sync/atomic"
)

// journal writes log lines on a goroutine of its own: a reactor must not wait
// for a full pipe.
type journal struct {
	lines   chan func()
	written chan struct{} // closed when run has ended
	lost    atomic.Uint64
}

// journalLines is how many lines may wait. In a flood of bad input the rest is
// counted instead.
const journalLines = 256

func newJournal() *journal {
	return &journal{lines: make(chan func(), journalLines), written: make(chan struct{})}
}

// add queues a line if there is room.
func (j *journal) add(write func()) {
	select {
	case j.lines <- write:
	default:
		j.lost.Add(1)
	}
}

// run writes lines until the journal is closed.
func (j *journal) run() {
	defer close(j.written)
	for write := range j.lines {
		write()
	}
}

// close waits for the last line. Nobody may add any more.
func (j *journal) close() {
	close(j.lines)
	<-j.written
}

// warn logs something about c.
func (r *reactor) warn(c *conn, msg string, args ...any) {
	conn := r.conn(c)
	r.server.journal.add(func() {
		r.server.options.Log.Warn(msg, append(args, "conn", fmt.Sprintf("%#x", conn.id))...)
	})
}
