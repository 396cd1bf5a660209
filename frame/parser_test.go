package frame_test

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"iter"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
	"unsafe"

	"github.com/gobwas/ws"
	"github.com/seed-134acfd0/lull/frame"
)

// The first byte of a frame header, section 5.2.
const (
	fin  = 0x80
	rsv1 = 0x40
	rsv2 = 0x20
	rsv3 = 0x10

	more    = byte(frame.Continuation)
	text    = byte(frame.Text)
	bin     = byte(frame.Binary)
	closing = byte(frame.Close)
	ping    = byte(frame.Ping)
	pong    = byte(frame.Pong)
)

// key is the masking key of the examples in section 5.7.
const key = "\x37\xfa\x21\x3d"

// client spells a masked frame.
func client(first byte, payload string) string { return spell(first, true, payload) }

// server spells a frame without a mask.
func server(first byte, payload string) string { return spell(first, false, payload) }

func spell(first byte, masked bool, payload string) string {
	h := ws.Header{
		Fin: first&fin != 0, Rsv: first >> 4 & 7, OpCode: ws.OpCode(first & 15),
		Length: int64(len(payload)), Masked: masked,
	}
	body := []byte(payload)
	if masked {
		h.Mask = [4]byte([]byte(key))
		ws.Cipher(body, h.Mask, 0)
	}
	var b bytes.Buffer
	if err := ws.WriteHeader(&b, h); err != nil {
		panic(err)
	}
	b.Write(body)
	return b.String()
}

// sender is who wrote the bytes, true for a client.
type sender bool

const (
	fromClient sender = true
	fromServer sender = false
)

// parser makes the parser that the other side would use.
func (from sender) parser(max int64) *frame.Parser {
	if from == fromClient {
		return frame.NewServerParser(max)
	}
	return frame.NewClientParser(max)
}

// rfcCase is a stream of bytes and what a parser must make of it.
type rfcCase struct {
	name  string
	from  sender
	max   int64 // the message size limit, zero for one that does not matter
	wire  string
	want  []string     // messages and control frames, as show spells them
	fails *frame.Error // its code, and words of its text; nil for none
}

func (c rfcCase) parser() *frame.Parser {
	return c.from.parser(cmp.Or(c.max, 1<<20))
}

// foundByLibrary reports whether ws.CheckHeader finds the breach.
func (c rfcCase) foundByLibrary() bool {
	ours := []*frame.Error{frame.ErrNotMinimal, frame.ErrLength, frame.ErrCloseLength, frame.ErrCloseCode}
	return c.fails != nil && c.fails.Code == frame.ProtocolError && !slices.Contains(ours, c.fails)
}

func breach(words string) *frame.Error { return &frame.Error{Code: frame.ProtocolError, Text: words} }
func tooBig() *frame.Error             { return &frame.Error{Code: frame.MessageTooBig, Text: "limit"} }

