package netpoll

import "iter"

// Pool hands out *T by index: what a connection needs only at times stays out
// of its slot, which holds the index. The first index is 1, so that zero in a
// slot means none. Only one goroutine may use it.
type Pool[T any] struct {
	reset  func(*T)
	all    []*T     // all[i-1] is what index i names, nil while i is free
	free   []uint32 // free indices, the next one last
	spare  []*T     // reset, without an index
	cursor int      // where Each goes on, an index into all
}

// spareMost is how many free T a Pool keeps. It forgets its table when all are
// free and the table is longer than that.
const spareMost = 16

// NewPool makes a pool. Put calls reset for each T that comes back; without a
// reset it becomes a zero value.
func NewPool[T any](reset func(*T)) *Pool[T] {
	if reset == nil {
		reset = func(t *T) {
			var zero T
			*t = zero
		}
	}
	return &Pool[T]{reset: reset}
}

// Take returns the index of a T that nobody uses: a zero value, or one as reset
// left it.
func (p *Pool[T]) Take() uint32 {
	var t *T
	if n := len(p.spare); n > 0 {
		t, p.spare = p.spare[n-1], p.spare[:n-1]
	} else {
		t = new(T)
	}
	if n := len(p.free); n > 0 {
		i := p.free[n-1]
		p.free = p.free[:n-1]
		p.all[i-1] = t
		return i
	}
	p.all = append(p.all, t)
	return uint32(len(p.all))
}

// At returns the T of an index, nil for 0 and for an index that is free.
func (p *Pool[T]) At(i uint32) *T {
	if i == 0 || int(i) > len(p.all) {
		return nil
	}
	return p.all[i-1]
}

// Put frees an index that Take returned. Its T must not be used any more.
func (p *Pool[T]) Put(i uint32) {
	t := p.all[i-1]
	p.reset(t)
	if len(p.spare) < spareMost {
		p.spare = append(p.spare, t)
	}
	p.all[i-1] = nil
	p.free = append(p.free, i)
	if p.Used() == 0 && len(p.all) > spareMost {
		p.all, p.free = nil, nil
	}
}

// sparseMost bounds how many indices Each looks at for each that it is asked for.
const sparseMost = 64

// Used returns the number of indices in use.
func (p *Pool[T]) Used() int { return len(p.all) - len(p.free) }

// Each iterates over the next n indices in use, or over all if there are fewer,
// each once. It goes on where the last call ended and goes round, so that
// repeated calls come to every one that stays in use. The loop may Take and Put.
// A call looks at sparseMost × n indices at most, so it finds fewer where few of a
// large table are in use.
func (p *Pool[T]) Each(n int) iter.Seq2[uint32, *T] {
	return func(yield func(uint32, *T) bool) {
		found := 0
		for looked := 0; looked < min(len(p.all), sparseMost*n) && found < n; looked++ {
			if p.cursor >= len(p.all) {
				p.cursor = 0
			}
			t := p.all[p.cursor]
			p.cursor++
			if t == nil {
				continue
			}
			found++
			if !yield(uint32(p.cursor), t) {
				return
			}
		}
	}
}
