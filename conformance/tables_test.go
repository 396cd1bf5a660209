package conformance

import (
	"fmt"
	"math/rand/v2"
	"strings"
)

// numbered makes a talk for each size or the like, and numbers them.
func numbered[T any](prefix string, of func(T) talk, rows ...T) (talks []talk) {
	for i, row := range rows {
		t := of(row)
		t.id = fmt.Sprintf("%s.%d", prefix, i+1)
		talks = append(talks, t)
	}
	return talks
}

func join(lists ...[]talk) (all []talk) {
	for _, l := range lists {
		all = append(all, l...)
	}
	return all
}

// stars is a text of so many bytes.
func stars(n int) string { return strings.Repeat("*", n) }

// fe is so many bytes that are no UTF-8.
func fe(n int) string { return strings.Repeat("\xfe", n) }

func sized(make func(int) frame, what string) func(int) talk {
	return func(n int) talk {
		return talk{what: fmt.Sprintf("%s of %d bytes", what, n), rfc: "6455 5.2", frames: []frame{make(n)}}
	}
}

func textOf(n int) frame   { return text(stars(n)) }
func binaryOf(n int) frame { return data(fe(n)) }

// wide is a frame whose length takes more bytes than it needs.
func wide(f frame, bytes int) frame { f.wide = bytes; return f.breach() }

// declares is a frame whose header declares a length, whatever its payload.
func declares(f frame, size uint64) frame { f.declared, f.wide = size, 8; return f.breach() }

func unmasked(f frame) frame { f.unmasked = true; return f.breach() }

var framing = join(
	numbered("1.1", sized(textOf, "text"), 0, 125, 126, 127, 128, 65535, 65536),
	[]talk{{id: "1.1.8", what: "text of 65536 bytes, in pieces of 997 bytes", rfc: "6455 5.2", frames: []frame{textOf(65536)}, chop: 997}},
	numbered("1.2", sized(binaryOf, "binary"), 0, 125, 126, 127, 128, 65535, 65536),
	[]talk{
		{id: "1.2.8", what: "binary of 65536 bytes, in pieces of 997 bytes", rfc: "6455 5.2", frames: []frame{binaryOf(65536)}, chop: 997},
		{id: "1.3.1", what: "a frame that is not masked", rfc: "6455 5.1", frames: []frame{unmasked(text("hello"))}, code: 1002},
		{id: "1.3.2", what: "an empty frame that is not masked", rfc: "6455 5.1", frames: []frame{unmasked(text(""))}, code: 1002},
		{id: "1.3.3", what: "a Ping that is not masked", rfc: "6455 5.1", frames: []frame{unmasked(ping("hello"))}, code: 1002},
		{id: "1.3.4", what: "a Close frame that is not masked", rfc: "6455 5.1", frames: []frame{unmasked(closing(1000, ""))}, code: 1002},
		{id: "1.3.5", what: "a fragment that is not masked behind one that is", rfc: "6455 5.1", frames: []frame{text("a").open(), unmasked(rest("b"))}, code: 1002},
		{id: "1.4.1", what: "125 bytes, with the length in 2 more bytes", rfc: "6455 5.2", frames: []frame{wide(textOf(125), 2)}, code: 1002},
		{id: "1.4.2", what: "no bytes, with the length in 2 more bytes", rfc: "6455 5.2", frames: []frame{wide(textOf(0), 2)}, code: 1002},
		{id: "1.4.3", what: "125 bytes, with the length in 8 more bytes", rfc: "6455 5.2", frames: []frame{wide(textOf(125), 8)}, code: 1002},
		{id: "1.4.4", what: "126 bytes, with the length in 8 more bytes", rfc: "6455 5.2", frames: []frame{wide(textOf(126), 8)}, code: 1002},
		{id: "1.4.5", what: "65535 bytes, with the length in 8 more bytes", rfc: "6455 5.2", frames: []frame{wide(textOf(65535), 8)}, code: 1002},
		{id: "1.4.6", what: "a length of 2^63", rfc: "6455 5.2", frames: []frame{declares(text("a"), 1<<63)}, code: 1002},
		{id: "1.4.7", what: "a length of 2^64 - 1", rfc: "6455 5.2", frames: []frame{declares(text("a"), 1<<64-1)}, code: 1002},
		{id: "1.4.8", what: "a length of 2^63 for a fragment", rfc: "6455 5.2", frames: []frame{text("a").open(), declares(rest("a"), 1<<63)}, code: 1002},
		{id: "1.5.1", what: "a hundred messages at once", rfc: "6455 5.2", frames: many(100, func(i int) frame { return text(fmt.Sprint("message ", i)) })},
		{id: "1.5.2", what: "text and binary in turn", rfc: "6455 5.6", frames: many(20, func(i int) frame {
			return frame{op: byte(opText + i%2), payload: fmt.Append(nil, i)}
		})},
		{id: "1.6.1", what: "the end within a frame's header", rfc: "6455 7.1.5", frames: []frame{text("a"), text("hello")}, cut: 9, hangs: true},
		{id: "1.6.2", what: "the end within a masking key", rfc: "6455 7.1.5", frames: []frame{text("a"), text("hello")}, cut: 6, hangs: true},
		{id: "1.6.3", what: "the end within a payload", rfc: "6455 7.1.5", frames: []frame{text("a"), text("hello")}, cut: 2, hangs: true},
	},
)