// rfcCases are named by the clause of RFC 6455 that decides them.
var rfcCases = append([]rfcCase{
	{"5.1 masked frame from a client", fromClient, 0, client(fin|text, "hi"), []string{`text "hi"`}, nil},
	{"5.1 bare frame from a server", fromServer, 0, server(fin|text, "hi"), []string{`text "hi"`}, nil},
	{"5.1 bare frame from a client", fromClient, 0, server(fin|text, "hi"), nil, breach("must be masked")},
	{"5.1 masked frame from a server", fromServer, 0, client(fin|text, "hi"), nil, breach("must be not masked")},
	{"5.1 bare ping from a client", fromClient, 0, server(fin|ping, ""), nil, breach("must be masked")},
	{"5.1 masked ping from a server", fromServer, 0, client(fin|ping, ""), nil, breach("must be not masked")},
	{"5.1 bare frame after a masked one", fromClient, 0, client(fin|text, "hi") + server(fin|text, "hi"), []string{`text "hi"`}, breach("must be masked")},

	{"5.2 reserved bit 1", fromClient, 0, client(fin|rsv1|text, "hi"), nil, breach("rsv")},
	{"5.2 reserved bit 2", fromClient, 0, client(fin|rsv2|bin, "hi"), nil, breach("rsv")},
	{"5.2 reserved bit 3", fromServer, 0, server(fin|rsv3|text, "hi"), nil, breach("rsv")},
	{"5.2 all reserved bits on a ping", fromServer, 0, server(fin|rsv1|rsv2|rsv3|ping, ""), nil, breach("rsv")},
	{"5.2 reserved bit on a continuation", fromClient, 0, client(text, "h") + client(fin|rsv1|more, "i"), nil, breach("rsv")},

	{"5.2 length 125 in 7 bits", fromClient, 0, client(fin|bin, zeros(125)), []string{show(frame.Binary, zeros(125))}, nil},
	{"5.2 length 126 in 16 bits", fromClient, 0, client(fin|bin, zeros(126)), []string{show(frame.Binary, zeros(126))}, nil},
	{"5.2 length 65535 in 16 bits", fromServer, 0, server(fin|bin, zeros(65535)), []string{show(frame.Binary, zeros(65535))}, nil},
	{"5.2 length 65536 in 64 bits", fromServer, 0, server(fin|bin, zeros(65536)), []string{show(frame.Binary, zeros(65536))}, nil},
	{"5.2 length 0 in 16 bits", fromClient, 0, "\x82\xfe\x00\x00" + key, nil, frame.ErrNotMinimal},
	{"5.2 length 125 in 16 bits", fromServer, 0, "\x82\x7e\x00\x7d" + zeros(125), nil, frame.ErrNotMinimal},
	{"5.2 length 125 in 64 bits", fromServer, 0, "\x82\x7f\x00\x00\x00\x00\x00\x00\x00\x7d" + zeros(125), nil, frame.ErrNotMinimal},
	{"5.2 length 65535 in 64 bits", fromClient, 0, "\x82\xff\x00\x00\x00\x00\x00\x00\xff\xff" + key, nil, frame.ErrNotMinimal},
	{"5.2 ping with length 5 in 16 bits", fromServer, 0, "\x89\x7e\x00\x05hello", nil, frame.ErrNotMinimal},
	{"5.2 length with the highest bit", fromClient, 0, "\x82\xff\x80\x00\x00\x00\x00\x00\x00\x00" + key, nil, frame.ErrLength},
	{"5.2 length of nothing but ones", fromServer, 0, "\x82\x7f\xff\xff\xff\xff\xff\xff\xff\xff", nil, frame.ErrLength},

	{"5.4 message in three fragments", fromClient, 0, client(text, "a") + client(more, "b") + client(fin|more, "c"), []string{`text "abc"`}, nil},
	{"5.4 fragments without a payload", fromClient, 0, client(text, "") + client(more, "") + client(fin|more, ""), []string{`text ""`}, nil},
	{"5.4 last fragment without a payload", fromServer, 0, server(bin, "ab") + server(fin|more, ""), []string{`binary "ab"`}, nil},
	{"5.4 control frames between fragments", fromClient, 0,
		client(text, "a") + client(fin|ping, "1") + client(fin|pong, "2") + client(fin|more, "b") + client(fin|ping, "3"),
		[]string{`ping "1"`, `pong "2"`, `text "ab"`, `ping "3"`}, nil},
	{"5.4 close between fragments", fromClient, 0, client(text, "a") + client(fin|closing, ""), []string{`close ""`, `text "a"…`}, nil},
	{"5.4 continuation of nothing", fromClient, 0, client(fin|more, "a"), nil, breach("unexpected continuation")},
	{"5.4 continuation after a whole message", fromServer, 0, server(fin|text, "a") + server(fin|more, "b"), []string{`text "a"`}, breach("unexpected continuation")},
	{"5.4 continuation after the last fragment", fromServer, 0,
		server(text, "a") + server(fin|more, "b") + server(more, "c"), []string{`text "ab"`}, breach("unexpected continuation")},
	{"5.4 text inside a message", fromClient, 0, client(text, "a") + client(fin|text, "b"), nil, breach("non-continuation")},
	{"5.4 binary inside a message after a ping", fromClient, 0,
		client(text, "a") + client(fin|ping, "") + client(bin, "b"), []string{`ping ""`}, breach("non-continuation")},

	{"5.5 ping with 125 bytes", fromClient, 0, client(fin|ping, zeros(125)), []string{show(frame.Ping, zeros(125))}, nil},
	{"5.5 ping with 126 bytes", fromClient, 0, client(fin|ping, zeros(126)), nil, breach("payload limit")},
	{"5.5 close with 126 bytes", fromServer, 0, server(fin|closing, zeros(126)), nil, breach("payload limit")},
	{"5.5 pong with 2^62 bytes", fromServer, 0, "\x8a\x7f\x40\x00\x00\x00\x00\x00\x00\x00", nil, breach("payload limit")},
	{"5.5 fragmented close", fromClient, 0, client(closing, ""), nil, breach("not final")},
	{"5.5 fragmented ping", fromClient, 0, client(ping, "a"), nil, breach("not final")},
	{"5.5 fragmented pong", fromServer, 0, server(pong, "a"), nil, breach("not final")},

	{"5.5.1 close without a code", fromClient, 0, client(fin|closing, ""), []string{`close ""`}, nil},
	{"5.5.1 close with one byte", fromClient, 0, client(fin|closing, "\x03"), nil, frame.ErrCloseLength},
	{"5.5.1 close with a code", fromServer, 0, server(fin|closing, "\x03\xe8"), []string{`close "\x03\xe8"`}, nil},
	{"5.5.1 close with a reason", fromClient, 0, client(fin|closing, "\x03\xe9κ"), []string{`close "\x03\xe9κ"`}, nil},
	{"5.5.1 close reason not UTF-8", fromClient, 0, client(fin|closing, "\x03\xe9\xce"), nil, frame.ErrCloseReason},
	{"7.4 code 999", fromClient, 0, client(fin|closing, "\x03\xe7"), nil, frame.ErrCloseCode},
	{"7.4 code 1004", fromClient, 0, client(fin|closing, "\x03\xec"), nil, frame.ErrCloseCode},
	{"7.4 code 1005", fromServer, 0, server(fin|closing, "\x03\xed"), nil, frame.ErrCloseCode},
	{"7.4 code 1006 with a reason not UTF-8", fromServer, 0, server(fin|closing, "\x03\xee\xff"), nil, frame.ErrCloseCode},
	{"7.4 code 1015", fromServer, 0, server(fin|closing, "\x03\xf7"), nil, frame.ErrCloseCode},

	{"5.7 text", fromServer, 0, "\x81\x05Hello", []string{`text "Hello"`}, nil},
	{"5.7 masked text", fromClient, 0, "\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58", []string{`text "Hello"`}, nil},
	{"5.7 fragmented text", fromServer, 0, "\x01\x03Hel\x80\x02lo", []string{`text "Hello"`}, nil},
	{"5.7 ping", fromServer, 0, "\x89\x05Hello", []string{`ping "Hello"`}, nil},
	{"5.7 masked pong", fromClient, 0, "\x8a\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58", []string{`pong "Hello"`}, nil},
	{"5.7 256 bytes", fromServer, 0, "\x82\x7e\x01\x00" + zeros(256), []string{show(frame.Binary, zeros(256))}, nil},

	{"5.6 empty messages", fromClient, 0, client(fin|text, "") + client(fin|bin, ""), []string{`text ""`, `binary ""`}, nil},
	{"5.6 binary is not UTF-8", fromClient, 0, client(fin|bin, "\xff\xfe"), []string{`binary "\xff\xfe"`}, nil},
	{"5.6 half a frame is not an end", fromServer, 0, server(fin|text, "Hello")[:4], []string{`text "He"…`}, nil},
	{"8.1 a rune of four bytes", fromClient, 0, client(fin|text, "😀"), []string{`text "😀"`}, nil},
	{"8.1 a rune across fragments", fromClient, 0,
		client(text, "\xf0\x9f") + client(fin|ping, "\xff") + client(more, "") + client(fin|more, "\x98\x80"), []string{`ping "\xff"`, `text "😀"`}, nil},
	{"8.1 bad UTF-8", fromClient, 0, client(fin|text, "a\xff"), nil, frame.ErrUTF8},
	{"8.1 bad UTF-8 across fragments", fromClient, 0, client(text, "\xe2\x82") + client(fin|more, "a"), nil, frame.ErrUTF8},
	{"8.1 bad UTF-8 fails before the message ends", fromClient, 0, client(text, "\xff") + client(fin|ping, ""), nil, frame.ErrUTF8},
	{"8.1 text ends inside a rune", fromServer, 0, server(fin|text, "\xe2\x82"), nil, frame.ErrUTF8},
	{"8.1 text ends inside a rune, last fragment empty", fromServer, 0, server(text, "\xe2\x82") + server(fin|more, ""), nil, frame.ErrUTF8},
	{"8.1 the next message starts anew", fromClient, 0, client(fin|text, "é") + client(fin|text, "\xa9"), []string{`text "é"`}, frame.ErrUTF8},

	{"10.4 a frame of exactly the limit", fromClient, 5, client(fin|text, "12345"), []string{`text "12345"`}, nil},
	{"10.4 a frame beyond the limit", fromClient, 5, client(fin|text, "123456"), nil, tooBig()},
	{"10.4 fragments of exactly the limit", fromServer, 5, server(text, "123") + server(more, "") + server(fin|more, "45"), []string{`text "12345"`}, nil},
	{"10.4 fragments beyond the limit", fromServer, 5, server(text, "123") + server(more, "45") + server(fin|more, "6"), nil, tooBig()},
	{"10.4 the limit is one message's", fromServer, 5, server(fin|bin, "12345") + server(fin|bin, "67890"), []string{`binary "12345"`, `binary "67890"`}, nil},
	{"10.4 control frames do not count", fromClient, 5, client(text, "12345") + client(fin|ping, "123456") + client(fin|more, ""), []string{`ping "123456"`, `text "12345"`}, nil},
	{"10.4 2^62 bytes", fromClient, 0, "\x82\xff\x40\x00\x00\x00\x00\x00\x00\x00" + key, nil, tooBig()},
	{"10.4 a sum beyond 63 bits", fromServer, math.MaxInt64, server(bin, "1") + "\x80\x7f\x7f\xff\xff\xff\xff\xff\xff\xff", nil, tooBig()},
}, reservedOpcodes()...)

