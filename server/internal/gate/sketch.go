package gate

import "time"

// sketch holds a token bucket for every key there may be, in a fixed number of
// cells: a count-min sketch with conservative update. A key has a cell in each row,
// where its hash says, and shares it with whatever keys have it too. A cell is the
// latest time at which a bucket of any of them will be full. So a key's bucket is
// full by the earliest time that its cells say, and possibly earlier:
//
//	nobody gets more than the pace, whoever else comes from wherever;
//	somebody gets less only if all their cells are shared with others that are busy.
//
// Nothing has to be removed, because a time that has passed is an empty cell.
type sketch [sketchRows][sketchCells]time.Duration

// With 16 shards there are 65,536 cells in a row, in 2 MiB. If every handshake comes
// from another key, a cell gets one in so many. At a pace of 1 a second and 5 at once,
// nobody is refused wrongly at 60,000 handshakes a second, and a third are at 200,000.
const (
	sketchRows     = 4 // 16 bits of the hash for each
	sketchCellBits = 12
	sketchCells    = 1 << sketchCellBits
)

// tryTake takes a token out of a key's bucket, or returns how long it takes until
// there is one.
func (s *sketch) tryTake(p Pace, hash uint64, now time.Duration) (wait time.Duration) {
	var cells [sketchRows]*time.Duration
	for row := range s {
		cells[row] = &s[row][uint16(hash>>(16*row))>>(16-sketchCellBits)]
	}
	full := *cells[0]
	for _, cell := range cells[1:] {
		full = min(full, *cell)
	}
	full = max(full, now) + p.lasting(1)
	if wait = full - now - p.lasting(p.burst()); wait > 0 {
		return wait
	}
	for _, cell := range cells {
		*cell = max(*cell, full)
	}
	return 0
}
