package server

import (
	"bytes"
	"math/rand/v2"
	"testing"
)

// logModel drives a broadcastLog as a reactor does, and remembers for every
// member what it should have been sent.
type logModel struct {
	t       *testing.T
	log     broadcastLog
	members map[int]*member // by slot
	high    int
	sent    int // publications
	done    map[*publication]bool
}

type member struct {
	heard     uint32
	got, want []byte
}

func (m *logModel) add(frame []byte) {
	m.log.add(&publication{frame: frame}, 0)
	m.sent++
	for _, b := range m.members {
		b.want = append(b.want, frame...)
	}
}

// catchUp sends a member what it lacks, as reactor.catchUp does.
func (m *logModel) catchUp(b *member) {
	owed, frames := m.log.since(b.heard)
	var each []byte
	for _, l := range frames {
		each = append(each, l.pub.frame...)
	}
	if !bytes.Equal(owed, each) {
		m.t.Fatalf("%d bytes are owed, in frames of %d bytes", len(owed), len(each))
	}
	b.got = append(b.got, owed...)
	b.heard = m.log.end()
	if !bytes.Equal(b.got, b.want) {
		m.t.Fatalf("a member was sent %q, want %q", b.got, b.want)
	}
}

// step serves the slot under the hand and moves on.
func (m *logModel) step() {
	if b := m.members[int(m.log.hand)]; b != nil && b.heard != m.log.end() {
		m.catchUp(b)
	}
	for _, l := range m.log.step(m.high) {
		if m.done[l.pub] {
			m.t.Fatal("delivered twice")
		}
		m.done[l.pub] = true
	}
}

// join takes the lowest free slot.
func (m *logModel) join() {
	slot := 0
	for m.members[slot] != nil {
		slot++
	}
	m.members[slot] = &member{heard: m.log.end()}
	m.high = max(m.high, slot+1)
}

func (m *logModel) leave(slot int) {
	delete(m.members, slot)
	if len(m.members) == 0 { // slots begin anew
		m.high = 0
	}
}

func (m *logModel) check() {
	for slot, b := range m.members {
		if lag := m.log.end() - b.heard; int(lag) > len(m.log.bytes) {
			m.t.Fatalf("slot %d lacks %d bytes, of which %d are kept", slot, lag, len(m.log.bytes))
		}
	}
	if undone := m.sent - len(m.done); undone != len(m.log.frames) {
		m.t.Fatalf("%d publications are undone, %d are kept", undone, len(m.log.frames))
	}
}

// Whatever comes between, every member is sent every frame once and in order,
// and each frame is done with once, when nobody lacks it. Positions wrap.
func TestBroadcastLogAgainstAModel(t *testing.T) {
	for seed := range uint64(50) {
		rng := rand.New(rand.NewPCG(seed, 1))
		m := &logModel{t: t, members: map[int]*member{}, done: map[*publication]bool{}}
		m.log.base = -uint32(rng.IntN(5000)) // which wraps before long
		most := 1 + rng.IntN(40)
		for range 5000 {
			switch n := rng.IntN(100); {
			case n < 10:
				frame := make([]byte, 1+rng.IntN(50))
				for i := range frame {
					frame[i] = byte(rng.Uint32())
				}
				m.add(frame)
			case n < 18 && len(m.members) < most:
				m.join()
			case n < 24:
				m.leave(rng.IntN(most))
			case n == 24 && rng.IntN(10) == 0:
				for slot := range most {
					m.leave(slot)
				}
			case n < 30:
				if b := m.members[rng.IntN(most)]; b != nil {
					m.catchUp(b)
				}
			default:
				if m.log.busy() {
					m.step()
				}
			}
			m.check()
		}
		for steps := 0; m.log.busy(); steps++ {
			if steps > 3*(most+1) {
				t.Fatalf("the last frame takes more than %d steps", steps)
			}
			m.step()
		}
		m.check()
		for _, b := range m.members {
			if !bytes.Equal(b.got, b.want) {
				t.Fatalf("a member was sent %d bytes of %d", len(b.got), len(b.want))
			}
		}
		if m.log.base > 1<<31 {
			t.Error("the positions did not wrap")
		}
	}
}

// A burst's memory is given back once it is over.
func TestBroadcastLogGivesMemoryBack(t *testing.T) {
	m := &logModel{t: t, members: map[int]*member{}, done: map[*publication]bool{}}
	m.join()
	for range 2 * readSize / 1000 {
		m.add(make([]byte, 1000))
	}
	for m.log.busy() {
		m.step()
	}
	if n := cap(m.log.bytes); n > readSize {
		t.Errorf("%d bytes are kept", n)
	}
}
