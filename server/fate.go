package server

import (
	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/server/internal/inbox"
)

// How connections end, in two steps. Whatever finds out that one has to, in
// reading, writing, a policy, a handler or the sweep, marks it and goes on. When
// nobody has it in hand any more, bury says the last word, tells the handler, and
// closes (close.go).

// fate is what shall become of a connection.
type fate struct {
	kind  fateKind
	code  frame.Code
	cause error // nil after a closing handshake; for fateReject, the *Reject

	orderly bool // what it was sent before still goes out
	chatty  bool // the peer has sent more behind its Close frame
	bare    bool // the HTTP error answers HEAD, and has no content
}

// gone is the fate of a connection that is closed without a last word.
func gone(cause error) fate { return fate{kind: fateGone, code: frame.Abnormal, cause: cause} }

type fateKind uint8

const (
	fateNone   fateKind = iota
	fateAnswer          // the peer's Close frame is answered
	fateClose           // a Close frame of ours is the last word
	fateReject          // an HTTP error is the last word
	fateGone            // the socket is closed at once
	fateLeave           // it is asked to leave: the closing handshake begins
	fateVisit           // the socket is net/http's now
	fateAlert           // a TLS alert was the last word
)

// death is a connection that is marked.
type death struct {
	conn *conn
	fate fate
}

// reason is what a Close frame says to the peer.
func (f fate) reason() string {
	if f.cause == nil {
		return ""
	}
	return f.cause.Error()
}

// mark decides what becomes of a connection. The first mark counts; only a
// socket that has failed meanwhile takes the last word away.
func (t *conns) mark(c *conn, f fate) {
	if c.state == stateEnded {
		return
	}
	if !f.orderly {
		c.flags |= flagMute
	}
	if !c.is(flagDying) {
		c.flags |= flagDying
		t.dying = append(t.dying, death{c, f})
		return
	}
	if f.kind != fateGone {
		return
	}
	if d := t.death(c); d.fate.kind != fateGone {
		d.fate.kind = fateGone
		if d.fate.cause == nil {
			d.fate.code, d.fate.cause = f.code, f.cause
		}
	}
}

// death returns the mark of a dying connection.
func (t *conns) death(c *conn) *death {
	i := len(t.dying) - 1
	for t.dying[i].conn != c {
		i--
	}
	return &t.dying[i]
}

// finish ends a connection once its handler has heard everything that came
// before, and what it sent has gone out.
func (t *conns) finish(c *conn, f fate) {
	f.orderly = true
	if x := t.sides.of(c); c.state == stateOpen && x != nil && x.inbox != nil && x.inbox.Want(inbox.Idle) {
		x.end = f
		t.want(c, flagPaused, true)
		return
	}
	t.mark(c, f)
}
