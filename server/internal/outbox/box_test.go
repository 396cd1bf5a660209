package outbox

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"testing"
)

// model is a simple Box that is obviously right.
type model struct{ frames []Frame }

func (m *model) size() (s Size) {
	for i := range m.frames {
		s += m.frames[i].Size()
	}
	return s
}

// oldest returns the index of the first frame that matches, -1 if none does.
func (m *model) oldest(wanted func(Frame) bool) int {
	return slices.IndexFunc(m.frames, func(f Frame) bool { return !f.Begun && wanted(f) })
}

func (m *model) remove(i int) Size {
	s := m.frames[i].Size()
	m.frames = slices.Delete(m.frames, i, i+1)
	return s
}

// put follows the documentation of the policies.
func (m *model) put(f Frame, bound Size, full bool) (o Outcome) {
	if f.Policy == Latest {
		if i := m.oldest(func(q Frame) bool { return q.Policy == Latest && q.ID == f.ID }); i >= 0 {
			o.Conflated = m.remove(i)
		}
	}
	for {
		fits := !m.size().Exceeds(bound.Part(2)) || !(m.size() + f.Size()).Exceeds(bound)
		switch {
		case f.Begun || fits && (!full || f.Policy == Close):
			o.Fate = Queued
			m.frames = append(m.frames, f)
			return o
		case f.Policy == Close:
			o.Fate = Overflow
			return o
		}
		i := m.oldest(func(q Frame) bool { return q.Policy >= DropOld })
		if f.Policy == DropNew || i < 0 {
			o.Fate = Dropped
			return o
		}
		o.Old += m.remove(i)
		full = false
	}
}

func randomBytes(rng *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return b
}

// A Box gives out the frames that were put in and not dropped, whole and in order. It
// drops what the policies say, and its counts are right.
func TestABoxAgainstAModel(t *testing.T) {
	for seed := range uint64(10) {
		rng := rand.New(rand.NewPCG(seed, 1))
		bound := SizeOf(2+rng.IntN(10), 100+rng.IntN(1000))
		var b Box
		var m model
		scratch := make([]byte, 300)
		for range 5000 {
			switch n := rng.IntN(10); {
			case n < 5:
				f := Frame{Data: randomBytes(rng, 1+rng.IntN(200)), ID: rng.Uint32N(3), Policy: Policy(1 + rng.IntN(4)), Begun: rng.IntN(20) == 0}
				if f.Begun && len(m.frames) > 0 {
					continue // only a part of the first frame can have been sent
				}
				full := rng.IntN(10) == 0
				if got, want := b.Put(f, bound, full), m.put(f, bound, full); got != want {
					t.Fatalf("seed %d: Put came to %+v, want %+v", seed, got, want)
				}
			case n < 6:
				f := Frame{Data: randomBytes(rng, 1+rng.IntN(20)), Pong: rng.IntN(2) == 0}
				b.PutControl(f)
				if i := m.oldest(func(q Frame) bool { return q.Pong }); f.Pong && i >= 0 {
					m.remove(i)
				}
				m.frames = append(m.frames, f)
			case b.Bytes() > 0:
				data := b.Next(scratch)
				if len(data) == 0 {
					t.Fatal("nothing is next")
				}
				n := rng.IntN(len(data) + 1)
				want := m.size()
				m.sent(t, data[:n])
				if got := b.Sent(n); got != want-m.size() {
					t.Fatalf("Sent took %x off, want %x", got, want-m.size())
				}
			}
			waiting := 0
			for _, f := range m.frames {
				waiting += len(f.Data)
			}
			if b.Bytes() != waiting || b.Size() != m.size() || (b.Bytes() == 0) != (b.queue == nil) {
				t.Fatalf("%d bytes and %x wait, want %d and %x", b.Bytes(), b.Size(), waiting, m.size())
			}
		}
	}
}

// sent removes bytes that were sent from the model.
func (m *model) sent(t *testing.T, data []byte) {
	for len(data) > 0 {
		f := &m.frames[0]
		n := min(len(data), len(f.Data))
		if !bytes.Equal(data[:n], f.Data[:n]) {
			t.Fatal("other bytes come out")
		}
		data = data[n:]
		if f.Data, f.Begun = f.Data[n:], true; len(f.Data) == 0 {
			m.frames = m.frames[1:]
		}
	}
}

// A shared frame is copied only if it is small and is sent together with others.
func TestABoxSharesFrames(t *testing.T) {
	data := make([]byte, 1000)
	var b Box
	b.Put(Frame{Data: data, Policy: DropNew}, SizeOf(10, 10000), false)
	b.Put(Frame{Data: []byte{1}, Policy: DropNew}, SizeOf(10, 10000), false)
	if next := b.Next(make([]byte, 100)); &next[0] != &data[0] || len(next) != len(data) {
		t.Error("a large frame was copied")
	}
	if next := b.Next(make([]byte, 2000)); len(next) != 1001 {
		t.Errorf("%d bytes go out together, want 1001", len(next))
	}
}
