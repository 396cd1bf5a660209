package wire

import (
	"math"
	"testing"
	"time"
)

func TestMessagesAreDecodedAsEncoded(t *testing.T) {
	for _, size := range []int{SizeMin, 17, 32, 125, 126, 64 << 10} {
		for _, want := range []Message{
			{Kind: Published},
			{time.Hour + time.Microsecond, 7, 1, 2, Asked},
			{(1<<48 - 1) * time.Microsecond, math.MaxUint32, math.MaxUint16, math.MaxUint16, Published},
		} {
			payload := make([]byte, size)
			want.Encode(payload)
			if got, ok := Decode(payload); !ok || got != want {
				t.Errorf("%d bytes: %+v became %+v, %v", size, want, got, ok)
			}
		}
	}
}

func TestChangedMessagesAreRefused(t *testing.T) {
	const size = 64
	fresh := func() []byte {
		payload := make([]byte, size)
		Message{time.Second, 3, 4, 5, Published}.Encode(payload)
		return payload
	}
	for i := range size {
		payload := fresh()
		payload[i]++
		if _, ok := Decode(payload); ok {
			t.Errorf("byte %d was changed, and Decode did not notice", i)
		}
	}
	swapped := fresh()
	swapped[20], swapped[21] = swapped[21], swapped[20]
	for why, payload := range map[string][]byte{
		"one byte less":     fresh()[:size-1],
		"one byte more":     append(fresh(), fillerFrom(size)[0]),
		"nothing":           {},
		"swapped filler":    swapped,
		"greeting":          []byte("welcome"),
		"a longer greeting": []byte("welcome to the chat of all chats, dear guest"),
		"zeros":             make([]byte, size),
	} {
		if m, ok := Decode(payload); ok {
			t.Errorf("%s: taken for %+v", why, m)
		}
	}
}

func FuzzDecode(f *testing.F) {
	payload := make([]byte, 40)
	Message{time.Second, 3, 4, 5, Asked}.Encode(payload)
	f.Add(payload)
	f.Fuzz(func(t *testing.T, payload []byte) {
		m, ok := Decode(payload)
		if !ok {
			return
		}
		again := make([]byte, len(payload))
		if m.Encode(again); string(again) != string(payload) {
			t.Errorf("%q is %+v, which is %q", payload, m, again)
		}
	})
}
