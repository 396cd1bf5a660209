package frame_test

import (
	"bytes"
	"errors"
	"iter"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/seed-134acfd0/lull/frame"
)

// keptBytes is the most that a buffer of an idle Stream may hold.
const keptBytes = 4 << 10

// reader is one connection's use of a Stream. It checks everything that the
// Stream and the parser promise on the way.
type reader struct {
	t      *testing.T
	parser *frame.Parser
	stream frame.Stream
	buf    [1 << 12]byte
	events []string
	err    error
}

// arrive takes what one read of the connection brings.
func (r *reader) arrive(piece []byte) {
	if r.err != nil {
		return
	}
	s := &r.stream
	rest := s.Rest()
	if n := s.Take(r.buf[:]); n != rest || s.Rest() != 0 {
		r.t.Fatalf("took %d bytes of %d, %d are left", n, rest, s.Rest())
	}
	in := r.buf[:rest+copy(r.buf[rest:], piece)]
	for {
		ev, n := r.next(in)
		if r.err != nil {
			return
		}
		in = in[n:]
		if n == 0 {
			break
		}
		if ev.Op == 0 {
			continue
		}
		found := show(ev.Op, ev.Payload)
		if ev.Deflated {
			found = "deflated " + found
		}
		r.events = append(r.events, found)
	}
	if len(in) > frame.MaxPending {
		r.t.Fatalf("%d bytes are left unconsumed, at most %d may be", len(in), frame.MaxPending)
	}
	s.Keep(in)
	if s.Rest() != len(in) || s.Idle() != (len(in) == 0 && !s.Open()) {
		r.t.Fatalf("%d bytes are kept, open %v: Rest is %d, Idle %v", len(in), s.Open(), s.Rest(), s.Idle())
	}
	if s.Idle() {
		*s = frame.Stream{} // it need not be kept
	}
}

// next takes one event and compares it with what was ahead.
func (r *reader) next(in []byte) (ev frame.Event, n int) {
	open, before := r.stream.Open(), bytes.Clone(in)
	ahead := r.parser.Ahead(&r.stream, in)
	if !bytes.Equal(in, before) || r.stream.Open() != open {
		r.t.Fatal("Ahead changed what it looked at")
	}
	ev, n, r.err = r.parser.Message(&r.stream, in)
	_, known := errors.AsType[*frame.Error](r.err)
	switch {
	case r.err != nil && (!known || n != 0):
		r.t.Fatalf("error %v with %d bytes consumed, want a *frame.Error and none", r.err, n)
	case r.err != nil:
		return ev, n
	case ev.Op != 0 && !ev.Last:
		r.t.Fatalf("%v is not whole", ev.Op)
	case ev.Op.Data() && r.stream.Open():
		r.t.Fatal("a message is open behind its end")
	case !bytes.Equal(in[n:], before[n:]):
		r.t.Fatalf("unconsumed bytes were changed to % x", in[n:])
	}
	switch {
	case ahead == 0 && n != 0:
		r.t.Fatalf("nothing is ahead, but %v of %d bytes", ev.Op, n)
	case ahead.Control() && ev.Op != ahead && n != 0:
		r.t.Fatalf("%v is ahead, but %v of %d bytes", ahead, ev.Op, n)
	case ahead.Data() && n == 0, ahead.Data() && ev.Op != 0 && ev.Op != ahead:
		r.t.Fatalf("%v is ahead, but %v of %d bytes", ahead, ev.Op, n)
	}
	return ev, n
}

// readMessages is what becomes of a connection that brings these pieces.
func readMessages(t *testing.T, p *frame.Parser, pieces iter.Seq[[]byte]) (events []string, err error) {
	t.Helper()
	r := reader{t: t, parser: p}
	for piece := range pieces {
		for part := range slices.Chunk(piece, len(r.buf)/2) {
			r.arrive(part)
		}
	}
	return r.events, r.err
}

// whole leaves out the beginning of a message that has not ended.
func whole(events []string) []string {
	if n := len(events); n > 0 && strings.HasSuffix(events[n-1], "…") {
		return events[:n-1]
	}
	return events
}