func reservedOpcodes() (rows []rfcCase) {
	for _, op := range []byte{3, 4, 5, 6, 7, 11, 12, 13, 14, 15} {
		rows = append(rows,
			rfcCase{fmt.Sprintf("5.2 reserved opcode %d", op), fromClient, 0, client(fin|op, ""), nil, breach("reserved op code")},
			rfcCase{fmt.Sprintf("5.2 reserved opcode %d inside a message", op), fromServer, 0, server(text, "a") + server(op, "b"), nil, breach("reserved op code")},
		)
	}
	return rows
}

func zeros(n int) string { return strings.Repeat("\x00", n) }

// show spells an event so that a failing test can be read.
func show[T string | []byte](op frame.Op, payload T) string {
	if len(payload) > 32 {
		return fmt.Sprintf("%v of %d bytes, crc %08x", op, len(payload), crc32.ChecksumIEEE([]byte(payload)))
	}
	return fmt.Sprintf("%v %q", op, payload)
}

// conn is one connection's use of a parser. It puts pieces of messages
// together and checks everything that Next promises on the way.
type conn struct {
	t      *testing.T
	parser *frame.Parser
	state  frame.State

	pending []byte // arrived, not consumed
	open    frame.Op
	message []byte // of the open message
	events  []string
	err     error
}

