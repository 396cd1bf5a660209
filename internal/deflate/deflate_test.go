package deflate_test

import (
	"bytes"
	"compress/flate"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsflate"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/internal/deflate"
)

// random makes bytes that nothing compresses.
func random(length int) []byte {
	b := make([]byte, length)
	rng := rand.NewChaCha8([32]byte{76, 92})
	_, _ = rng.Read(b)
	return b
}

// messages are of all kinds and of lengths at the edges of windows and blocks.
func messages() map[string][]byte {
	all := map[string][]byte{"empty": {}, "one byte": {'x'}, "Hello": []byte("Hello"), "a tail": []byte("\x00\x00\xff\xff")}
	for _, n := range []int{31, 127, 128, 255, 256, 257, 4096, 4097, 32768, 32769, 65535, 65536, 200_000} {
		all[fmt.Sprint("chat of ", n)] = chat(n)
		all[fmt.Sprint("noise of ", n)] = random(n)
		all[fmt.Sprint("zeros of ", n)] = make([]byte, n)
	}
	return all
}

func TestWhatIsDeflatedIsInflated(t *testing.T) {
	var d deflate.Deflater
	var f deflate.Inflater
	for name, plain := range messages() {
		for _, window := range []frame.Window{8, 9, 12, frame.MaxWindow} {
			wire := d.Deflate([]byte("held"), plain, window)
			if !bytes.HasPrefix(wire, []byte("held")) {
				t.Fatalf("%s: what dst held became %q", name, wire[:4])
			}
			compressed := wire[len("held"):]
			if len(compressed) == 0 || len(compressed) > len(plain)+6+len(plain)>>16*5 {
				t.Errorf("%s, window %d: %d bytes for %d", name, window, len(compressed), len(plain))
			}
			got, err := f.Inflate([]byte("held"), compressed, len(plain))
			if err != nil || string(got) != "held"+string(plain) {
				t.Errorf("%s, window %d: %d bytes of %d, error %v", name, window, len(got)-4, len(plain), err)
			}
		}
	}
}