func many(n int, of func(int) frame) (frames []frame) {
	for i := range n {
		frames = append(frames, of(i))
	}
	return frames
}

var tenPings = many(10, func(i int) frame { return ping(fmt.Sprint("payload-", i)) })

var pings = []talk{
	{id: "2.1", what: "a Ping without payload", rfc: "6455 5.5.2", frames: []frame{ping("")}},
	{id: "2.2", what: "a Ping with text", rfc: "6455 5.5.2", frames: []frame{ping("Hello, world!")}},
	{id: "2.3", what: "a Ping with bytes that are no UTF-8", rfc: "6455 5.5.2", frames: []frame{ping("\x00\xff\xfe\xfd\xfc\xfb\x00\xff")}},
	{id: "2.4", what: "a Ping of 125 bytes", rfc: "6455 5.5", frames: []frame{ping(fe(125))}},
	{id: "2.5", what: "a Ping of 126 bytes", rfc: "6455 5.5", frames: []frame{ping(fe(126)).breach()}, code: 1002},
	{id: "2.6", what: "a Ping of 125 bytes, byte by byte", rfc: "6455 5.5", frames: []frame{ping(fe(125))}, chop: 1},
	{id: "2.7", what: "a Pong that nobody asked for, without payload", rfc: "6455 5.5.3", frames: []frame{pong("")}},
	{id: "2.8", what: "a Pong that nobody asked for", rfc: "6455 5.5.3", frames: []frame{pong("unsolicited pong payload")}},
	{id: "2.9", what: "a Pong that nobody asked for, and a Ping", rfc: "6455 5.5.3", frames: []frame{pong("unsolicited pong payload"), ping("ping payload")}},
	{id: "2.10", what: "10 Pings", rfc: "6455 5.5.3", frames: tenPings},
	{id: "2.11", what: "10 Pings, byte by byte", rfc: "6455 5.5.3", frames: tenPings, chop: 1},
	{id: "2.12", what: "a Pong of 126 bytes", rfc: "6455 5.5", frames: []frame{pong(fe(126)).breach()}, code: 1002},
	{id: "2.13", what: "a Ping that declares 65536 bytes", rfc: "6455 5.5", frames: []frame{declares(ping("a"), 65536)}, code: 1002},
	{id: "2.14", what: "200 Pings, and a message behind each", rfc: "6455 5.5.3", frames: many(400, func(i int) frame {
		if i%2 == 0 {
			return ping(fmt.Sprint(i))
		}
		return text(fmt.Sprint(i))
	})},
	{id: "2.15", what: "a Ping before a bad frame", rfc: "6455 5.5.3", frames: []frame{ping("a"), opcode(3, "")}, code: 1002},
	{id: "2.16", what: "a Ping before the Close frame", rfc: "6455 5.5.2", frames: []frame{ping("a"), closing(1000, "")}},
}

const hello = "Hello, world!"