// arrive takes what one read of the connection brings.
func (c *conn) arrive(piece []byte) {
	if c.err != nil {
		return
	}
	arrived := slices.Concat(c.pending, piece)
	in := slices.Clone(arrived)
	for {
		ev, n, err := c.parser.Next(&c.state, in)
		if err != nil {
			c.fail(n, err)
			return
		}
		if n == 0 {
			break
		}
		c.take(ev)
		in = in[n:]
	}
	if len(in) > frame.MaxPending {
		c.t.Fatalf("%d bytes are left unconsumed, at most %d may be", len(in), frame.MaxPending)
	}
	if !bytes.HasSuffix(arrived, in) {
		c.t.Fatalf("unconsumed bytes were changed to % x", in)
	}
	c.pending = in
}

func (c *conn) fail(n int, err error) {
	if _, ok := errors.AsType[*frame.Error](err); !ok || n != 0 {
		c.t.Fatalf("error %v with %d bytes consumed, want a *frame.Error and none", err, n)
	}
	c.err = err
}

func (c *conn) take(ev frame.Event) {
	first := c.open == 0 || ev.Op.Control()
	if ev.Whole != (first && ev.Last) {
		c.t.Fatalf("%v: Whole is %v on a piece that is first: %v, last: %v", ev.Op, ev.Whole, first, ev.Last)
	}
	switch {
	case ev.Op.Control():
		c.events = append(c.events, show(ev.Op, ev.Payload))
	case !ev.Op.Data(), c.open != 0 && ev.Op != c.open:
		c.t.Fatalf("a piece of %v inside %v", ev.Op, c.open)
	default:
		c.open = ev.Op
		c.message = append(c.message, ev.Payload...)
		if ev.Last {
			c.events = append(c.events, show(c.open, c.message))
			c.open, c.message = 0, nil
		}
	}
	if c.state.Idle() != (c.open == 0) {
		c.t.Fatalf("Idle is %v while the open message is %v", c.state.Idle(), c.open)
	}
	if c.state.Idle() {
		c.state = frame.State{} // it need not be kept
	}
}

