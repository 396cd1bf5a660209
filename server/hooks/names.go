package hooks

import (
	"errors"
	"hash/maphash"
	"math"
	"sync"

	"github.com/seed-134acfd0/lull/internal/slab"
)

// names keeps what has to be known of a connection all the time and is not in its slot: its
// backend, its user, and who else is the same user's. It lies in tables without pointers, so
// a million are nothing to the garbage collector. A connection's Tag is where: 0 for one
// without a user whose backend is the first. Any goroutine may use names.
type names struct {
	seed maphash.Seed

	mu     sync.RWMutex
	places *slab.Records[place] // guarded by mu, as all below
	rests  *slab.Bytes          // of users' names
	byUser *slab.Index          // the first place of each user
}

// name is what is kept of a connection.
type name struct {
	backend uint8
	id      uint64 // what it is called to the outside: its own ID, or an alias
	user    string
}

// place is 40 bytes. Those of one user are a ring.
//
//	first ⇄ … ⇄ last ⇄ (first)
type place struct {
	alike      uint32 // of a first place: the next one with a hash like this
	next, prev uint32 // of the ring
	id         [2]uint32
	rest       uint32 // of the user's name, behind text
	backend    uint8
	size       uint8 // of the user's name
	text       [14]byte
}

// Bounds of names. They cost address space, and memory when they are used.
const (
	placesMost = 1 << 24
	restsMost  = 1 << 30 // bytes
)

var errNames = errors.New("there is no room for more users' names")

func newNames() (*names, error) {
	t := &names{seed: maphash.MakeSeed()}
	var errs [3]error
	t.places, errs[0] = slab.NewRecords[place](placesMost)
	t.rests, errs[1] = slab.NewBytes(restsMost)
	t.byUser, errs[2] = slab.NewIndex(placesMost)
	return t, errors.Join(errs[:]...)
}

// put keeps a name and returns its Tag. A user's name has at most 255 bytes.
func (t *names) put(n name) (tag uint64, err error) {
	if n.user == "" && n.backend == 0 && !isAlias(n.id) {
		return 0, nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	p := place{id: [2]uint32{uint32(n.id), uint32(n.id >> 32)}, backend: n.backend, size: uint8(min(len(n.user), math.MaxUint8))}
	rest, ok := t.rests.Put([]byte(n.user[copy(p.text[:], n.user):]))
	if p.rest = rest; !ok {
		return 0, errNames
	}
	i := t.places.Take()
	if i == 0 {
		t.rests.Free(rest)
		return 0, errNames
	}
	p.next, p.prev = i, i
	first := t.find(n.user)
	if first != 0 {
		last := t.places.At(first).prev
		p.next, p.prev = first, last
		t.places.At(last).next, t.places.At(first).prev = i, i
	}
	*t.places.At(i) = p
	if first == 0 && n.user != "" {
		t.byUser.Add(i, byHash{t})
	}
	return uint64(i), nil
}

// get returns the name of a Tag that was not given back.
func (t *names) get(tag uint64) name {
	if tag == 0 {
		return name{}
	}
	t.mu.RLock()
	defer t.mu.RUnlock()
	p := t.places.At(uint32(tag))
	var b [math.MaxUint8]byte
	return name{p.backend, p.number(), string(t.user(p, b[:0]))}
}

// backend is the number of a Tag's backend.
func (t *names) backend(tag uint64) uint8 {
	if tag == 0 {
		return 0
	}
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.places.At(uint32(tag)).backend
}

// drop gives a Tag's place back.
func (t *names) drop(tag uint64) {
	if tag == 0 {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	i := uint32(tag)
	p := t.places.At(i)
	if first := p.size > 0 && t.isFirst(i); first {
		t.byUser.Remove(i, byHash{t})
		if p.next != i {
			t.byUser.Add(p.next, byHash{t})
		}
	}
	t.places.At(p.prev).next, t.places.At(p.next).prev = p.next, p.prev
	t.rests.Free(p.rest)
	t.places.Put(i)
}

// of returns the IDs to the outside of a user's connections.
func (t *names) of(user string) (ids []uint64) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	first := t.find(user)
	for i := first; i != 0; {
		p := t.places.At(i)
		ids = append(ids, p.number())
		if i = p.next; i == first {
			break
		}
	}
	return ids
}

func (p *place) number() uint64 { return uint64(p.id[1])<<32 | uint64(p.id[0]) }

// The methods below need mu.

// user appends the name of a place's user to b.
func (t *names) user(p *place, b []byte) []byte {
	n := min(int(p.size), len(p.text))
	return t.rests.Append(append(b, p.text[:n]...), p.rest, 0, int(p.size)-n)
}

// find returns the first place of a user, 0 if there is none.
func (t *names) find(user string) uint32 {
	if user == "" {
		return 0
	}
	var b [math.MaxUint8]byte
	for i := t.byUser.First(maphash.String(t.seed, user)); i != 0; i = t.places.At(i).alike {
		if string(t.user(t.places.At(i), b[:0])) == user {
			return i
		}
	}
	return 0
}

// isFirst reports whether a place is its user's first.
func (t *names) isFirst(i uint32) bool {
	for at := t.byUser.First(byHash{t}.Hash(i)); at != 0; at = t.places.At(at).alike {
		if at == i {
			return true
		}
	}
	return false
}

// byHash are the places as records of the Index.
type byHash struct{ *names }

func (t byHash) Hash(i uint32) uint64 {
	var b [math.MaxUint8]byte
	return maphash.Bytes(t.seed, t.user(t.places.At(i), b[:0]))
}

func (t byHash) Next(i uint32) *uint32 { return &t.places.At(i).alike }