var reserved = []talk{
	{id: "3.1", what: "text with RSV3", rfc: "6455 5.2", offer: none, frames: []frame{text(hello).reserved(1).breach()}, code: 1002},
	{id: "3.2", what: "text, text with RSV2, a Ping", rfc: "6455 5.2", offer: none, frames: []frame{text(hello), text(hello).reserved(2).breach(), ping("")}, code: 1002},
	{id: "3.3", what: "text, text with RSV2 and 3, a Ping, frame by frame", rfc: "6455 5.2", offer: none, chop: perFrame, frames: []frame{text(hello), text(hello).reserved(3).breach(), ping("")}, code: 1002},
	{id: "3.4", what: "text, text with RSV1, a Ping, byte by byte", rfc: "6455 5.2", offer: none, chop: 1, frames: []frame{text(hello), text(hello).reserved(4).breach(), ping("")}, code: 1002},
	{id: "3.5", what: "binary with RSV1 and 3", rfc: "6455 5.2", offer: none, frames: []frame{data(fe(8)).reserved(5).breach()}, code: 1002},
	{id: "3.6", what: "a Ping with RSV1 and 2", rfc: "6455 5.2", offer: none, frames: []frame{ping(hello).reserved(6).breach()}, code: 1002},
	{id: "3.7", what: "a Close frame with RSV1, 2 and 3", rfc: "6455 5.2", offer: none, frames: []frame{closing(1000, "").reserved(7).breach()}, code: 1002},
	{id: "3.8", what: "a fragment with RSV3 behind one without", rfc: "6455 5.2", offer: none, frames: []frame{text("a").open(), rest("b").reserved(1).breach()}, code: 1002},
	{id: "3.9", what: "a Pong with RSV1", rfc: "6455 5.2", offer: none, frames: []frame{pong(hello).reserved(4).breach()}, code: 1002},
	{id: "3.10", what: "permessage-deflate, and a Ping with RSV1", rfc: "7692 6.1", only: true, frames: []frame{ping(hello).reserved(4).breach()}, code: 1002},
	{id: "3.11", what: "permessage-deflate, and a Pong with RSV1", rfc: "7692 6.1", only: true, frames: []frame{pong(hello).reserved(4).breach()}, code: 1002},
	{id: "3.12", what: "permessage-deflate, and a Close frame with RSV1", rfc: "7692 6.1", only: true, frames: []frame{closing(1000, "").reserved(4).breach()}, code: 1002},
	{id: "3.13", what: "permessage-deflate, and a later fragment with RSV1", rfc: "7692 6.1", only: true, frames: []frame{text("a").open(), rest("b").reserved(4).breach()}, code: 1002},
	{id: "3.14", what: "permessage-deflate, and text with RSV2", rfc: "7692 6.1", only: true, frames: []frame{text(hello).reserved(2).breach()}, code: 1002},
	{id: "3.15", what: "permessage-deflate, and text with RSV1 and 3", rfc: "7692 6.1", only: true, frames: []frame{text(hello).reserved(5).breach()}, code: 1002},
	{id: "3.16", what: "permessage-deflate, and a later fragment with RSV1 in a compressed message", rfc: "7692 6.1", only: true, frames: func() []frame {
		f := fragments(deflated(text(hello)), 8)
		f[1] = f[1].reserved(4).breach()
		return f
	}(), code: 1002},
}

// badOpcodes are the cases of section 4 for five opcodes.
func badOpcodes(prefix string, op byte) []talk {
	return numbered(prefix, func(frames []frame) talk {
		n := frames[0].op
		what := fmt.Sprintf("opcode %d", n)
		if len(frames) > 1 {
			what = fmt.Sprintf("text, opcode %d, a Ping", frames[1].op)
		}
		return talk{what: what, rfc: "6455 5.2", frames: frames, code: 1002}
	},
		[]frame{opcode(op, "")},
		[]frame{opcode(op+1, "reserved opcode payload")},
		[]frame{text(hello), opcode(op+2, ""), ping("")},
		[]frame{text(hello), opcode(op+3, hello), ping("")},
		[]frame{text(hello), opcode(op+4, hello), ping("")},
	)
}

var opcodes = join(badOpcodes("4.1", 3), badOpcodes("4.2", 11), []talk{
	{id: "4.3.1", what: "opcode 3 between two fragments", rfc: "6455 5.2", frames: []frame{text("a").open(), opcode(3, ""), rest("b")}, code: 1002},
	{id: "4.3.2", what: "opcode 11 between two fragments", rfc: "6455 5.2", frames: []frame{text("a").open(), opcode(11, ""), rest("b")}, code: 1002},
	{id: "4.3.3", what: "opcode 15 that is not final", rfc: "6455 5.2", frames: []frame{opcode(15, "").open()}, code: 1002},
})