// read is what becomes of a connection that brings these pieces and ends. The
// beginning of a message counts, unless a breach follows: how much of it came
// out before then is a matter of the pieces.
func read(t *testing.T, p *frame.Parser, pieces iter.Seq[[]byte]) (events []string, err error) {
	t.Helper()
	c := conn{t: t, parser: p}
	for piece := range pieces {
		c.arrive(piece)
	}
	if c.open != 0 && c.err == nil {
		c.events = append(c.events, show(c.open, c.message)+"…")
	}
	return c.events, c.err
}

func atOnce(wire []byte) iter.Seq[[]byte] { return slices.Values([][]byte{wire}) }

func byteByByte(wire []byte) iter.Seq[[]byte] { return slices.Chunk(wire, 1) }

func cutAt(wire []byte, i int) iter.Seq[[]byte] {
	return slices.Values([][]byte{wire[:i], wire[i:]})
}

func TestParserFollowsTheRFC(t *testing.T) {
	for _, c := range rfcCases {
		t.Run(c.name, func(t *testing.T) {
			events, err := read(t, c.parser(), atOnce([]byte(c.wire)))
			if !slices.Equal(events, c.want) {
				t.Errorf("events %q, want %q", events, c.want)
			}
			got, failed := errors.AsType[*frame.Error](err)
			switch {
			case failed != (c.fails != nil):
				t.Errorf("error %v, want %v", err, c.fails)
			case failed && (got.Code != c.fails.Code || !strings.Contains(got.Text, c.fails.Text)):
				t.Errorf("error %v, want %v", err, c.fails)
			}
		})
	}
}

func TestParserTakesAnyPieces(t *testing.T) {
	for _, c := range rfcCases {
		t.Run(c.name, func(t *testing.T) {
			wire := []byte(c.wire)
			events, err := read(t, c.parser(), atOnce(wire))
			compare := func(how string, pieces iter.Seq[[]byte]) {
				gotEvents, gotErr := read(t, c.parser(), pieces)
				if !slices.Equal(gotEvents, events) || gotErr != err {
					t.Errorf("%s: %q, %v; at once: %q, %v", how, gotEvents, gotErr, events, err)
				}
			}
			compare("byte by byte", byteByByte(wire))
			for i := range min(len(wire), 300) {
				compare(fmt.Sprintf("cut at %d", i), cutAt(wire, i))
			}
		})
	}
}

func FuzzParserChunking(f *testing.F) {
	for _, c := range rfcCases {
		if len(c.wire) < 1<<10 {
			f.Add([]byte(c.wire), []byte{1, 0, 2, 7}, bool(c.from))
		}
	}
	f.Fuzz(func(t *testing.T, wire, cuts []byte, masked bool) {
		p := sender(masked).parser(1 << 10)
		events, err := read(t, p, atOnce(wire))
		gotEvents, gotErr := read(t, p, pattern(wire, cuts))
		if !slices.Equal(gotEvents, events) || gotErr != err {
			t.Errorf("in pieces: %q, %v; at once: %q, %v", gotEvents, gotErr, events, err)
		}
	})
}

// pattern cuts wire into pieces of the lengths in cuts, over and over. A
// length of zero is a read that brought nothing.
func pattern(wire, cuts []byte) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		for len(wire) > 0 {
			left := len(wire)
			for _, n := range cuts {
				n := min(int(n), len(wire))
				if !yield(wire[:n]) {
					return
				}
				wire = wire[n:]
			}
			if len(wire) == left { // no cut brings anything
				yield(wire)
				return
			}
		}
	}
}

