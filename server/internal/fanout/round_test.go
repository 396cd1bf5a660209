package fanout

import (
	"bytes"
	"math/rand/v2"
	"testing"
)

// members drives a Round as a reactor does, and records what each member should have been
// sent.
type members struct {
	t    *testing.T
	log  Round
	by   map[int]*member // slot
	high int
	sent int // publications
	done map[*Publication]bool
}

type member struct {
	heard     uint32
	window    uint8
	got, want []byte
}

func newMembers(t *testing.T) *members {
	return &members{t: t, by: map[int]*member{}, done: map[*Publication]bool{}}
}

func (m *members) add(frame, deflated []byte) {
	m.log.Add(NewPublication(frame, deflated, 0, 0, 1, func(Tally) {}), 0)
	m.sent++
	for _, b := range m.by {
		b.want = append(b.want, b.choose(frame, deflated)...)
	}
}

// choose is what a member should be sent: nothing that needs a larger window than it
// has agreed to.
func (b *member) choose(frame, deflated []byte) []byte {
	const maxWindow = 15
	agreed, reach := b.window != 0, 1<<b.window
	if deflated != nil && agreed && (b.window == maxWindow || len(frame) <= reach) {
		return deflated
	}
	return frame
}

// catchUp sends a member what it lacks, in pieces, and sometimes not everything.
func (m *members) catchUp(b *member, pieces int) {
	for ; b.heard != m.log.End() && pieces > 0; pieces-- {
		frames, n := m.log.Piece(b.heard, b.window)
		var each []byte
		for _, e := range m.log.Lacks(b.heard)[:n] {
			each = append(each, b.choose(e.Frame, e.deflated)...)
		}
		if !bytes.Equal(frames, each) {
			m.t.Fatalf("a piece of %d frames has %d bytes, want %d", n, len(frames), len(each))
		}
		b.got = append(b.got, frames...)
		b.heard += uint32(n)
	}
	if b.heard == m.log.End() && !bytes.Equal(b.got, b.want) {
		m.t.Fatalf("a member was sent %d bytes, want %d", len(b.got), len(b.want))
	}
}

// step serves the slot under the hand and moves on.
func (m *members) step() {
	if b := m.by[m.log.Hand()]; b != nil {
		m.catchUp(b, 1<<30)
	}
	for _, e := range m.log.Step(m.high) {
		if m.done[e.Publication] {
			m.t.Fatal("a publication is done twice")
		}
		m.done[e.Publication] = true
	}
}

// join takes the lowest free slot.
func (m *members) join(window uint8) {
	slot := 0
	for m.by[slot] != nil {
		slot++
	}
	m.by[slot] = &member{heard: m.log.End(), window: window}
	m.high = max(m.high, slot+1)
}

func (m *members) leave(slot int) {
	delete(m.by, slot)
	if len(m.by) == 0 { // without members the slots begin at 0 again
		m.high = 0
	}
}

func (m *members) check() {
	for slot, b := range m.by {
		if lacks := m.log.End() - b.heard; int(lacks) > len(m.log.entries) {
			m.t.Fatalf("slot %d lacks %d publications, of which %d are kept", slot, lacks, len(m.log.entries))
		}
	}
	if undone := m.sent - len(m.done); undone != len(m.log.entries) {
		m.t.Fatalf("%d publications are undone, %d are kept", undone, len(m.log.entries))
	}
}

// Every member is sent every frame once and in order, whatever happens in between. Each
// publication is done once, when no member lacks it. Positions wrap.
func TestARoundAgainstAModel(t *testing.T) {
	for seed := range uint64(12) {
		rng := rand.New(rand.NewPCG(seed, 1))
		m := newMembers(t)
		m.log.begin = -uint32(rng.IntN(100)) // so that positions wrap soon
		most := 1 + rng.IntN(40)
		for range 3000 {
			switch n := rng.IntN(100); {
			case n < 10:
				size := 1 + rng.IntN(50)
				if rng.IntN(30) == 0 {
					size = 1 + rng.IntN(pieceMax)
				}
				frame := make([]byte, size)
				for i := range min(size, 100) {
					frame[i] = byte(rng.Uint32())
				}
				var deflated []byte
				if rng.IntN(2) == 0 {
					deflated = bytes.Repeat([]byte{byte(size)}, 1+rng.IntN(size))
				}
				m.add(frame, deflated)
			case n < 18 && len(m.by) < most:
				m.join([]uint8{0, 0, 8, 9, 12, 15, 15}[rng.IntN(7)])
			case n < 24:
				m.leave(rng.IntN(most))
			case n == 24 && rng.IntN(10) == 0:
				for slot := range most {
					m.leave(slot)
				}
			case n < 30:
				if b := m.by[rng.IntN(most)]; b != nil {
					m.catchUp(b, 1+rng.IntN(3))
				}
			default:
				if m.log.Busy() {
					m.step()
				}
			}
			m.check()
		}
		for steps := 0; m.log.Busy(); steps++ {
			if steps > 3*(most+1) {
				t.Fatalf("the last publication takes more than %d steps", steps)
			}
			m.step()
		}
		m.check()
		for _, b := range m.by {
			if !bytes.Equal(b.got, b.want) {
				t.Fatalf("a member was sent %d bytes of %d", len(b.got), len(b.want))
			}
		}
		if m.log.begin > 1<<31 {
			t.Error("the positions did not wrap")
		}
	}
}

// Small frames are joined once for all members that lack the same frames.
func TestAPieceServesManyMembers(t *testing.T) {
	m := newMembers(t)
	for range 3 {
		m.add(make([]byte, 100), make([]byte, 10))
	}
	plain, _ := m.log.Piece(0, 0)
	for _, window := range []uint8{15, 0, 15} {
		first, n := m.log.Piece(0, window)
		second, _ := m.log.Piece(0, window)
		if n != 3 || &first[0] != &second[0] || window == 0 && &first[0] != &plain[0] {
			t.Errorf("a piece of %d frames was laid out twice", n)
		}
	}
}

// After a burst its memory is given back.
func TestALogGivesMemoryBack(t *testing.T) {
	m := newMembers(t)
	m.join(0)
	for range 1000 {
		m.add(make([]byte, 1000), nil)
	}
	for m.log.Busy() {
		m.step()
	}
	if m.log.entries != nil || m.log.pieces[0].frames != nil {
		t.Error("an empty log keeps memory")
	}
}