// Fragments with Pings between them.
var (
	two       = []frame{text("fragment1").open(), rest("fragment2")}
	pinged    = []frame{text("fragment1").open(), ping("ping payload"), rest("fragment2")}
	fiveParts = []frame{
		text("fragment1").open(), rest("fragment2").open(), ping("pongme 1!"),
		rest("fragment3").open(), rest("fragment4").open(), ping("pongme 2!"), rest("fragment5"),
	}
	stray      = []frame{rest("non-continuation payload").breach(), text(hello)}
	strayOpen  = []frame{rest("non-continuation payload").open().breach(), text(hello)}
	strayTwice = func(open bool) (frames []frame) {
		for range 2 {
			s := rest("fragment1").breach()
			s.more = open
			frames = append(frames, s, text("fragment2").open(), rest("fragment3"))
		}
		return frames
	}
)

var fragmentation = []talk{
	{id: "5.1", what: "a Ping in two fragments", rfc: "6455 5.5", frames: []frame{ping("fragment1").open().breach(), rest("fragment2")}, code: 1002},
	{id: "5.2", what: "a Pong in two fragments", rfc: "6455 5.5", frames: []frame{pong("fragment1").open().breach(), rest("fragment2")}, code: 1002},
	{id: "5.3", what: "text in two fragments", rfc: "6455 5.4", frames: two},
	{id: "5.4", what: "text in two fragments, frame by frame", rfc: "6455 5.4", frames: two, chop: perFrame},
	{id: "5.5", what: "text in two fragments, byte by byte", rfc: "6455 5.4", frames: two, chop: 1},
	{id: "5.6", what: "a Ping between two fragments", rfc: "6455 5.4", frames: pinged},
	{id: "5.7", what: "a Ping between two fragments, frame by frame", rfc: "6455 5.4", frames: pinged, chop: perFrame},
	{id: "5.8", what: "a Ping between two fragments, byte by byte", rfc: "6455 5.4", frames: pinged, chop: 1},
	{id: "5.9", what: "a continuation of nothing, then text", rfc: "6455 5.4", frames: stray, code: 1002},
	{id: "5.10", what: "a continuation of nothing, then text, frame by frame", rfc: "6455 5.4", frames: stray, chop: perFrame, code: 1002},
	{id: "5.11", what: "a continuation of nothing, then text, byte by byte", rfc: "6455 5.4", frames: stray, chop: 1, code: 1002},
	{id: "5.12", what: "a continuation of nothing that is not final, then text", rfc: "6455 5.4", frames: strayOpen, code: 1002},
	{id: "5.13", what: "a continuation of nothing that is not final, then text, frame by frame", rfc: "6455 5.4", frames: strayOpen, chop: perFrame, code: 1002},
	{id: "5.14", what: "a continuation of nothing that is not final, then text, byte by byte", rfc: "6455 5.4", frames: strayOpen, chop: 1, code: 1002},
	{id: "5.15", what: "text in two fragments, a continuation of nothing, text", rfc: "6455 5.4", frames: append(two[:2:2], rest("fragment3").open().breach(), text("fragment4")), code: 1002},
	{id: "5.16", what: "twice: a continuation of nothing that is not final, text in two fragments", rfc: "6455 5.4", frames: strayTwice(true), code: 1002},
	{id: "5.17", what: "twice: a continuation of nothing, text in two fragments", rfc: "6455 5.4", frames: strayTwice(false), code: 1002},
	{id: "5.18", what: "text behind text that is not final", rfc: "6455 5.4", frames: []frame{text("fragment1").open(), text("fragment2").breach()}, code: 1002},
	{id: "5.19", what: "five fragments and two Pings", rfc: "6455 5.4", frames: fiveParts},
	{id: "5.20", what: "five fragments and two Pings, frame by frame", rfc: "6455 5.4", frames: fiveParts, chop: perFrame},
	{id: "5.21", what: "binary behind text that is not final", rfc: "6455 5.4", frames: []frame{text("fragment1").open(), data("fragment2").breach()}, code: 1002},
	{id: "5.22", what: "a Close frame that is not final", rfc: "6455 5.5", frames: []frame{closing(1000, "").open().breach()}, code: 1002},
	{id: "5.23", what: "fragments without payload", rfc: "6455 5.4", frames: []frame{text("").open(), rest("").open(), rest("")}},
	{id: "5.24", what: "fragments without payload between others", rfc: "6455 5.4", frames: []frame{data("").open(), rest("a").open(), rest("").open(), rest("b").open(), rest("")}},
	{id: "5.25", what: "1,000 fragments of a byte", rfc: "6455 5.4", frames: fragments(textOf(1000), 1)},
	{id: "5.26", what: "100 fragments, and a Ping and a Pong behind each", rfc: "6455 5.4", frames: many(301, func(i int) frame {
		switch {
		case i == 0:
			return text("0").open()
		case i == 300:
			return rest("300")
		case i%3 == 1:
			return ping(fmt.Sprint(i))
		case i%3 == 2:
			return pong(fmt.Sprint(i))
		}
		return rest(fmt.Sprint(i)).open()
	})},
	{id: "5.27", what: "the end between two fragments", rfc: "6455 7.1.5", frames: []frame{text("a"), text("fragment1").open()}, hangs: true},
}