func TestOneParserServesManyConnections(t *testing.T) {
	p := fromClient.parser(1 << 20)
	var conns []*conn
	var wires []string
	for _, payload := range []string{"κόσμε", "a longer message than the others", "😀"} {
		conns = append(conns, &conn{t: t, parser: p})
		wires = append(wires, client(text, payload)+client(fin|more, payload))
	}
	for i := range len(wires[1]) { // the longest
		for j, c := range conns {
			if i < len(wires[j]) {
				c.arrive([]byte{wires[j][i]})
			}
		}
	}
	for j, c := range conns {
		alone, _ := read(t, p, atOnce([]byte(wires[j])))
		if c.err != nil || !slices.Equal(c.events, alone) {
			t.Errorf("connection %d: %q, %v; alone: %q", j, c.events, c.err, alone)
		}
	}
}

func TestCloseCodesThatMayBeReceived(t *testing.T) {
	p := fromServer.parser(0)
	for code := range frame.Code(5101) {
		payload := binary.BigEndian.AppendUint16(nil, uint16(code))
		wire := []byte(server(fin|closing, string(payload)+"why"))
		ev, _, err := p.Next(new(frame.State), wire)
		if !sendable(code) {
			if err != frame.ErrCloseCode {
				t.Errorf("code %d: error %v", code, err)
			}
			continue
		}
		got, reason := frame.ParseClose(ev.Payload)
		if err != nil || got != code || string(reason) != "why" {
			t.Errorf("code %d: got %d %q, error %v", code, got, reason, err)
		}
	}
}

func TestParseCloseWithoutACode(t *testing.T) {
	for _, payload := range []string{"", "\x03"} {
		if code, reason := frame.ParseClose([]byte(payload)); code != frame.NoStatus || reason != nil {
			t.Errorf("%q: got %d %q", payload, code, reason)
		}
	}
}

func TestTextFailsAtItsFirstBadByte(t *testing.T) {
	rows := []struct{ name, text string }{
		{"stray continuation", "a\x80b"},
		{"two stray continuations after a rune", "é\xa9\xa9"},
		{"overlong, two bytes", "a\xc0\xaf"},
		{"overlong, two bytes, highest", "\xc1\xbf"},
		{"overlong, three bytes", "a\xe0\x80\xaf"},
		{"overlong, three bytes, highest", "\xe0\x9f\xbf"},
		{"overlong, four bytes", "\xf0\x80\x80\xaf"},
		{"overlong, four bytes, highest", "\xf0\x8f\xbf\xbf"},
		{"lowest surrogate", "κ\xed\xa0\x80"},
		{"highest surrogate", "\xed\xbf\xbf"},
		{"surrogate pair", "\xed\xa1\x8c\xed\xbe\xb4"},
		{"just beyond U+10FFFF", "😀\xf4\x90\x80\x80"},
		{"far beyond U+10FFFF", "\xf5\x80\x80\x80"},
		{"five bytes", "\xf8\x88\x80\x80\x80"},
		{"six bytes", "\xfc\x84\x80\x80\x80\x80"},
		{"never in UTF-8", "ab\xfe\xff"},
		{"cut after one byte of two, then ASCII", "\xcea"},
		{"cut after two bytes of three, then ASCII", "\xe2\x82a"},
		{"cut after three bytes of four, then ASCII", "\xf0\x9f\x98a"},
		{"cut after two bytes of four, then a rune", "\xf0\x9fé"},
		{"cut at the end", "ab\xf0\x9f\x98"},
		{"nothing bad", "aé€😀\u0000\u07ff\uffff\U0010ffff"},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) { failsAtItsFirstBadByte(t, r.text) })
	}

	// Every row of four bytes from the edges of the ranges in RFC 3629
	// section 4.
	edges := []byte("a\x80\x8f\x90\x9f\xa0\xbf\xc1\xc2\xe0\xe1\xed\xf0\xf4\xf5")
	for _, a := range edges {
		for _, b := range edges {
			for _, c := range edges {
				for _, d := range edges {
					failsAtItsFirstBadByte(t, string([]byte{a, b, c, d}))
				}
			}
		}
	}
}

// failsAtItsFirstBadByte gives a text byte by byte, in one frame and in a
// fragment for each byte.
func failsAtItsFirstBadByte(t *testing.T, s string) {
	t.Helper()
	want := firstBadByte(s)
	p := fromServer.parser(1 << 10)

	whole := server(fin|text, s)
	pieces := []string{whole[:len(whole)-len(s)+1]} // the header and a byte
	for i := 1; i < len(s); i++ {
		pieces = append(pieces, s[i:i+1])
	}
	if got := failsAt(p, pieces); got != want {
		t.Errorf("% x in one frame fails at %d, want %d", s, got, want)
	}

	for i := range pieces {
		first := more
		if i == 0 {
			first = text
		}
		if i == len(s)-1 {
			first |= fin
		}
		pieces[i] = server(first, s[i:i+1])
	}
	if got := failsAt(p, pieces); got != want {
		t.Errorf("% x in fragments fails at %d, want %d", s, got, want)
	}
}

