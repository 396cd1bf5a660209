package history

// hole are the numbers of a node behind one and up to another one. At least the last
// of them is an entry that has not come.
type hole struct {
	after, upTo uint64
	time        int64 // of the last of them
}

// holeKey is a source of a ring.
type holeKey struct {
	ring uint32
	node uint16
}

// Bounds of what is asked for. What is beyond is said to be lost at once.
const (
	holesMost       = 1 << 16
	holesSourceMost = 64
)

// open takes note that a node has used a number at a time, whose entry has not come,
// and has it asked for.
func (h *History) open(i uint32, s *source, number uint64, time int64) {
	key := holeKey{i, s.node}
	gap := hole{max(s.last, s.told), number, time}
	if holes := h.holes[key]; len(holes) < holesSourceMost && h.missing < holesMost {
		h.holes[key] = append(holes, gap)
		h.missing++
	} else if h.rings.At(i).owes(time) {
		h.lose(i, s, gap)
	}
	h.doubt(i)
}

// come takes note that an entry has come, and reports whether it was missing.
func (h *History) come(i uint32, n uint16, number, previous uint64) (missing bool) {
	key := holeKey{i, n}
	holes := h.holes[key]
	for j, x := range holes {
		if number <= x.after || number > x.upTo {
			continue
		}
		rest := make([]hole, 0, len(holes)+1)
		rest = append(rest, holes[:j]...)
		if previous > x.after {
			rest = append(rest, hole{x.after, previous, x.time})
		}
		if number < x.upTo {
			rest = append(rest, hole{number, x.upTo, x.time})
		}
		rest = append(rest, holes[j+1:]...)
		h.closeHoles(key)
		if len(rest) > 0 {
			h.holes[key] = rest
			h.missing += len(rest)
		}
		return true
	}
	return false
}

// holesBelow returns the holes below a number for which members here wait, in order. Of
// many the last ones are one.
func (h *History) holesBelow(key holeKey, number uint64) (below []hole) {
	r := h.rings.At(key.ring)
	for _, x := range h.holes[key] {
		if r.awaits(x.time) && x.upTo <= number {
			below = append(below, x)
		}
	}
	if len(below) > holesTold {
		below[holesTold-1].upTo = below[len(below)-1].upTo
		below = below[:holesTold]
	}
	return below
}

// closeHoles forgets the holes of a source.
func (h *History) closeHoles(key holeKey) {
	h.missing -= len(h.holes[key])
	delete(h.holes, key)
}

// loseAll says that what was not found is lost.
func (h *History) loseAll(i uint32) {
	r := h.rings.At(i)
	for at := r.sources; at != 0; at = h.sources.At(at).next {
		s := h.sources.At(at)
		key := holeKey{i, s.node}
		for _, x := range h.holes[key] {
			if r.owes(x.time) {
				h.lose(i, s, x)
			}
		}
		h.closeHoles(key)
		if s.told > s.last { // nobody waits for it any more
			s.last, s.gone = s.told, s.told
		}
	}
}

func (h *History) lose(i uint32, s *source, x hole) {
	h.stats.Lost++
	h.losses = append(h.losses, Lost{h.topicName(h.rings.At(i)), h.nodes[s.node].id, x.after, x.upTo})
}
