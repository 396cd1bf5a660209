package conformance

import "fmt"

// deals are Autobahn's section 13: what a client offers, and what the server
// agrees to.
var deals = []struct{ offer, agreed string }{
	{"permessage-deflate", terms},
	{"permessage-deflate; server_no_context_takeover", terms},
	{"permessage-deflate; server_max_window_bits=9", terms + "; server_max_window_bits=9"},
	{"permessage-deflate; server_max_window_bits=15", terms + "; server_max_window_bits=15"},
	{"permessage-deflate; server_no_context_takeover; server_max_window_bits=9", terms + "; server_max_window_bits=9"},
	{"permessage-deflate; server_no_context_takeover; server_max_window_bits=15", terms + "; server_max_window_bits=15"},
	{"permessage-deflate; server_no_context_takeover; server_max_window_bits=9, permessage-deflate; server_no_context_takeover, permessage-deflate", terms + "; server_max_window_bits=9"},
}

// declined are offers that a server has to decline: it agrees to nothing.
var declined = []string{
	"permessage-deflate; server_max_window_bits=7",
	"permessage-deflate; server_max_window_bits=16",
	"permessage-deflate; server_max_window_bits=08",
	"permessage-deflate; server_max_window_bits",
	"permessage-deflate; client_max_window_bits=7",
	"permessage-deflate; client_max_window_bits=16",
	"permessage-deflate; client_max_window_bits=a",
	"permessage-deflate; server_no_context_takeover=1",
	"permessage-deflate; client_no_context_takeover=true",
	"permessage-deflate; server_no_context_takeover; server_no_context_takeover",
	"permessage-deflate; server_max_window_bits=9; server_max_window_bits=9",
	"permessage-deflate; unknown",
	"permessage-deflate; unknown=1",
	"x-webkit-deflate-frame",
	"permessage-bzip2",
}

// accepted are offers with more than the first of them, or spelled in other ways.
var accepted = []struct{ offer, agreed string }{
	{"permessage-deflate; client_max_window_bits", terms},
	{"permessage-deflate; client_max_window_bits=15", terms},
	{"permessage-deflate; client_max_window_bits=8", terms},
	{"permessage-deflate; client_no_context_takeover", terms},
	{"permessage-deflate; server_max_window_bits=8", terms + "; server_max_window_bits=8"},
	{`permessage-deflate; server_max_window_bits="10"`, terms + "; server_max_window_bits=10"},
	{"permessage-deflate ; server_no_context_takeover ;client_no_context_takeover", terms},
	{"x-webkit-deflate-frame, permessage-deflate", terms},
	{"permessage-deflate; unknown, permessage-deflate", terms},
	{"permessage-deflate; server_max_window_bits=7, permessage-deflate; server_max_window_bits=11", terms + "; server_max_window_bits=11"},
	{", permessage-deflate", terms},
}

var offers = func() (talks []talk) {
	json := sources[0]
	for i, d := range deals {
		talks = append(talks, numbered(fmt.Sprint("13.", i+1), squeezed("`"+d.offer+"`: JSON", json.op, json.of, d.offer, d.agreed), messageSizes...)...)
	}
	talks = append(talks, numbered("13.8", func(offer string) talk {
		return talk{what: "`" + offer + "` is declined", rfc: "7692 7.1", only: true, offer: offer, frames: []frame{text(json.of(1000))}}
	}, declined...)...)
	return append(talks, numbered("13.9", func(d struct{ offer, agreed string }) talk {
		return talk{what: "`" + d.offer + "`", rfc: "7692 7.1", only: true, offer: d.offer, agreed: d.agreed, frames: []frame{deflated(text(json.of(1000))), text(json.of(1000))}}
	}, accepted...)...)
}()

// crushed is a message whose payload is given as it is compressed.
func crushed(op byte, payload, says string) frame {
	return frame{op: op, rsv: 4, payload: []byte(payload), says: []byte(says)}
}