// failsAt returns the number of the piece with which the text is refused, -1
// for none. Each piece is consumed whole, for none ends inside a header.
func failsAt(p *frame.Parser, pieces []string) int {
	var s frame.State
	for i, piece := range pieces {
		if _, n, err := p.Next(&s, []byte(piece)); err == frame.ErrUTF8 {
			return i
		} else if err != nil || n != len(piece) {
			panic(fmt.Sprintf("piece %q: %d bytes consumed, error %v", piece, n, err))
		}
	}
	return -1
}

// firstBadByte finds where a text stops being UTF-8: at the first byte behind
// which no bytes could make it valid, or at its last byte when they are
// missing; -1 when it is valid.
func firstBadByte(s string) int {
	for i := range len(s) {
		if !viable([]byte(s[:i+1])) {
			return i
		}
	}
	if !utf8.ValidString(s) {
		return len(s) - 1
	}
	return -1
}

// viable reports whether some continuation bytes make a beginning valid. It
// is enough to try the lowest and the highest: every lead byte that restricts
// the byte behind it lets one of them stand there.
func viable(beginning []byte) bool {
	for _, tail := range tails {
		if utf8.Valid(append(slices.Clip(beginning), tail...)) {
			return true
		}
	}
	return false
}

var tails = func() []string {
	all := []string{""}
	for i := 0; len(all[i]) < 3; i++ {
		all = append(all, all[i]+"\x80", all[i]+"\xbf")
	}
	return all
}()

func TestPayloadIsNotCopied(t *testing.T) {
	for _, first := range []byte{fin | text, fin | bin, fin | ping} {
		in := []byte(client(first, "Hello") + "more")
		ev, n, err := fromClient.parser(1<<10).Next(new(frame.State), in)
		if err != nil || n != len(in)-len("more") {
			t.Fatalf("consumed %d bytes, error %v", n, err)
		}
		if &ev.Payload[0] != &in[6] || string(ev.Payload) != "Hello" {
			t.Errorf("%v: the payload %q is not where it stood", ev.Op, ev.Payload)
		}
	}
}

func TestNextDoesNotAllocate(t *testing.T) {
	buf := make([]byte, 1<<17)
	for _, c := range rfcCases {
		p := c.parser()
		for _, step := range []int{len(buf), 1} {
			allocs := testing.AllocsPerRun(10, func() {
				var s frame.State
				in := buf[:copy(buf, c.wire)] // anew, for Next unmasked it
				for from, to := 0, 0; to < len(in); {
					to = min(to+step, len(in))
					for {
						_, n, err := p.Next(&s, in[from:to])
						if err != nil {
							return
						}
						if n == 0 {
							break
						}
						from += n
					}
				}
			})
			// The library's check of a header boxes what it finds; that
			// connection is over.
			if allocs > 1 || allocs > 0 && !c.foundByLibrary() {
				t.Errorf("%s, %d bytes at a time: %v allocations", c.name, step, allocs)
			}
		}
	}
}

