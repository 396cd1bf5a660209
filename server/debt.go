package server

import "sync/atomic"

// debt is what a connection is owed: the messages that lie in its reactor's
// mailbox and in its outbox. Senders add, its reactor takes away, so a sender
// learns at once that a peer is slow.
//
//	63 closed   62 refused   61 slow   60…40 messages   39…0 bytes
//
// It belongs to the slot, not to the connection: what a stale Conn sends is
// added, and taken away when the reactor finds nobody to send it to.
type debt struct{ word atomic.Uint64 }

// owed is a number of messages and their bytes, as in a debt.
type owed uint64

const (
	debtClosed    = 1 << 63 // nothing is sent any more
	debtRefused   = 1 << 62 // a sender was refused, and the reactor will hear of it
	debtSlow      = 1 << 61 // there is an outbox
	debtFlags     = debtClosed | debtRefused | debtSlow
	messageShift  = 40
	messageBytes  = 1<<messageShift - 1
	debtsMessages = 1<<(61-messageShift) - 1
)

// unbounded is more than a mailbox can hold for one connection.
var unbounded = owing(debtsMessages, messageBytes)

func owing(messages, bytes int) owed { return owed(messages)<<messageShift + owed(bytes) }

func (o owed) messages() int { return int(o >> messageShift & debtsMessages) }
func (o owed) bytes() int    { return int(o & messageBytes) }

// over reports whether o exceeds a bound, in messages or bytes.
func (o owed) over(bound owed) bool {
	return o.messages() > bound.messages() || o.bytes() > bound.bytes()
}

// load returns what is owed, and whether there is an outbox.
func (d *debt) load() (o owed, slow bool) {
	w := d.word.Load()
	return owed(w &^ debtFlags), w&debtSlow != 0
}

// tryAdd adds a message unless that would exceed the bound. A single one
// passes whatever its size.
func (d *debt) tryAdd(size owed, bound owed) error {
	for {
		w := d.word.Load()
		switch before := owed(w &^ debtFlags); {
		case w&debtClosed != 0:
			return ErrClosed
		case before != 0 && (before + size).over(bound):
			return ErrSlow
		}
		if d.word.CompareAndSwap(w, w+uint64(size)) {
			return nil
		}
	}
}

func (d *debt) add(o owed) { d.word.Add(uint64(o)) }
func (d *debt) sub(o owed) { d.word.Add(-uint64(o)) }

// refuse notes that a sender was refused. It is true for the first, who has to
// tell the reactor.
func (d *debt) refuse() bool { return d.word.Or(debtRefused)&debtRefused == 0 }

// heard ends what refuse began. Only the reactor calls it.
func (d *debt) heard() { d.word.And(^uint64(debtRefused)) }

// slow says whether the peer does not take what it is sent. Only the reactor
// calls it.
func (d *debt) slow(yes bool) {
	if yes {
		d.word.Or(debtSlow)
	} else {
		d.word.And(^uint64(debtSlow))
	}
}

// close and open have senders refused, or accepted again. Only the reactor
// calls them. A debt that was never used is not touched by open.
func (d *debt) close() { d.word.Or(debtClosed) }
func (d *debt) open() {
	if d.word.Load()&debtClosed != 0 {
		d.word.And(^uint64(debtClosed))
	}
}