// codes are the close codes that a client may send, and those that it may not
// (RFC 6455 section 7.4).
var (
	codes    = []uint16{1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999}
	badCodes = []uint16{0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999}
)

var closings = join(
	[]talk{
		{id: "7.1.1", what: "text, then a Close frame", rfc: "6455 5.5.1", frames: []frame{text("Hello World!"), closing(1000, "")}},
		{id: "7.1.2", what: "two Close frames", rfc: "6455 5.5.1", frames: []frame{closing(1000, ""), {op: opClose}}},
		{id: "7.1.3", what: "a Ping behind the Close frame", rfc: "6455 5.5.2", frames: []frame{closing(1000, ""), ping("")}},
		{id: "7.1.4", what: "text behind the Close frame", rfc: "6455 5.5.1", frames: []frame{closing(1000, ""), text("Hello World!")}},
		{id: "7.1.5", what: "a Close frame between two fragments", rfc: "6455 5.5.1", frames: []frame{text("fragment1").open(), closing(1000, ""), rest("fragment2")}},
		{id: "7.1.6", what: "256 KiB, text, a Close frame, a Ping", rfc: "6455 5.5.1", frames: []frame{textOf(256 << 10), text("Hello World!"), closing(1000, ""), ping("")}},
		{id: "7.1.7", what: "64 KiB of data behind the Close frame", rfc: "6455 7.1.1", frames: []frame{closing(1000, ""), binaryOf(64 << 10)}},
		{id: "7.1.8", what: "a megabyte of data behind the Close frame", rfc: "6455 7.1.1", frames: []frame{closing(1000, "")}, tail: 1 << 20},
		{id: "7.1.9", what: "a bad frame behind the Close frame", rfc: "6455 5.5.1", frames: []frame{closing(1000, ""), opcode(3, "")}},
		{id: "7.1.10", what: "100 messages, then a Close frame", rfc: "6455 5.5.1", frames: append(many(100, func(i int) frame { return text(fmt.Sprint(i)) }), closing(1000, ""))},
		{id: "7.1.11", what: "a megabyte of messages, then a Close frame", rfc: "6455 5.5.1", frames: append(many(16, func(int) frame { return binaryOf(64 << 10) }), closing(1000, ""))},
		{id: "7.1.12", what: "a megabyte of data behind a bad frame", rfc: "6455 7.1.7", frames: []frame{opcode(3, "")}, tail: 1 << 20, code: 1002},
		{id: "7.1.13", what: "a client that hangs up without a Close frame", rfc: "6455 7.1.5", frames: []frame{text("a")}, hangs: true},
		{id: "7.3.1", what: "a Close frame without payload", rfc: "6455 5.5.1", frames: []frame{{op: opClose}}},
		{id: "7.3.2", what: "a Close frame with a payload of 1 byte", rfc: "6455 5.5.1", frames: []frame{frame{op: opClose, payload: []byte("a")}.breach()}, code: 1002},
		{id: "7.3.3", what: "a Close frame with a code", rfc: "6455 5.5.1", frames: []frame{closing(1000, "")}},
		{id: "7.3.4", what: "a Close frame with a code and a reason", rfc: "6455 5.5.1", frames: []frame{closing(1000, "Hello World!")}},
		{id: "7.3.5", what: "a Close frame with a reason of 123 bytes", rfc: "6455 5.5.1", frames: []frame{closing(1000, stars(123))}},
		{id: "7.3.6", what: "a Close frame with a reason of 124 bytes", rfc: "6455 5.5", frames: []frame{closing(1000, stars(124)).breach()}, code: 1002},
		{id: "7.5.1", what: "a Close frame with a reason that is not UTF-8", rfc: "6455 8.1", frames: []frame{closing(1000, kosme+"\xed\xa0\x80edited").breach()}, code: 1007},
		{id: "7.5.2", what: "a Close frame with a reason that breaks off in a character", rfc: "6455 8.1", frames: []frame{closing(1000, "\xce").breach()}, code: 1007},
	},
	numbered("7.7", func(code uint16) talk {
		return talk{what: fmt.Sprintf("the close code %d", code), rfc: "6455 7.4", frames: []frame{closing(code, "")}}
	}, codes...),
	numbered("7.9", func(code uint16) talk {
		return talk{what: fmt.Sprintf("the close code %d", code), rfc: "6455 7.4", frames: []frame{closing(code, "").breach()}, code: 1002}
	}, badCodes...),
	numbered("7.11", func(code uint16) talk {
		return talk{what: fmt.Sprintf("the close code %d, which was registered later", code), rfc: "6455 7.4.2", frames: []frame{closing(code, "")}}
	}, 1012, 1013, 1014),
	numbered("7.13", func(code uint16) talk {
		return talk{what: fmt.Sprintf("the close code %d", code), rfc: "6455 7.4.2", frames: []frame{closing(code, "").breach()}, code: 1002}
	}, 5000, 65535, 1015),
)