// Another library inflates what is sent, and compresses what is received.
func TestFramesAgreeWithGobwas(t *testing.T) {
	var d deflate.Deflater
	var f deflate.Inflater
	for name, plain := range messages() {
		wire, deflated := d.AppendFrame(nil, frame.Binary, plain, 9)
		r := bytes.NewReader(wire)
		header, err := ws.ReadHeader(r)
		sent := ws.Frame{Header: header, Payload: wire[len(wire)-r.Len():]}
		if err != nil || sent.Header.Rsv1() != deflated || deflated && len(sent.Payload) >= len(plain) {
			t.Fatalf("%s: header %+v, deflated %v, error %v", name, sent.Header, deflated, err)
		}
		if deflated {
			if sent, err = wsflate.DecompressFrame(sent); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		if !bytes.Equal(sent.Payload, plain) {
			t.Errorf("%s: another message is read", name)
		}

		theirs, err := wsflate.CompressFrame(ws.NewBinaryFrame(plain))
		if err != nil {
			t.Fatal(err)
		}
		if len(theirs.Payload) > len(plain)+len(plain)>>8+64 {
			t.Errorf("%s: %d bytes of %d are refused by a Parser with that limit", name, len(theirs.Payload), len(plain))
		}
		if got, err := f.Message(frame.Binary, theirs.Payload, len(plain)); err != nil || !bytes.Equal(got, plain) {
			t.Errorf("%s: %d bytes of %d, error %v", name, len(got), len(plain), err)
		}
	}
}

// The examples of RFC 7692 section 7.2.3, and what sections 7.2.1 and 7.2.2
// make of others.
func TestInflateFollowsTheRFC(t *testing.T) {
	// Final blocks: "Hello", stored, and nothing.
	const hello, end = "\x01\x05\x00\xfa\xffHello", "\x03\x00"
	rows := []struct {
		name, compressed, want string
		err                    error
	}{
		{"7.2.3.1 one block", "\xf2\x48\xcd\xc9\xc9\x07\x00", "Hello", nil},
		{"7.2.3.2 a window that was not kept", "\xf2\x00\x11\x00\x00", "", deflate.ErrCorrupt},
		{"7.2.3.3 a block without compression", "\x00\x05\x00\xfa\xff\x48\x65\x6c\x6c\x6f\x00", "Hello", nil},
		{"7.2.3.4 a block with BFINAL", "\xf3\x48\xcd\xc9\xc9\x07\x00\x00", "Hello", nil},
		{"7.2.3.5 two blocks", "\xf2\x48\x05\x00\x00\x00\xff\xff\xca\xc9\xc9\x07\x00", "Hello", nil},
		{"7.2.3.6 an empty message", "\x00", "", nil},
		{"7.2.1 an empty message of fixed codes", "\x02\x00", "", nil},
		{"7.2.1 a block with BFINAL and nothing behind it", "\xf3\x48\xcd\xc9\xc9\x07\x00", "Hello", nil},
		{"7.2.1 blocks behind BFINAL", hello + hello + "\x00", "HelloHello", nil},
		{"7.2.1 a block behind BFINAL that refers to what precedes it", hello + "\xf2\x00\x11\x00\x00", "HelloHello", nil},
		{"7.2.1 many empty streams", strings.Repeat(end, 255) + "\x00", "", nil},
		{"7.2.1 too many empty streams", strings.Repeat(end, 256) + "\x00", "", deflate.ErrCorrupt},
		{"7.2.2 nothing at all", "", "", deflate.ErrCorrupt},
		{"7.2.2 the tail is there twice", "\xf2\x48\xcd\xc9\xc9\x07\x00\x00\x00\xff\xff", "", deflate.ErrCorrupt},
		{"1951 3.2.3 reserved block type", "\x06", "", deflate.ErrCorrupt},
		{"1951 3.2.4 lengths that do not match", "\x00\x05\x00\xfb\xffHello\x00", "", deflate.ErrCorrupt},
		{"1951 3.2.4 a block that is cut", "\x00\x50\x00\xaf\xffHello", "", deflate.ErrCorrupt},
		{"1951 3.2.5 a distance beyond the beginning", "\x4a\x04\x21\x00", "", deflate.ErrCorrupt},
		{"1951 3.2.7 codes that are over-subscribed", "\x04\xff\xff\xff\xff\xff\xff\xff\xff", "", deflate.ErrCorrupt},
		{"gzip", "\x1f\x8b\x08\x00\x00\x00\x00\x00", "", deflate.ErrCorrupt},
		{"plain text", "Hello, world", "", deflate.ErrCorrupt},
	}
	var f deflate.Inflater // one for all, so that nothing may stick to it
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			got, err := f.Inflate([]byte("held"), []byte(r.compressed), 100)
			want := "held" + r.want
			if r.err != nil {
				want = "held"
			}
			if err != r.err && !(err == nil && r.err == nil) || string(got) != want {
				t.Errorf("%q, error %v; want %q, %v", got, err, want, r.err)
			}
		})
	}
}

// A message cannot reach the one before it, which may be another connection's.
func TestMessagesDoNotShareAWindow(t *testing.T) {
	var f deflate.Inflater
	var d deflate.Deflater
	secret := chat(40_000)
	if _, err := f.Message(frame.Text, d.Deflate(nil, secret, frame.MaxWindow), len(secret)); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	w, err := flate.NewWriterDict(&b, flate.BestCompression, secret)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = w.Write(secret[20_000:21_000])
	_ = w.Flush()
	if got, err := f.Message(frame.Text, b.Bytes()[:b.Len()-4], 1<<20); err != deflate.ErrCorrupt {
		t.Errorf("%q, error %v", got, err)
	}
}

