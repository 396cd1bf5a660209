package slab

// Bytes are strings of bytes, each in a chain of cells. So there are no holes
// between them, whatever their lengths and the order in which they are freed.
//
//	cell   32 bytes: next 4 · content 28
type Bytes struct{ cells *Records[cell] }

type cell struct {
	next    uint32
	content [content]byte
}

const (
	content  = 28 // bytes of a string in a cell
	cellSize = 32
)

// Cost is how many bytes a string of n bytes takes.
func Cost(n int) int { return (n + content - 1) / content * cellSize }

// NewBytes reserves address space for strings that take limit bytes, by Cost.
func NewBytes(limit int) (*Bytes, error) {
	cells, err := NewRecords[cell](limit / cellSize)
	if err != nil {
		return nil, err
	}
	return &Bytes{cells}, nil
}

// Room reports whether there is room for strings that take n bytes, by Cost.
func (b *Bytes) Room(n int) bool { return b.cells.Room() >= n/cellSize }

// Used is how many bytes all strings take.
func (b *Bytes) Used() int { return b.cells.Used() * cellSize }

// Put keeps the parts as one string, and returns where it is: 0 for the empty
// string. ok is false, and nothing is kept, if there is no room.
func (b *Bytes) Put(parts ...[]byte) (at uint32, ok bool) {
	n := 0
	for _, p := range parts {
		n += len(p)
	}
	if !b.Room(Cost(n)) {
		return 0, false
	}
	var last *cell
	fill := content // how much of the last cell is taken
	for _, p := range parts {
		for len(p) > 0 {
			if fill == content {
				i := b.cells.Take()
				if last == nil {
					at = i
				} else {
					last.next = i
				}
				last, fill = b.cells.At(i), 0
			}
			k := copy(last.content[fill:], p)
			fill += k
			p = p[k:]
		}
	}
	return at, true
}

// Free frees the string that Put returned.
func (b *Bytes) Free(at uint32) {
	for at != 0 {
		next := b.cells.At(at).next
		b.cells.Put(at)
		at = next
	}
}

// Append appends n bytes of a string to dst, without the first skip.
func (b *Bytes) Append(dst []byte, at uint32, skip, n int) []byte {
	for ; skip >= content; skip -= content {
		at = b.cells.At(at).next
	}
	for n > 0 {
		c := b.cells.At(at)
		part := c.content[skip:min(content, skip+n)]
		dst = append(dst, part...)
		n -= len(part)
		skip, at = 0, c.next
	}
	return dst
}

// HasPrefix reports whether a string of at least len(s) bytes begins with s.
func (b *Bytes) HasPrefix(at uint32, s string) bool {
	for len(s) > 0 {
		c := b.cells.At(at)
		n := min(len(s), content)
		if string(c.content[:n]) != s[:n] {
			return false
		}
		s, at = s[n:], c.next
	}
	return true
}
