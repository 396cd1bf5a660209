package frame_test

import (
	"testing"

	"github.com/seed-134acfd0/lull/frame"
)

var payload32 = []byte("thirty-two bytes, as chat has it")

func BenchmarkNext(b *testing.B) {
	p := frame.NewServerParser(1 << 10)
	wire := frame.AppendMasked(nil, frame.Text, [4]byte{1, 2, 3, 4}, payload32)
	in := make([]byte, len(wire))
	var s frame.State
	b.ReportAllocs()
	b.SetBytes(int64(len(wire)))
	for b.Loop() {
		copy(in, wire) // anew, for Next unmasked it
		if ev, _, err := p.Next(&s, in); !ev.Whole || err != nil {
			b.Fatal(ev, err)
		}
	}
}

func BenchmarkMessage(b *testing.B) {
	p := frame.NewServerParser(1 << 10)
	wire := frame.AppendMasked(nil, frame.Text, [4]byte{1, 2, 3, 4}, payload32)
	in := make([]byte, len(wire))
	var s frame.Stream
	b.ReportAllocs()
	b.SetBytes(int64(len(wire)))
	for b.Loop() {
		copy(in, wire) // anew, for Message unmasked it
		if ev, _, err := p.Message(&s, in); !ev.Whole || err != nil {
			b.Fatal(ev, err)
		}
	}
}

func BenchmarkAppend(b *testing.B) {
	var out []byte
	b.ReportAllocs()
	b.SetBytes(int64(len(payload32)))
	for b.Loop() {
		out = frame.Append(out[:0], frame.Text, payload32)
	}
}

func BenchmarkUpgrade(b *testing.B) {
	u := frame.NewUpgrader(func(*frame.Request) error { return nil })
	head := []byte(good)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := u.Upgrade(head); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCheckResponse(b *testing.B) {
	head := []byte(goodResponse)
	b.ReportAllocs()
	for b.Loop() {
		if err := frame.CheckResponse(head, frame.SampleKey); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkUpgradeDeflate(b *testing.B) {
	u := frame.NewUpgrader(func(*frame.Request) error { return nil })
	u.Deflate = true
	head := []byte(with(offerLine + "permessage-deflate; client_max_window_bits")) // Chromium's offer
	b.ReportAllocs()
	for b.Loop() {
		if _, err := u.Upgrade(head); err != nil {
			b.Fatal(err)
		}
	}
}