func TestStreamJoinsWhatTheParserFinds(t *testing.T) {
	for _, c := range rfcCases {
		t.Run(c.name, func(t *testing.T) {
			wire := []byte(c.wire)
			compare := func(how string, pieces iter.Seq[[]byte]) {
				events, err := readMessages(t, c.parser(), pieces)
				if !slices.Equal(events, whole(c.want)) {
					t.Errorf("%s: events %q, want %q", how, events, whole(c.want))
				}
				got, failed := errors.AsType[*frame.Error](err)
				if failed != (c.fails != nil) || failed && got.Code != c.fails.Code {
					t.Errorf("%s: error %v, want %v", how, err, c.fails)
				}
			}
			compare("at once", atOnce(wire))
			compare("byte by byte", byteByByte(wire))
			for i := range min(len(wire), 50) {
				compare("cut in two", cutAt(wire, i))
			}
		})
	}
}

// joins compares what a Stream makes of pieces with the model.
func joins(t *testing.T, wire []byte, from sender, pieces iter.Seq[[]byte]) {
	t.Helper()
	want, breach := model(wire, from, modelMax)
	got, err := readMessages(t, from.parser(modelMax), pieces)
	var code frame.Code
	if e, ok := errors.AsType[*frame.Error](err); ok {
		code = e.Code
	}
	if !slices.Equal(got, whole(want)) || code != breach {
		t.Errorf("% x\nstream: %q, code %d\n model: %q, code %d", wire, got, code, want, breach)
	}
}

func FuzzStreamChunking(f *testing.F) {
	for _, c := range rfcCases {
		if len(c.wire) < 1<<10 {
			f.Add([]byte(c.wire), []byte{1, 0, 2, 7}, bool(c.from))
		}
	}
	f.Fuzz(func(t *testing.T, wire, cuts []byte, masked bool) {
		joins(t, wire, sender(masked), pattern(wire, cuts))
	})
}

func TestStreamAgreesWithModel(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 4))
	for range 5_000 {
		from := sender(rng.IntN(2) == 0)
		wire := conversation(rng, from)
		cuts := make([]byte, 1+rng.IntN(8))
		for i := range cuts {
			cuts[i] = byte(rng.IntN(40))
		}
		joins(t, wire, from, pattern(wire, cuts))
	}
}

func TestAhead(t *testing.T) {
	rows := []struct {
		name   string
		before string // consumed first
		in     string
		want   frame.Op
	}{
		{"nothing", "", "", 0},
		{"half a header", "", client(fin|text, "hello")[:5], 0},
		{"a header without its payload", "", client(fin|text, "hello")[:6], frame.Text},
		{"text", "", client(fin|text, "hello"), frame.Text},
		{"binary, and a ping behind it", "", client(fin|bin, "hello") + client(fin|ping, ""), frame.Binary},
		{"the first of many", "", client(bin, "hello"), frame.Binary},
		{"a continuation of text", client(text, "he"), client(fin|more, "llo"), frame.Text},
		{"a continuation of binary", client(bin, "he"), client(more, ""), frame.Binary},
		{"half the header of a continuation", client(bin, "he"), "\x80", 0},
		{"a ping", "", client(fin|ping, "hello"), frame.Ping},
		{"half a ping", "", client(fin|ping, "hello")[:7], frame.Ping},
		{"a close, and text behind it", "", client(fin|closing, "") + client(fin|text, ""), frame.Close},
		{"a pong between fragments", client(text, "he"), client(fin|pong, ""), frame.Pong},
		{"more of a payload", client(fin|text, "hello")[:8], "\x89\x80", frame.Text},
		{"more of a fragment's payload", client(bin, "he") + client(more, "llo")[:7], "\x00", frame.Binary},
		{"nothing more of a payload", client(fin|text, "hello")[:8], "", 0},
		{"a message behind a message", client(text, "he") + client(fin|more, "llo"), client(fin|bin, ""), frame.Binary},
		{"a breach", "", server(fin|text, "hello"), 0},
		{"a reserved opcode", "", client(fin|3, ""), 0},
		{"a length that is not minimal", "", "\x82\xfe\x00\x00" + key, 0},
		{"a continuation of nothing", "", client(fin|more, ""), 0},
		{"a message within a message", client(text, "he"), client(fin|text, ""), 0},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			p := fromClient.parser(1 << 10)
			var s frame.Stream
			for in := []byte(r.before); len(in) > 0; {
				_, n, err := p.Message(&s, in)
				if err != nil || n == 0 {
					t.Fatalf("%d bytes consumed, error %v", n, err)
				}
				in = in[n:]
			}
			if got := p.Ahead(&s, []byte(r.in)); got != r.want {
				t.Errorf("%v (%d), want %v (%d)", got, got, r.want, r.want)
			}
		})
	}
}