// sizes are those of Autobahn's section 9, divided by 64.
var sizes = []int{1 << 10, 4 << 10, 16 << 10, 64 << 10, 128 << 10, 256 << 10}

// inFragments sends 64 KiB in fragments.
func inFragments(make func(int) frame, what string) func(int) talk {
	return func(n int) talk {
		return talk{what: fmt.Sprintf("%s of 65536 bytes, in fragments of %d", what, n), rfc: "6455 5.4", frames: fragments(make(65536), n)}
	}
}

func inPieces(make func(int) frame, what string) func(int) talk {
	return func(n int) talk {
		return talk{what: fmt.Sprintf("%s of 65536 bytes, in pieces of %d", what, n), rfc: "6455 5.2", frames: []frame{make(65536)}, chop: n}
	}
}

func hundred(make func(int) frame, what string) func(int) talk {
	return func(n int) talk {
		return talk{what: fmt.Sprintf("100 messages of %s, of %d bytes each", what, n), rfc: "6455 5.2", frames: many(100, func(int) frame { return make(n) })}
	}
}

var limits = join(
	numbered("9.1", sized(textOf, "text"), sizes...),
	numbered("9.2", sized(binaryOf, "binary"), sizes...),
	numbered("9.3", inFragments(textOf, "text"), 16, 32, 64, 256, 1<<10, 4<<10, 16<<10, 32<<10, 64<<10),
	numbered("9.4", inFragments(binaryOf, "binary"), 16, 32, 64, 256, 1<<10, 4<<10, 16<<10, 32<<10, 64<<10),
	numbered("9.5", inPieces(textOf, "text"), 64, 128, 256, 512, 1024, 2048),
	numbered("9.6", inPieces(binaryOf, "binary"), 64, 128, 256, 512, 1024, 2048),
	numbered("9.7", hundred(textOf, "text"), 0, 16, 64, 256, 1024, 4096),
	numbered("9.8", hundred(binaryOf, "binary"), 0, 16, 64, 256, 1024, 4096),
	[]talk{
		{id: "9.9.1", what: "a byte more than --max-message", rfc: "6455 7.4.1", frames: []frame{textOf(maxMessage + 1).breach()}, code: 1009},
		{id: "9.9.2", what: "a length of a byte more than --max-message, and no payload", rfc: "6455 7.4.1", frames: []frame{declares(text(""), maxMessage+1)}, code: 1009},
		{id: "9.9.3", what: "a length of 2^63 - 1", rfc: "6455 7.4.1", frames: []frame{declares(data(""), 1<<63-1)}, code: 1009},
		{id: "9.9.4", what: "fragments that are --max-message together", rfc: "6455 5.4", frames: fragments(textOf(maxMessage), 100_000)},
		{id: "9.9.5", what: "fragments that are a byte more together", rfc: "6455 7.4.1", frames: []frame{binaryOf(maxMessage - 1).open(), rest("a").open(), rest("b").breach()}, code: 1009},
		{id: "9.9.6", what: "a fragment of 2^63 - 1 bytes behind one of 1", rfc: "6455 7.4.1", frames: []frame{data("a").open(), declares(rest(""), 1<<63-1)}, code: 1009},
	},
)

