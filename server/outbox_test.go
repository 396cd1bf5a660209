package server

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"testing"
)

func randomBytes(rng *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return b
}

// What an outbox gives out is the frames that were put in and not taken out,
// whole and in order, and it knows how much that is.
func TestOutboxAgainstAModel(t *testing.T) {
	for seed := range uint64(30) {
		rng := rand.New(rand.NewPCG(seed, 1))
		var o outbox
		var model []parcel
		var frames, copies [][]byte // that belong to others
		scratch := make([]byte, 300)
		for range 5000 {
			switch n := rng.IntN(10); {
			case n < 4:
				p := parcel{data: randomBytes(rng, 1+rng.IntN(200)), id: rng.Uint32N(3), whenSlow: WhenSlow(rng.IntN(5))}
				p.borrowed = rng.IntN(2) == 0
				kept := p
				kept.data = slices.Clone(p.data)
				o.add(p)
				model = append(model, kept)
				if p.borrowed {
					clear(p.data) // for it belongs to the caller
				} else {
					frames, copies = append(frames, p.data), append(copies, kept.data)
				}
			case n < 5:
				id := rng.Uint32N(3)
				i := o.predecessor(id)
				if want := slices.IndexFunc(model, func(p parcel) bool { return !p.begun && p.whenSlow == Latest && p.id == id }); i != want {
					t.Fatalf("the one before of its kind is %d, want %d", i, want)
				}
				if i >= 0 {
					o.remove(i)
					model = slices.Delete(model, i, i+1)
				}
			case n < 6:
				i := o.oldest()
				if want := slices.IndexFunc(model, func(p parcel) bool { return !p.begun && p.whenSlow >= DropOld }); i != want {
					t.Fatalf("the oldest that may be dropped is %d, want %d", i, want)
				}
				if i >= 0 {
					o.remove(i)
					model = slices.Delete(model, i, i+1)
				}
			case o.bytes > 0:
				data := o.next(scratch)
				if len(data) == 0 {
					t.Fatal("nothing is next")
				}
				n := rng.IntN(len(data) + 1)
				got := o.sent(n)
				if want := owing(sendFrom(t, &model, data[:n])); got != want {
					t.Fatalf("sent %d messages and %d of their bytes, want %d and %d", got.messages(), got.bytes(), want.messages(), want.bytes())
				}
			}
			bytes, owed := 0, owed(0)
			for _, p := range model {
				bytes += len(p.data)
				owed += p.owed()
			}
			if o.bytes != bytes || o.owed != owed || len(o.queue) != len(model) || (o.bytes == 0) != (o.queue == nil) {
				t.Fatalf("%d bytes, %x owed, %d frames, want %d, %x, %d", o.bytes, o.owed, len(o.queue), bytes, owed, len(model))
			}
		}
		for i := range frames {
			if !bytes.Equal(frames[i], copies[i]) {
				t.Fatal("a shared frame was changed")
			}
		}
	}
}

// sendFrom takes what was sent off the model.
func sendFrom(t *testing.T, model *[]parcel, sent []byte) (messages, messageBytes int) {
	for len(sent) > 0 {
		p := &(*model)[0]
		n := min(len(sent), len(p.data))
		if !bytes.Equal(sent[:n], p.data[:n]) {
			t.Fatal("other bytes come out")
		}
		if p.whenSlow != 0 {
			messageBytes += n
		}
		sent = sent[n:]
		if p.data, p.begun = p.data[n:], true; len(p.data) > 0 {
			return messages, messageBytes
		}
		if p.whenSlow != 0 {
			messages++
		}
		*model = (*model)[1:]
	}
	return messages, messageBytes
}

// What is shared is not copied unless it is small and goes out with others.
func TestOutboxSharesFrames(t *testing.T) {
	frame := make([]byte, 1000)
	var o outbox
	o.add(parcel{data: frame, whenSlow: DropNew})
	o.add(parcel{data: []byte{1}, whenSlow: DropNew})
	if next := o.next(make([]byte, 100)); &next[0] != &frame[0] || len(next) != len(frame) {
		t.Error("a large frame was copied")
	}
	if next := o.next(make([]byte, 2000)); len(next) != 1001 {
		t.Errorf("%d bytes go out together, want 1001", len(next))
	}
}