// mustTake takes an event that needs all of in.
func mustTake(t *testing.T, p *frame.Parser, s *frame.Stream, in string) (ev frame.Event) {
	t.Helper()
	for rest := []byte(in); len(rest) > 0; {
		var n int
		var err error
		if ev, n, err = p.Message(s, rest); err != nil || n == 0 {
			t.Fatalf("%d of %d bytes are left, error %v", len(rest), len(in), err)
		}
		rest = rest[n:]
	}
	return ev
}

func TestAWholeMessageIsNotCopied(t *testing.T) {
	for _, first := range []byte{fin | text, fin | bin, fin | ping} {
		var s frame.Stream
		in := []byte(client(first, "Hello") + "more")
		ev, n, err := fromClient.parser(1<<10).Message(&s, in)
		if err != nil || n != len(in)-len("more") {
			t.Fatalf("consumed %d bytes, error %v", n, err)
		}
		if &ev.Payload[0] != &in[6] || string(ev.Payload) != "Hello" || !ev.Whole || s.Held() != 0 {
			t.Errorf("%v: the payload %q is not where it stood", ev.Op, ev.Payload)
		}
	}
}

// A handler has the message until the next call, and a control frame between
// its fragments leaves it alone.
func TestAJoinedMessageIsTheStreams(t *testing.T) {
	p := fromClient.parser(1 << 20)
	var s frame.Stream
	mustTake(t, p, &s, client(text, "Hel"))
	if ev := mustTake(t, p, &s, client(fin|ping, "ping")); ev.Op != frame.Ping || !s.Open() || s.Idle() {
		t.Fatalf("%v, open %v, idle %v", ev.Op, s.Open(), s.Idle())
	}
	in := []byte(client(fin|more, "lo"))
	ev, _, err := p.Message(&s, in)
	clear(in)
	if err != nil || string(ev.Payload) != "Hello" || ev.Op != frame.Text || !ev.Last || ev.Whole {
		t.Fatalf("%+v, error %v", ev, err)
	}
	if s.Open() || !s.Idle() {
		t.Errorf("behind the message: open %v, idle %v", s.Open(), s.Idle())
	}
	if ev := mustTake(t, p, &s, client(text, "a")+client(fin|more, "b")); string(ev.Payload) != "ab" {
		t.Errorf("the next message is %q", ev.Payload)
	}
}

func TestALargeMessageIsGivenBack(t *testing.T) {
	nexts := map[string]func(*frame.Parser, *frame.Stream){
		"Message": func(p *frame.Parser, s *frame.Stream) { p.Message(s, nil) },
		"Keep":    func(_ *frame.Parser, s *frame.Stream) { s.Keep(nil) },
		"Take":    func(_ *frame.Parser, s *frame.Stream) { s.Take(nil) },
		"Reset":   func(_ *frame.Parser, s *frame.Stream) { s.Reset() },
	}
	for _, size := range []int{10, 1000, 100_000} {
		for name, next := range nexts {
			p := fromClient.parser(1 << 20)
			var s frame.Stream
			half := strings.Repeat("x", size/2)
			ev := mustTake(t, p, &s, client(text, half)+client(fin|more, half))
			if string(ev.Payload) != half+half || s.Held() < size {
				t.Fatalf("%d bytes of %d, %d are held", len(ev.Payload), size, s.Held())
			}
			next(p, &s)
			if held := s.Held(); held > keptBytes || size <= 1000 && held == 0 {
				t.Errorf("%s behind a message of %d bytes holds %d", name, size, held)
			}
		}
	}
}

func TestEmptyFragmentsCostNoMemory(t *testing.T) {
	p := fromClient.parser(1 << 10)
	var s frame.Stream
	mustTake(t, p, &s, client(text, ""))
	empty := client(more, "")
	many := strings.Repeat(empty, 1000)
	for range 100 {
		mustTake(t, p, &s, many)
		mustTake(t, p, &s, empty)
	}
	if s.Held() != 0 || !s.Open() {
		t.Errorf("%d bytes are held, open %v", s.Held(), s.Open())
	}
	if ev := mustTake(t, p, &s, client(fin|more, "")); ev.Op != frame.Text || len(ev.Payload) != 0 || s.Held() != 0 {
		t.Errorf("%v %q, %d bytes are held", ev.Op, ev.Payload, s.Held())
	}
}

