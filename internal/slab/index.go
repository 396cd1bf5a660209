package slab

import "github.com/seed-134acfd0/lull/netpoll"

// Index finds records by their hash. It is a linear hash table: it grows by one
// bucket with each record, so nobody waits for a growing table. Its limit is the
// number of buckets: about one for each record.
//
// The records are chained through Next, which belongs to the Index while the
// record is in it. The hash must not be one that a stranger can choose.
type Index struct {
	buckets *netpoll.Table[uint32]
	n       uint32 // buckets in use
	mask    uint32 // 2^k − 1, with n ≤ 2^k < 2n
	used    int
}

// Chained are the records of an Index.
type Chained interface {
	Hash(i uint32) uint64
	Next(i uint32) *uint32
}

// NewIndex reserves address space for limit buckets.
func NewIndex(limit int) (*Index, error) {
	buckets, err := netpoll.NewTable[uint32](max(limit, 1))
	if err != nil {
		return nil, err
	}
	return &Index{buckets: buckets, n: 1}, nil
}

func (x *Index) bucket(hash uint64) *uint32 {
	b := uint32(hash) & x.mask
	if b >= x.n {
		b &= x.mask >> 1
	}
	return x.buckets.At(int(b))
}

// First is the first record of those that may have a hash; Chained.Next of it is
// the next one, and so on until 0.
func (x *Index) First(hash uint64) uint32 { return *x.bucket(hash) }

// Add adds a record.
func (x *Index) Add(i uint32, in Chained) {
	b := x.bucket(in.Hash(i))
	*in.Next(i), *b = *b, i
	if x.used++; x.used > int(x.n) && int(x.n) < x.buckets.Len() {
		x.split(in)
	}
}

// Remove removes a record that was added.
func (x *Index) Remove(i uint32, in Chained) {
	p := x.bucket(in.Hash(i))
	for *p != i {
		p = in.Next(*p)
	}
	*p = *in.Next(i)
	if x.used--; x.used == 0 && x.n > keptMost {
		x.n, x.mask = 1, 0
		x.buckets.Zero()
	}
}

// split adds a bucket, and moves to it what belongs there of the one that had its
// records until now.
func (x *Index) split(in Chained) {
	if x.n > x.mask {
		x.mask = x.mask<<1 | 1
	}
	added := x.n
	x.n++
	from := x.buckets.At(int(added & (x.mask >> 1)))
	to := x.buckets.At(int(added))
	*to = 0
	for p := from; *p != 0; {
		i := *p
		next := in.Next(i)
		if uint32(in.Hash(i))&x.mask == added {
			*p = *next
			*next, *to = *to, i
		} else {
			p = next
		}
	}
}