// bomb inflates to so many bytes.
func bomb(n int) frame { return deflated(frame{op: opBinary, payload: make([]byte, n)}) }

var corruption = []talk{
	{id: "14.1", what: "the example of a message", rfc: "7692 7.2.3.1", only: true, frames: []frame{crushed(opText, "\xf2\x48\xcd\xc9\xc9\x07\x00", "Hello")}},
	{id: "14.2", what: "the example in two fragments", rfc: "7692 7.2.3.1", only: true, frames: fragments(crushed(opText, "\xf2\x48\xcd\xc9\xc9\x07\x00", "Hello"), 3)},
	{id: "14.3", what: "the example of a block that is not compressed", rfc: "7692 7.2.3.3", only: true, frames: []frame{crushed(opText, "\x00\x05\x00\xfa\xffHello\x00", "Hello")}},
	{id: "14.4", what: "the example of a final block", rfc: "7692 7.2.3.4", only: true, frames: []frame{crushed(opText, "\xf3\x48\xcd\xc9\xc9\x07\x00\x00", "Hello")}},
	{id: "14.5", what: "the example of two blocks", rfc: "7692 7.2.3.5", only: true, frames: []frame{crushed(opText, "\xf2\x48\x05\x00\x00\x00\xff\xff\xca\xc9\xc9\x07\x00", "Hello")}},
	{id: "14.6", what: "an empty message, compressed", rfc: "7692 7.2.3.6", only: true, frames: []frame{crushed(opText, "\x00", "")}},
	{id: "14.7", what: "a reserved type of block", rfc: "1951 3.2.3", only: true, frames: []frame{crushed(opBinary, "\x06", "").breach()}, code: 1007},
	{id: "14.8", what: "text that is not compressed, with RSV1", rfc: "1951 3.2.3", only: true, frames: []frame{text(hello).reserved(4).breach()}, code: 1007},
	{id: "14.9", what: "a distance before the beginning", rfc: "1951 3.2.3", only: true, frames: []frame{crushed(opBinary, "\x02\x13\x00", "").breach()}, code: 1007},
	{id: "14.10", what: "a block that is not compressed, with a wrong complement", rfc: "1951 3.2.4", only: true, frames: []frame{crushed(opBinary, "\x00\x05\x00\x00\x00Hello\x00", "").breach()}, code: 1007},
	{id: "14.11", what: "text that is not UTF-8, compressed", rfc: "6455 8.1", only: true, frames: []frame{deflated(text(surrogate)).breach()}, code: 1007},
	{id: "14.12", what: "text that ends within a character, compressed", rfc: "6455 8.1", only: true, frames: []frame{deflated(text(kosme[:1])).breach()}, code: 1007},
	{id: "14.13", what: "zeros, as many as --max-message", rfc: "7692 8", only: true, frames: []frame{bomb(maxMessage)}},
	{id: "14.14", what: "a byte more than --max-message, compressed", rfc: "7692 8", only: true, frames: []frame{bomb(maxMessage + 1).breach()}, code: 1009},
	{id: "14.15", what: "64 MiB of zeros in 64 KiB", rfc: "7692 8", only: true, frames: []frame{bomb(64 << 20).breach()}, code: 1009},
	{id: "14.16", what: "a Ping between two compressed fragments", rfc: "7692 6.1", only: true, frames: func() []frame {
		f := fragments(deflated(text(hello)), 6)
		return []frame{f[0], ping("ping"), f[1], f[2]}
	}()},
	{id: "14.17", what: "the window of the message before is used", rfc: "7692 7.1.1.2", only: true, frames: []frame{
		crushed(opText, "\xf2\x48\xcd\xc9\xc9\x07\x00", "Hello"), crushed(opText, "\xf2\x00\x11\x00\x00", "").breach(),
	}, code: 1007},
	{id: "14.18", what: "a compressed message that breaks off", rfc: "6455 7.1.5", only: true, frames: []frame{deflated(text(hello)).open()}, hangs: true},
}