// A header that declares much is not believed before it arrives.
func TestWhatIsDeclaredCostsNoMemory(t *testing.T) {
	p := fromClient.parser(1 << 30)
	var s frame.Stream
	mustTake(t, p, &s, "\x82\xff\x00\x00\x00\x00\x20\x00\x00\x00"+key+"abc")
	if s.Held() > 64 {
		t.Errorf("%d bytes are held for three", s.Held())
	}
}

func TestKeepAndTake(t *testing.T) {
	var s frame.Stream
	buf := make([]byte, 1<<16)
	large := bytes.Repeat([]byte("large"), 10_000)
	for _, rest := range []string{"abc", "", string(large), "d", string(large[:keptBytes])} {
		from := []byte(rest)
		s.Keep([]byte("replaced"))
		s.Keep(from)
		clear(from) // it was copied
		if s.Rest() != len(rest) || s.Idle() != (rest == "") {
			t.Errorf("%d bytes are kept of %d, idle %v", s.Rest(), len(rest), s.Idle())
		}
		if n := s.Take(buf); string(buf[:n]) != rest {
			t.Errorf("took %d bytes of %d", n, len(rest))
		}
		if s.Rest() != 0 || !s.Idle() || s.Held() > keptBytes {
			t.Errorf("%d bytes are left, idle %v, %d are held", s.Rest(), s.Idle(), s.Held())
		}
	}
}

func TestTakeLeavesWhatABufferHasNoRoomFor(t *testing.T) {
	for _, size := range []int{10, 10_000} {
		rest := bytes.Repeat([]byte("0123456789"), size/10)
		var s frame.Stream
		s.Keep(rest)
		var got []byte
		for buf := make([]byte, 7); s.Rest() > 0; {
			got = append(got, buf[:s.Take(buf)]...)
		}
		if !bytes.Equal(got, rest) {
			t.Errorf("took %d bytes of %d, or others", len(got), size)
		}
	}
}

func TestAResetStreamIsAnotherConnections(t *testing.T) {
	p := fromClient.parser(1 << 20)
	for _, size := range []int{100, 100_000} {
		var s frame.Stream
		mustTake(t, p, &s, client(text, strings.Repeat("x", size)))
		s.Keep(bytes.Repeat([]byte("y"), size))
		s.Reset()
		if !s.Idle() || s.Open() || s.Rest() != 0 || s.Held() > 2*keptBytes || size == 100 && s.Held() == 0 {
			t.Errorf("%d bytes: idle %v, open %v, %d kept, %d held", size, s.Idle(), s.Open(), s.Rest(), s.Held())
		}
		if ev := mustTake(t, p, &s, client(fin|bin, "new")); ev.Op != frame.Binary || string(ev.Payload) != "new" {
			t.Errorf("the next connection's message is %v %q", ev.Op, ev.Payload)
		}
	}
}

func TestMessagesDoNotAllocate(t *testing.T) {
	p := fromClient.parser(1 << 10)
	rows := map[string]string{
		"whole":              client(fin|text, "hello") + client(fin|ping, "") + client(fin|bin, zeros(200)),
		"in small fragments": client(text, "he") + client(more, "") + client(fin|ping, "") + client(fin|more, "llo"),
	}
	for name, wire := range rows {
		buf := make([]byte, len(wire))
		kept := new(frame.Stream)
		messages := func(s *frame.Stream) {
			for in := buf[:copy(buf, wire)]; len(in) > 0; {
				p.Ahead(s, in)
				_, n, err := p.Message(s, in)
				if err != nil || n == 0 {
					t.Fatalf("%d bytes consumed, error %v", n, err)
				}
				in = in[n:]
			}
		}
		messages(kept) // gives it buffers
		if n := testing.AllocsPerRun(100, func() { messages(kept) }); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
		if name != "whole" {
			continue
		}
		if n := testing.AllocsPerRun(100, func() {
			var s frame.Stream // of a connection that has none
			messages(&s)
		}); n != 0 {
			t.Errorf("%s: %v allocations without a Stream that is kept", name, n)
		}
	}
}