func TestMessageChecksText(t *testing.T) {
	var f deflate.Inflater
	var d deflate.Deflater
	for plain, valid := range map[string]bool{"κόσμε": true, "a\xff": false, "\xf0\x9f\x98": false, "": true} {
		compressed := d.Deflate(nil, []byte(plain), frame.MaxWindow)
		if got, err := f.Message(frame.Text, compressed, 100); (err == nil) != valid || err != nil && err != frame.ErrUTF8 || valid && string(got) != plain {
			t.Errorf("%q: %q, error %v", plain, got, err)
		}
		if got, err := f.Message(frame.Binary, compressed, 100); err != nil || string(got) != plain {
			t.Errorf("binary %q: %q, error %v", plain, got, err)
		}
	}
}

// bomb is a payload of about a thousandth of the zeros that it inflates to.
func bomb(megabytes int) []byte {
	var b bytes.Buffer
	w, _ := flate.NewWriter(&b, flate.BestCompression)
	zeros := func() int {
		_, _ = w.Write(make([]byte, 1<<20))
		_ = w.Flush()
		return b.Len()
	}
	first, second := zeros(), zeros()
	more := b.Bytes()[first:second] // of what was before
	all := slices.Concat(b.Bytes()[:first], bytes.Repeat(more, megabytes-1))
	return all[:len(all)-4]
}

func TestBombsCostTheLimit(t *testing.T) {
	compressed := bomb(1 << 10)
	var f deflate.Inflater
	if m, err := f.Message(frame.Binary, bomb(2), 2<<20); err != nil || len(m) != 2<<20 || len(compressed) > 1<<20+1<<16 {
		t.Fatalf("a bomb of %d bytes; a small one has %d, error %v", len(compressed), len(m), err)
	}
	for _, limit := range []int{0, 1, 1000, 1 << 16, 1 << 20} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		got, err := f.Message(frame.Binary, compressed, limit)
		runtime.ReadMemStats(&after)
		if err != frame.ErrTooBig || got != nil {
			t.Fatalf("limit %d: %d bytes, error %v", limit, len(got), err)
		}
		// The payload is copied once. The runtime rounds sizes up.
		most := uint64(len(compressed)+2*limit)*9/8 + 64<<10
		if cost := after.TotalAlloc - before.TotalAlloc; cost > most {
			t.Errorf("limit %d: %d bytes are allocated, want at most %d", limit, cost, most)
		}
	}
}

func TestTheLimitIsExact(t *testing.T) {
	var f deflate.Inflater
	var d deflate.Deflater
	for _, length := range []int{1, 511, 512, 513, 32768, 100_000} {
		for _, plain := range [][]byte{chat(length), random(length), make([]byte, length)} {
			compressed := d.Deflate(nil, plain, frame.MaxWindow)
			for _, room := range []int{0, 10, length, length + 1, 4 * length} {
				dst := make([]byte, 3, 3+room)
				if got, err := f.Inflate(dst, compressed, length); err != nil || !bytes.Equal(got[3:], plain) {
					t.Errorf("%d bytes into %d: %d, error %v", length, room, len(got)-3, err)
				}
				if got, err := f.Inflate(dst, compressed, length-1); err != frame.ErrTooBig || len(got) != 3 {
					t.Errorf("%d bytes into %d, a byte less allowed: %d, error %v", length, room, len(got)-3, err)
				}
			}
		}
	}
}

// Noise that is repeated is half as long compressed, if the window reaches back.
func TestTheWindowIsHonoured(t *testing.T) {
	var d deflate.Deflater
	for window := frame.Window(8); window <= frame.MaxWindow; window++ {
		for _, apart := range []int{window.Size() / 2, window.Size(), window.Size() + 1, 2 * window.Size()} {
			noise := random(apart)
			plain := bytes.Repeat(noise, 3)
			size := len(d.Deflate(nil, plain, window))
			if apart > window.Size() && size < len(plain) {
				t.Errorf("window %d: %d bytes that are repeated %d bytes apart became %d", window, len(plain), apart, size)
			}
			if apart < window.Size() && size > len(plain)/2 {
				t.Errorf("window %d: %d bytes that are repeated %d bytes apart are still %d", window, len(plain), apart, size)
			}
		}
	}
}