// model reads a whole stream the slow and obvious way, with the library's own
// reader, and stops at the first breach; zero stands for none. It shares with
// lull the rules that the library lacks: minimal lengths, the size limit, text
// that fails as soon as nothing could mend it, the registry's close codes.
func model(wire []byte, from sender, max int) (events []string, breach frame.Code) {
	side := ws.StateClientSide
	if from == fromClient {
		side = ws.StateServerSide
	}
	r := bytes.NewReader(wire)
	var open frame.Op
	var message []byte
	ended := func() ([]string, frame.Code) {
		if open != 0 {
			events = append(events, show(open, message)+"…")
		}
		return events, 0
	}
	for {
		before := r.Len()
		h, err := ws.ReadHeader(r)
		switch {
		case err == io.EOF, err == io.ErrUnexpectedEOF:
			return ended()
		case err != nil, before-r.Len() != ws.HeaderSize(h):
			return events, frame.ProtocolError
		}
		state := side
		if open != 0 {
			state = state.Set(ws.StateFragmented)
		}
		if ws.CheckHeader(h, state) != nil {
			return events, frame.ProtocolError
		}
		control := h.OpCode.IsControl()
		if !control && h.Length > int64(max-len(message)) {
			return events, frame.MessageTooBig
		}

		payload := make([]byte, h.Length)
		n, err := io.ReadFull(r, payload)
		if h.Masked {
			ws.Cipher(payload, h.Mask, 0)
		}
		if control {
			if err != nil {
				return ended()
			}
			if h.OpCode == ws.OpClose {
				if code := closeBreach(payload); code != 0 {
					return events, code
				}
			}
			events = append(events, show(frame.Op(h.OpCode), payload))
			continue
		}

		if open == 0 {
			open = frame.Op(h.OpCode)
		}
		message = append(message, payload[:n]...)
		last := h.Fin && err == nil
		if open == frame.Text && (!viable(message) || last && !utf8.Valid(message)) {
			return events, frame.InvalidPayload
		}
		if err != nil {
			return ended()
		}
		if last {
			events = append(events, show(open, message))
			open, message = 0, nil
		}
	}
}

func closeBreach(payload []byte) frame.Code {
	switch {
	case len(payload) == 0:
		return 0
	case len(payload) == 1, !sendable(frame.Code(binary.BigEndian.Uint16(payload))):
		return frame.ProtocolError
	case !utf8.Valid(payload[2:]):
		return frame.InvalidPayload
	}
	return 0
}

const modelMax = 300 // bytes, so that messages reach it

// agrees compares the parser with the model.
func agrees(t *testing.T, wire []byte, from sender, pieces iter.Seq[[]byte]) {
	t.Helper()
	want, breach := model(wire, from, modelMax)
	got, err := read(t, from.parser(modelMax), pieces)
	var code frame.Code
	if e, ok := errors.AsType[*frame.Error](err); ok {
		code = e.Code
	}
	if !slices.Equal(got, want) || code != breach {
		t.Errorf("% x\nparser: %q, code %d\n model: %q, code %d", wire, got, code, want, breach)
	}
}

func FuzzParserAgainstModel(f *testing.F) {
	for _, c := range rfcCases {
		if len(c.wire) < 1<<10 {
			f.Add([]byte(c.wire), bool(c.from))
		}
	}
	f.Fuzz(func(t *testing.T, wire []byte, masked bool) {
		agrees(t, wire, sender(masked), atOnce(wire))
	})
}

// TestParserAgreesWithModel reads conversations that are mostly well-formed,
// which a fuzzer seldom finds, in random pieces.
func TestParserAgreesWithModel(t *testing.T) {
	rng := rand.New(rand.NewPCG(6455, 3629))
	for range 20_000 {
		from := sender(rng.IntN(2) == 0)
		wire := conversation(rng, from)
		cuts := make([]byte, 1+rng.IntN(8))
		for i := range cuts {
			cuts[i] = byte(rng.IntN(40))
		}
		agrees(t, wire, from, pattern(wire, cuts))
	}
}

func conversation(rng *rand.Rand, from sender) (wire []byte) {
	firsts := []byte{text, bin, fin | text, fin | bin, more, more, fin | more, fin | ping, fin | pong, fin | closing}
	payloads := []string{"", "a", "κόσμε", "a😀", "\xf0\x9f", "\x98\x80", "\x03\xe8", "\x03\xf6bye", "\xff", zeros(120), zeros(200)}
	inside := false
	for range 1 + rng.IntN(8) {
		first := firsts[rng.IntN(len(firsts))]
		// Most frames fit where they stand.
		if op := first & 15; op < closing && (op == more) != inside && rng.IntN(20) > 0 {
			first = first&fin | text
			if inside {
				first = first & fin
			}
		}
		if first&15 < closing {
			inside = first&fin == 0
		}
		wire = append(wire, spell(first, bool(from), payloads[rng.IntN(len(payloads))])...)
	}
	if rng.IntN(10) == 0 {
		wire[rng.IntN(len(wire))] ^= 1 << rng.IntN(8)
	}
	return wire[:len(wire)-rng.IntN(3)*rng.IntN(2)]
}

func TestStateIsSmall(t *testing.T) {
	if size := unsafe.Sizeof(frame.State{}); size > 40 {
		t.Errorf("State has %d bytes, its comment promises 40", size)
	}
}