var misc = []talk{
	{id: "10.1.1", what: "text of 65536 bytes, in fragments of 1300", rfc: "6455 5.4", frames: fragments(textOf(65536), 1300)},
	{id: "10.1.2", what: "nothing but a Close frame", rfc: "6455 5.5.1", frames: []frame{closing(1001, "")}},
	{id: "10.1.3", what: "nothing at all", rfc: "6455 7.1.5", frames: []frame{pong("")}, hangs: true},
	{id: "10.1.4", what: "20 messages of 64 KiB at once", rfc: "6455 5.2", frames: many(20, func(int) frame { return binaryOf(64 << 10) })},
}

// sources are texts and bytes that compress in different ways.
var sources = []struct {
	what string
	op   byte
	of   func(int) string
}{
	{"JSON", opText, func(n int) string {
		return cycle(n, func(i int) string {
			return fmt.Sprintf(`{"id":%d,"name":"user %d","open":%v,"at":[%d.5,%d]},`, i, i*i%97, i%3 == 0, i*7, i%11)
		})
	}},
	{"a picture in shades of grey", opBinary, func(n int) string {
		return cycle(n, func(i int) string {
			x, y := i%512, i/512
			return string([]byte{byte(x*y/300 + (x^y)/8)})
		})
	}},
	{"prose", opBinary, func(n int) string {
		words := strings.Fields("Habe nun ach Philosophie Juristerei und Medizin und leider auch Theologie durchaus studiert mit heißem Bemühn")
		random := rand.New(rand.NewPCG(1, 2))
		return cycle(n, func(int) string { return words[random.IntN(len(words))] + " " })
	}},
	{"HTML", opText, func(n int) string {
		return cycle(n, func(i int) string {
			return fmt.Sprintf(`<tr class="row%d"><td>%d</td><td>&nbsp;</td></tr>`+"\n", i%2, i)
		})
	}},
	{"random bytes", opBinary, func(n int) string {
		random := rand.New(rand.NewPCG(3, 4))
		return cycle(n, func(int) string { return string([]byte{byte(random.Uint32())}) })
	}},
}

func cycle(n int, of func(int) string) string {
	var b strings.Builder
	for i := 0; b.Len() < n; i++ {
		b.WriteString(of(i))
	}
	return b.String()[:n]
}

// messageSizes are Autobahn's sizes of messages and of their fragments, 0 for one.
var messageSizes = [][2]int{
	{16}, {64}, {256}, {1024}, {4096}, {8192}, {16384}, {32768}, {65536}, {131072},
	{8192, 256}, {16384, 256}, {32768, 256}, {65536, 256}, {131072, 256}, {131072, 1024}, {131072, 4096}, {131072, 32768},
}

// squeezed sends a message compressed, and once more as it is.
func squeezed(what string, op byte, of func(int) string, offer, agreed string) func([2]int) talk {
	return func(size [2]int) talk {
		m := frame{op: op, payload: []byte(of(size[0]))}
		t := talk{what: fmt.Sprintf("%s, %d bytes", what, size[0]), rfc: "7692 7.2", offer: offer, agreed: agreed, only: true}
		in := size[1]
		if in > 0 {
			t.what += fmt.Sprintf(", in fragments of %d", in)
		} else {
			in = 1 << 20
		}
		t.frames = append(fragments(deflated(m), in), m)
		return t
	}
}

var compression = func() (talks []talk) {
	for i, s := range sources {
		talks = append(talks, numbered(fmt.Sprint("12.", i+1), squeezed(s.what, s.op, s.of, "permessage-deflate", terms), messageSizes...)...)
	}
	return talks
}()