func TestAnyGoroutineMayDeflate(t *testing.T) {
	var d deflate.Deflater
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			var f deflate.Inflater
			for n := range 50 {
				plain := chat(n*100 + i)
				compressed := d.Deflate(nil, plain, frame.Window(8+i))
				if got, err := f.Message(frame.Text, compressed, 1<<20); err != nil || !bytes.Equal(got, plain) {
					t.Errorf("%d bytes of %d, error %v", len(got), len(plain), err)
				}
			}
		})
	}
	wg.Wait()
}

func TestNothingIsAllocated(t *testing.T) {
	var d deflate.Deflater
	var f deflate.Inflater
	for _, size := range []int{0, 100, 5000, 64 << 10} {
		for _, window := range []frame.Window{8, frame.MaxWindow} {
			plain := chat(size)
			wire := make([]byte, 0, 2*size+100)
			compressed := d.Deflate(nil, plain, window)
			both := func() {
				d.AppendFrame(wire, frame.Text, plain, window)
				if m, err := f.Message(frame.Text, compressed, size); err != nil || len(m) != size {
					t.Fatal(len(m), err)
				}
			}
			both() // gives them what they keep
			// The race detector makes pools forget, and so does a collection.
			if n := testing.AllocsPerRun(100, both); n >= 1 && !raceEnabled {
				t.Errorf("%d bytes, window %d: %v allocations", size, window, n)
			}
		}
	}
}

func FuzzInflate(f *testing.F) {
	for _, seed := range []string{"", "\x00", "\xf2\x48\xcd\xc9\xc9\x07\x00", "\xf3\x48\xcd\xc9\xc9\x07\x00\x00", "\x03\x00\x03\x00\x00"} {
		f.Add([]byte(seed), uint16(100))
	}
	var d deflate.Deflater
	f.Add(d.Deflate(nil, chat(3000), 8), uint16(3000))
	f.Add(bomb(1), uint16(1000))
	f.Fuzz(func(t *testing.T, compressed []byte, limit uint16) {
		given := bytes.Clone(compressed)
		var one deflate.Inflater
		got, err := one.Inflate(nil, compressed, int(limit))
		if !bytes.Equal(given, compressed) || len(got) > int(limit) || err != nil && err != frame.ErrTooBig && err != deflate.ErrCorrupt {
			t.Fatalf("%d bytes of at most %d, error %v", len(got), limit, err)
		}
		again, errAgain := one.Message(frame.Binary, compressed, int(limit))
		if errAgain != err || !bytes.Equal(again, got) {
			t.Errorf("%d bytes and %v, then %d and %v", len(got), err, len(again), errAgain)
		}
		if err != nil {
			return
		}
		// Where the standard library reads one stream to its end, it is the
		// beginning of the message.
		std, err := io.ReadAll(flate.NewReader(strings.NewReader(string(compressed) + "\x00\x00\xff\xff\x01\x00\x00\xff\xff")))
		if err != nil || !bytes.HasPrefix(got, std) {
			t.Errorf("%q, but the standard library reads %q, error %v", got, std, err)
		}
	})
}

func FuzzRoundTrip(f *testing.F) {
	for _, plain := range messages() {
		if len(plain) < 5000 {
			f.Add(plain, byte(8), byte(3))
		}
	}
	var d deflate.Deflater
	f.Fuzz(func(t *testing.T, plain []byte, window, repeat byte) {
		var i deflate.Inflater
		plain = bytes.Repeat(plain, 1+int(repeat%32))
		compressed := d.Deflate(nil, plain, 8+frame.Window(window%8))
		if got, err := i.Message(frame.Binary, compressed, len(plain)); err != nil || !bytes.Equal(got, plain) {
			t.Errorf("%d bytes of %d, error %v", len(got), len(plain), err)
		}
	})
}
