package fanout

import "time"

// Log holds the publications that not all connections of a reactor have been
// sent. Each connection remembers the position up to which it has; positions
// count publications and wrap around, which does no harm because a Log never
// holds a millionth of 2^32.
//
//	entries   [ e ][ e ][ e ]
//	          ▲begin        ▲End: the position of a connection that lacks nothing
//
// A hand goes round the slots while there are entries. An entry is done when the
// hand is back where it was when the entry came in: then every connection has
// had its turn.
type Log struct {
	entries []*Entry
	begin   uint32 // position of entries[0]
	hand    uint32 // the slot that comes next
	lap     uint32

	pieces [2]piece // for connections that have agreed to no window, and for others
}

// piece is several frames back to back, for many connections in turn.
type piece struct {
	frames []byte
	window uint8  // of the connections that it is for
	from   uint32 // position of the first frame
	upTo   uint32 // position behind the last
}

// Entry is a publication in a Log.
type Entry struct {
	*Publication
	Since time.Duration // when it came in
	Tally Tally         // of this reactor
	due   uint64        // the hand's time at which it is done
}

// pieceMax is how many bytes of frames are laid back to back.
const pieceMax = 64 << 10

// Busy reports whether there are entries.
func (l *Log) Busy() bool { return len(l.entries) > 0 }

// End is the position behind the last entry.
func (l *Log) End() uint32 { return l.begin + uint32(len(l.entries)) }

// time counts the hand's steps, in laps and slots.
func (l *Log) time() uint64 { return uint64(l.lap)<<32 | uint64(l.hand) }

// Add adds a publication at time now.
func (l *Log) Add(p *Publication, now time.Duration) {
	l.entries = append(l.entries, &Entry{Publication: p, Since: now, due: l.time() + 1<<32})
}

// Lacks returns the entries that a connection at a position has not been sent.
func (l *Log) Lacks(position uint32) []*Entry { return l.entries[position-l.begin:] }

// Piece returns the frames behind a position, for a connection by its window as
// Publication.For, and how many they are: one, or as many small ones as fit a
// piece, back to back. It is valid until the next Piece or Add. A connection must
// lack something.
func (l *Log) Piece(position uint32, window uint8) (frames []byte, n int) {
	entries := l.Lacks(position)
	first := entries[0].For(window)
	if len(entries) == 1 || len(first)+len(entries[1].For(window)) > pieceMax {
		return first, 1
	}
	p := &l.pieces[min(window, 1)]
	upTo := l.pieceEnd(entries, position, window)
	// Most connections lack the same, so what was laid out for one serves the
	// next.
	if p.from != position || p.upTo != upTo || p.window != window || len(p.frames) == 0 {
		*p = piece{p.frames[:0], window, position, upTo}
		for _, e := range entries[:upTo-position] {
			p.frames = append(p.frames, e.For(window)...)
		}
	}
	return p.frames, int(upTo - position)
}

// pieceEnd is the position at which a piece from position ends.
func (l *Log) pieceEnd(entries []*Entry, position uint32, window uint8) uint32 {
	size := 0
	for i, e := range entries {
		if size += len(e.For(window)); size > pieceMax {
			return position + uint32(i)
		}
	}
	return l.End()
}

// Hand is the slot that comes next.
func (l *Log) Hand() int { return int(l.hand) }

// Step moves the hand on among slots below high and returns the entries that are
// done.
func (l *Log) Step(high int) (done []*Entry) {
	if l.hand++; l.hand >= uint32(high) {
		l.hand = 0
		l.lap++
	}
	n := 0
	for n < len(l.entries) && int64(l.time()-l.entries[n].due) >= 0 {
		n++
	}
	return l.cut(n)
}

// Drop returns all entries, which are not sent to anybody any more.
func (l *Log) Drop() []*Entry { return l.cut(len(l.entries)) }

func (l *Log) cut(n int) (done []*Entry) {
	if n == 0 {
		return nil
	}
	done, l.entries = l.entries[:n:n], l.entries[n:]
	l.begin += uint32(n)
	if len(l.entries) == 0 {
		l.entries, l.pieces = nil, [2]piece{}
	}
	return done
}
