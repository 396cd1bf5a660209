package loadgen

import (
	"math"
	"testing"
	"time"

	"github.com/seed-134acfd0/lull/frame"
)

func TestMessagesAreDecodedAsEncoded(t *testing.T) {
	for _, size := range []int{sizeMin, 17, 32, 125, 126, sizeMax} {
		for _, want := range []message{
			{kind: kindBroadcast},
			{time.Hour + time.Microsecond, 7, 1, 2, kindEcho},
			{(1<<48 - 1) * time.Microsecond, math.MaxUint32, math.MaxUint16, math.MaxUint16, kindFlood},
		} {
			payload := make([]byte, size)
			want.encode(payload)
			if got, ok := decode(payload, size); !ok || got != want {
				t.Errorf("%d bytes: %+v became %+v, %v", size, want, got, ok)
			}
		}
	}
}

func TestChangedMessagesAreRefused(t *testing.T) {
	const size = 64
	fresh := func() []byte {
		payload := make([]byte, size)
		message{time.Second, 3, 4, 5, kindBroadcast}.encode(payload)
		return payload
	}
	for i := range size {
		payload := fresh()
		payload[i]++
		if _, ok := decode(payload, size); ok {
			t.Errorf("byte %d was changed, and decode did not notice", i)
		}
	}
	swapped := fresh()
	swapped[20], swapped[21] = swapped[21], swapped[20]
	for why, payload := range map[string][]byte{
		"one byte less":  fresh()[:size-1],
		"one byte more":  append(fresh(), filler(size)),
		"nothing":        {},
		"swapped filler": swapped,
		"greeting":       []byte("welcome"),
		"zeros":          make([]byte, size),
	} {
		if m, ok := decode(payload, size); ok {
			t.Errorf("%s: taken for %+v", why, m)
		}
	}
}

func TestEachConnectionHasAKeyOfItsOwn(t *testing.T) {
	seen := map[frame.Key]uint32{}
	one, other := newKeys([16]byte{1}), newKeys([16]byte{2})
	for i := range uint32(10_000) {
		for _, k := range []keys{one, other} {
			key := k.of(i)
			if j, again := seen[key]; again {
				t.Fatalf("connections %d and %d have the key %s", i, j, key)
			}
			seen[key] = i
		}
		if one.of(i) != newKeys([16]byte{1}).of(i) {
			t.Fatalf("connection %d has two keys", i)
		}
	}
}
