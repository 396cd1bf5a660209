package fanout

import "time"

// Log holds publications that not all members of an audience have been sent. Each
// member remembers the position up to which it has; positions count publications
// and wrap around, which does no harm because a Log never holds a millionth of
// 2^32.
//
//	entries   [ e ][ e ][ e ]
//	          ▲begin        ▲End: the position of a member that lacks nothing
type Log struct {
	entries []*Entry
	begin   uint32 // position of entries[0]
	excepts int    // entries that somebody does not get

	pieces [2]piece // for members that have agreed to no window, and for others
}

// piece is several frames back to back, for many members in turn.
type piece struct {
	frames []byte
	window uint8  // of the members that it is for
	from   uint32 // position of the first frame
	upTo   uint32 // position behind the last
}

// Entry is a publication in a Log.
type Entry struct {
	*Publication
	Since time.Duration // when it came in
	Tally Tally         // of this reactor
	due   uint64        // the Round's time at which it is done
}

// pieceMax is how many bytes of frames are laid back to back.
const pieceMax = 64 << 10

// Busy reports whether there are entries.
func (l *Log) Busy() bool { return len(l.entries) > 0 }

// Begin sets the position of the next entry. The Log must be empty.
func (l *Log) Begin(position uint32) { l.begin = position }

// End is the position behind the last entry.
func (l *Log) End() uint32 { return l.begin + uint32(len(l.entries)) }

// Add adds a publication at time now.
func (l *Log) Add(p *Publication, now time.Duration) *Entry {
	e := &Entry{Publication: p, Since: now}
	l.entries = append(l.entries, e)
	if p.Except != 0 {
		l.excepts++
	}
	return e
}

// Lacks returns the entries that a member at a position has not been sent.
func (l *Log) Lacks(position uint32) []*Entry { return l.entries[position-l.begin:] }

// LacksOf is Lacks for a member that is a connection, up to the first entry that it does
// not get. It is empty if that is the next one.
func (l *Log) LacksOf(position uint32, conn func() uint64) []*Entry {
	entries := l.Lacks(position)
	if l.excepts == 0 {
		return entries
	}
	id := conn()
	for i, e := range entries {
		if e.Except == id {
			return entries[:i]
		}
	}
	return entries
}

// Cut removes the entries before a position, which every member has been sent, and
// returns them.
func (l *Log) Cut(position uint32) (done []*Entry) { return l.cut(int(position - l.begin)) }

// Drop removes all entries and returns them. They are not sent to anybody any more.
func (l *Log) Drop() []*Entry { return l.cut(len(l.entries)) }

// Piece returns the frames behind a position, for a member by its window as
// Publication.For, and how many they are: one, or as many small ones as fit a
// piece, back to back. It is valid until the next Piece or Add. The member must
// lack something.
func (l *Log) Piece(position uint32, window uint8) (frames []byte, n int) {
	entries := l.Lacks(position)
	first := entries[0].For(window)
	if len(entries) == 1 || len(first)+len(entries[1].For(window)) > pieceMax {
		return first, 1
	}
	p := &l.pieces[min(window, 1)]
	upTo := l.pieceEnd(entries, position, window)
	// Most members lack the same, so what was laid out for one serves the
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

func (l *Log) cut(n int) (done []*Entry) {
	if n == 0 {
		return nil
	}
	done, l.entries = l.entries[:n:n], l.entries[n:]
	l.begin += uint32(n)
	for _, e := range done {
		if e.Except != 0 {
			l.excepts--
		}
	}
	if len(l.entries) == 0 {
		l.entries, l.pieces = nil, [2]piece{}
	}
	return done
}
