package hooks

import (
	"encoding/binary"
	"math"
	"sync"
)

// names keeps what has to be known of a connection all the time and is not in its
// slot: to which backend it belongs, the name of its user, and its alias. A name lies
// in a chunk of equal places, without a pointer, so a million of them are nothing to the
// garbage collector. What names it is a connection's Tag:
//
//	bits 63…56 size class · 55…0 place
//
// The zero Tag is the zero name, which takes no place. Any goroutine may use names.
type names struct {
	mu      sync.RWMutex
	classes [nameClasses]places // guarded by mu
}

// name is what is kept of a connection.
type name struct {
	backend uint8
	alias   uint64 // what its ID is to the outside, 0 for its own
	user    string
}

// A name lies in its place as its backend, its alias and its user, the length before.
const (
	nameHead    = 1 + 8 + 1
	placeUnit   = 16 // bytes; class n has places of n units
	nameClasses = (nameHead+math.MaxUint8)/placeUnit + 2
	chunkPlaces = 1 << 10
)

// places are those of one size.
type places struct {
	chunks [][]byte
	used   uint64 // places that were ever taken
	free   uint64 // the last that was given back, 0 for none; in it is the one before
}

// put keeps a name and returns its Tag. A user's name has at most 255 bytes.
func (t *names) put(n name) (tag uint64) {
	if n == (name{}) {
		return 0
	}
	class := (nameHead + len(n.user) + placeUnit - 1) / placeUnit
	t.mu.Lock()
	defer t.mu.Unlock()
	p := &t.classes[class]
	place := p.free
	if place != 0 {
		p.free = binary.NativeEndian.Uint64(p.at(place, class))
	} else {
		if p.used%chunkPlaces == 0 {
			p.chunks = append(p.chunks, make([]byte, chunkPlaces*placeUnit*class))
		}
		p.used++
		place = p.used
	}
	b := p.at(place, class)
	b[0] = n.backend
	binary.NativeEndian.PutUint64(b[1:], n.alias)
	b[9] = uint8(len(n.user))
	copy(b[nameHead:], n.user)
	return uint64(class)<<56 | place
}

// at is a place; they are counted from 1.
func (p *places) at(place uint64, class int) []byte {
	size := uint64(placeUnit * class)
	i := (place - 1) % chunkPlaces * size
	return p.chunks[(place-1)/chunkPlaces][i : i+size]
}

// get returns the name of a Tag that was not given back.
func (t *names) get(tag uint64) (n name) {
	if tag == 0 {
		return n
	}
	t.mu.RLock()
	defer t.mu.RUnlock()
	b := t.bytes(tag)
	return name{b[0], binary.NativeEndian.Uint64(b[1:]), string(b[nameHead : nameHead+int(b[9])])}
}

func (t *names) bytes(tag uint64) []byte {
	class := int(tag >> 56)
	return t.classes[class].at(tag<<8>>8, class)
}

// drop gives a Tag's place back.
func (t *names) drop(tag uint64) {
	if tag == 0 {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	p := &t.classes[tag>>56]
	binary.NativeEndian.PutUint64(t.bytes(tag), p.free)
	p.free = tag << 8 >> 8
}
