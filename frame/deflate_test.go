package frame_test

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"iter"
	"math"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/seed-134acfd0/lull/frame"
)

const (
	offerLine = "Sec-WebSocket-Extensions: "
	terms     = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
)

// offers are the values of a request's Sec-WebSocket-Extensions lines, named by
// the section of RFC 7692 that decides them.
var offers = []struct {
	name   string
	lines  []string
	window frame.Window // zero where all offers are declined
	answer string       // what is behind the terms
}{
	{"7.1 no offer", nil, 0, ""},
	{"7.1 alone", []string{"permessage-deflate"}, 15, ""},
	{"7.1 another extension", []string{"permessage-foo"}, 0, ""},
	{"5.1 name in another case", []string{"Permessage-Deflate"}, 0, ""},
	{"5.1 part of the name", []string{"permessage-deflate2, x-webkit-deflate-frame"}, 0, ""},
	{"7.1 an unknown parameter", []string{"permessage-deflate; memory=1"}, 0, ""},
	{"7.1 a parameter in another case", []string{"permessage-deflate; Server_no_context_takeover"}, 0, ""},

	{"7.1.1.1 server_no_context_takeover", []string{"permessage-deflate; server_no_context_takeover"}, 15, ""},
	{"7.1.1.1 with a value", []string{"permessage-deflate; server_no_context_takeover=1"}, 0, ""},
	{"7.1.1.1 with a quoted value", []string{`permessage-deflate; server_no_context_takeover="true"`}, 0, ""},
	{"7.1.1.1 twice", []string{"permessage-deflate; server_no_context_takeover; server_no_context_takeover"}, 0, ""},
	{"7.1.1.2 client_no_context_takeover", []string{"permessage-deflate; client_no_context_takeover"}, 15, ""},
	{"7.1.1.2 with a value", []string{"permessage-deflate; client_no_context_takeover=0"}, 0, ""},
	{"7.1.1.2 twice", []string{"permessage-deflate; client_no_context_takeover;client_no_context_takeover"}, 0, ""},

	{"7.1.2.1 server window of 8", []string{"permessage-deflate; server_max_window_bits=8"}, 8, "; server_max_window_bits=8"},
	{"7.1.2.1 server window of 9", []string{"permessage-deflate; server_max_window_bits=9"}, 9, "; server_max_window_bits=9"},
	{"7.1.2.1 server window of 14", []string{"permessage-deflate; server_max_window_bits=14"}, 14, "; server_max_window_bits=14"},
	{"7.1.2.1 server window of 15", []string{"permessage-deflate; server_max_window_bits=15"}, 15, "; server_max_window_bits=15"},
	{"7.1.2.1 quoted", []string{`permessage-deflate; server_max_window_bits="10"`}, 10, "; server_max_window_bits=10"},
	{"7.1.2.1 quoted with a backslash", []string{`permessage-deflate; server_max_window_bits="1\0"`}, 10, "; server_max_window_bits=10"},
	{"7.1.2.1 without a value", []string{"permessage-deflate; server_max_window_bits"}, 0, ""},
	{"7.1.2.1 too small", []string{"permessage-deflate; server_max_window_bits=7"}, 0, ""},
	{"7.1.2.1 too large", []string{"permessage-deflate; server_max_window_bits=16"}, 0, ""},
	{"7.1.2.1 zero", []string{"permessage-deflate; server_max_window_bits=0"}, 0, ""},
	{"7.1.2.1 leading zero", []string{"permessage-deflate; server_max_window_bits=08"}, 0, ""},
	{"7.1.2.1 negative", []string{"permessage-deflate; server_max_window_bits=-8"}, 0, ""},
	{"7.1.2.1 beyond 64 bits", []string{"permessage-deflate; server_max_window_bits=18446744073709551624"}, 0, ""},
	{"7.1.2.1 no number", []string{"permessage-deflate; server_max_window_bits=ten"}, 0, ""},
	{"7.1.2.1 hexadecimal", []string{"permessage-deflate; server_max_window_bits=0xa"}, 0, ""},
	{"7.1.2.1 twice", []string{"permessage-deflate; server_max_window_bits=10; server_max_window_bits=10"}, 0, ""},
	{"7.1.2.1 twice, first without a value", []string{"permessage-deflate; server_max_window_bits; server_max_window_bits=10"}, 0, ""},

	{"7.1.2.2 client_max_window_bits", []string{"permessage-deflate; client_max_window_bits"}, 15, ""},
	{"7.1.2.2 client window of 8", []string{"permessage-deflate; client_max_window_bits=8"}, 15, ""},
	{"7.1.2.2 client window of 15", []string{"permessage-deflate; client_max_window_bits=15"}, 15, ""},
	{"7.1.2.2 too small", []string{"permessage-deflate; client_max_window_bits=7"}, 0, ""},
	{"7.1.2.2 too large", []string{"permessage-deflate; client_max_window_bits=16"}, 0, ""},
	{"7.1.2.2 leading zero", []string{"permessage-deflate; client_max_window_bits=010"}, 0, ""},
	{"7.1.2.2 twice", []string{"permessage-deflate; client_max_window_bits=10; client_max_window_bits=10"}, 0, ""},
	{"7.1.2.2 twice without a value", []string{"permessage-deflate; client_max_window_bits; client_max_window_bits"}, 0, ""},

	{"7.1.3 everything", []string{"permessage-deflate; client_max_window_bits; server_max_window_bits=12; server_no_context_takeover; client_no_context_takeover"}, 12, "; server_max_window_bits=12"},
	{"7.1.3 a fallback without a window", []string{"permessage-deflate; client_max_window_bits; server_max_window_bits=10, permessage-deflate; client_max_window_bits"}, 10, "; server_max_window_bits=10"},
	{"7.1 the first that is valid", []string{"permessage-deflate; x, permessage-foo; server_max_window_bits=9, permessage-deflate; server_max_window_bits=11, permessage-deflate"}, 11, "; server_max_window_bits=11"},
	{"9.1 in two lines", []string{"permessage-foo", "permessage-deflate"}, 15, ""},
	{"9.1 two lines, the first preferred", []string{"permessage-deflate; server_max_window_bits=13", "permessage-deflate"}, 13, "; server_max_window_bits=13"},
	{"9.1 two lines, the first declined", []string{"permessage-deflate; server_max_window_bits=7", "permessage-deflate"}, 15, ""},
	{"9.1 no space", []string{"permessage-foo;a=b;c,permessage-deflate;server_max_window_bits=10;client_max_window_bits"}, 10, "; server_max_window_bits=10"},
	{"9.1 much space", []string{" permessage-deflate\t;  server_max_window_bits = 10 ; client_max_window_bits  ,\tx "}, 10, "; server_max_window_bits=10"},
	{"9.1 quoted among others", []string{`permessage-foo; a="b", permessage-deflate`}, 15, ""},
	{"9110 5.6.1 empty items", []string{",, permessage-deflate ,\t,"}, 15, ""},
	{"9110 5.6.1 nothing but empty items", []string{""}, 0, ""},

	// What the cases 12 and 13 of Autobahn's suite offer.
	{"Autobahn 12", []string{"permessage-deflate; client_no_context_takeover; client_max_window_bits"}, 15, ""},
	{"Autobahn 13.1", []string{"permessage-deflate; client_no_context_takeover; client_max_window_bits, permessage-deflate; client_max_window_bits"}, 15, ""},
	{"Autobahn 13.2", []string{"permessage-deflate; server_no_context_takeover; client_max_window_bits"}, 15, ""},
	{"Autobahn 13.3", []string{"permessage-deflate; server_max_window_bits=9; client_max_window_bits"}, 9, "; server_max_window_bits=9"},
	{"Autobahn 13.4", []string{"permessage-deflate; server_max_window_bits=15; client_max_window_bits"}, 15, "; server_max_window_bits=15"},
	{"Autobahn 13.5", []string{"permessage-deflate; server_no_context_takeover; server_max_window_bits=9; client_max_window_bits"}, 9, "; server_max_window_bits=9"},
	{"Autobahn 13.6", []string{"permessage-deflate; server_no_context_takeover; server_max_window_bits=15; client_max_window_bits"}, 15, "; server_max_window_bits=15"},
	{"Autobahn 13.7", []string{"permessage-deflate; server_no_context_takeover; server_max_window_bits=9; client_max_window_bits, permessage-deflate; server_no_context_takeover; client_max_window_bits, permessage-deflate; client_max_window_bits"}, 9, "; server_max_window_bits=9"},
}

// asLines makes header lines of values, behind another.
func asLines(values []string) []string {
	lines := []string{"X-Before: 1"}
	for _, v := range values {
		lines = append(lines, offerLine+v)
	}
	return lines
}

func TestDeflateIsNegotiated(t *testing.T) {
	var told frame.Window
	u := frame.NewUpgrader(func(r *frame.Request) error {
		told = r.Deflate
		return nil
	})
	for _, r := range offers {
		t.Run(r.name, func(t *testing.T) {
			for _, u.Deflate = range []bool{true, false} {
				wire, err := u.Upgrade([]byte(with(asLines(r.lines)...)))
				if err != nil {
					t.Fatal(err)
				}
				window, answer := r.window, []string{terms + r.answer}
				if window == 0 || !u.Deflate {
					window, answer = 0, nil
				}
				got := accepted(t, wire, sampleAccept).Header.Values("Sec-WebSocket-Extensions")
				if told != window || !slices.Equal(got, answer) {
					t.Errorf("compression allowed %v: window %d, answer %q; want %d, %q", u.Deflate, told, got, window, answer)
				}
			}
		})
	}
}

// Section 9.1 of RFC 6455 fails the connection, and nobody is asked.
func TestMalformedExtensionsAreRefused(t *testing.T) {
	u := frame.NewUpgrader(func(*frame.Request) error {
		t.Error("accept was asked")
		return nil
	})
	u.Deflate = true
	for _, value := range []string{
		"permessage-deflate;", "permessage-deflate; ;client_no_context_takeover", ";", "; a", "=", "a=b",
		"permessage-deflate; server_max_window_bits=", "permessage-deflate; =10", "permessage-deflate; a==b",
		"permessage-deflate server_no_context_takeover", "permessage-deflate; a b", "a b", "permessage-deflate; a=b c",
		`permessage-deflate; server_max_window_bits=""`, `permessage-deflate; server_max_window_bits="10`,
		`permessage-deflate; server_max_window_bits=10"`, `permessage-deflate; a="b c"`, `permessage-deflate; a=" b"`,
		`permessage-deflate; a="b"c`, `permessage-deflate; a="b\"`, `permessage-deflate; a="\`, `"permessage-deflate"`,
		"permessage-deflate (comment)", "permessage/deflate", "permessage-deflate; größe", "permessage-deflate, ;",
	} {
		for _, lines := range [][]string{{value}, {"permessage-deflate", value}, {value, "permessage-deflate"}} {
			wire, err := u.Upgrade([]byte(with(asLines(lines)...)))
			if err == nil {
				t.Errorf("%q is accepted", lines)
				continue
			}
			refusal(t, wire, http.StatusBadRequest)
		}
	}
}

func TestAcceptMayDeclineDeflate(t *testing.T) {
	for _, decline := range []bool{false, true} {
		for _, more := range []http.Header{nil, {"X-More": {"1"}}} {
			u := frame.NewUpgrader(func(r *frame.Request) error {
				if r.ResponseHeader = more; decline {
					r.Deflate = 0
				}
				r.Protocol = "chat"
				return nil
			})
			u.Deflate = true
			wire, err := u.Upgrade([]byte(with("Sec-WebSocket-Protocol: chat", offerLine+"permessage-deflate")))
			if err != nil {
				t.Fatal(err)
			}
			h := accepted(t, wire, sampleAccept).Header
			if got := h.Get("Sec-WebSocket-Extensions"); (got == terms) == decline || decline && got != "" {
				t.Errorf("declined %v: answer %q", decline, got)
			}
			if h.Get("Sec-WebSocket-Protocol") != "chat" || h.Get("X-More") != more.Get("X-More") {
				t.Errorf("declined %v: headers %v", decline, h)
			}
		}
	}
}

func TestUpgraderForgetsTheLastOffer(t *testing.T) {
	u := frame.NewUpgrader(nil)
	u.Deflate = true
	for _, offer := range []string{"permessage-deflate; server_max_window_bits=9", "x", "permessage-deflate", "x"} {
		wire, err := u.Upgrade([]byte(with(offerLine + offer)))
		if err != nil {
			t.Fatal(err)
		}
		want := strings.Replace(offer, "permessage-deflate", terms, 1)
		if got := accepted(t, wire, sampleAccept).Header.Get("Sec-WebSocket-Extensions"); offer == "x" && got != "" || offer != "x" && got != want {
			t.Errorf("%q is answered with %q", offer, got)
		}
	}
}

// deflating is an offer to compress.
var deflating = frame.Offer{Deflate: true}

func TestDeflateRequestIsAcceptedByUpgrader(t *testing.T) {
	head := deflating.AppendRequest([]byte("held"), "example.com", "/chat", frame.SampleKey)
	plain := frame.AppendRequest([]byte("held"), "example.com", "/chat", frame.SampleKey)
	if want := strings.TrimSuffix(string(plain), "\r\n") + offerLine + terms + "\r\n\r\n"; string(head) != want {
		t.Fatalf("the request is %q, want %q", head, want)
	}
	u := frame.NewUpgrader(nil)
	for _, u.Deflate = range []bool{true, false} {
		wire, err := u.Upgrade(head[len("held"):])
		if err != nil {
			t.Fatal(err)
		}
		if agreed, err := deflating.CheckResponse(wire, frame.SampleKey); err != nil || agreed.Deflate != u.Deflate {
			t.Errorf("compression allowed %v: agreed %v, error %v", u.Deflate, agreed, err)
		}
		if err := frame.CheckResponse(wire, frame.SampleKey); (err != nil) != u.Deflate {
			t.Errorf("compression allowed %v: without an offer the error is %v", u.Deflate, err)
		}
	}
}

func TestCheckDeflateResponse(t *testing.T) {
	const server, client = "permessage-deflate; server_no_context_takeover", "; client_no_context_takeover"
	rows := []struct {
		name   string
		lines  []string
		agreed bool
		fails  bool
	}{
		{"no answer", nil, false, false},
		{"7.1 what was offered", []string{terms}, true, false},
		{"7.1.1.2 the client may keep its window", []string{server}, true, false},
		{"7.1.2.1 a window that was not asked for", []string{server + "; server_max_window_bits=9"}, true, false},
		{"7.1.2.1 quoted", []string{server + `; server_max_window_bits="15"`}, true, false},
		{"9110 5.6.1 empty items", []string{"," + terms + ", ,"}, true, false},
		{"7.1.1.1 the server keeps its window", []string{"permessage-deflate" + client}, false, true},
		{"7.1.2.1 without a value", []string{server + "; server_max_window_bits"}, false, true},
		{"7.1.2.1 too small", []string{server + "; server_max_window_bits=7"}, false, true},
		{"7.1.2.2 a window that was not offered", []string{terms + "; client_max_window_bits=10"}, false, true},
		{"7.1.2.2 without a value", []string{terms + "; client_max_window_bits"}, false, true},
		{"7.1 an unknown parameter", []string{terms + "; x"}, false, true},
		{"7.1 a parameter twice", []string{terms + client}, false, true},
		{"7.1 a value out of place", []string{terms + "=1"}, false, true},
		{"9.1 twice", []string{terms + ", " + terms}, false, true},
		{"9.1 twice, in two lines", []string{terms, terms}, false, true},
		{"9.1 another", []string{"permessage-foo"}, false, true},
		{"9.1 another beside it", []string{terms + ", permessage-foo"}, false, true},
		{"9.1 another in a second line", []string{terms, "permessage-foo"}, false, true},
		{"9.1 malformed", []string{terms + ";"}, false, true},
		{"9.1 empty", []string{""}, false, true},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			lines := strings.Join(append(asLines(r.lines), "Upgrade:"), "\r\n")
			head := strings.Replace(goodResponse, "Upgrade:", lines, 1)
			agreed, err := deflating.CheckResponse([]byte(head), frame.SampleKey)
			if agreed.Deflate != r.agreed && !r.fails || (err != nil) != r.fails {
				t.Errorf("agreed %v, error %v", agreed, err)
			}
			if err := frame.CheckResponse([]byte(head), frame.SampleKey); (err != nil) != (len(r.lines) > 0) {
				t.Errorf("without an offer the error is %v", err)
			}
		})
	}
	bad := strings.Replace(goodResponse, sampleAccept, "x", 1)
	if agreed, err := deflating.CheckResponse([]byte(bad), frame.SampleKey); err == nil {
		t.Errorf("a bad response: agreed %v, error %v", agreed, err)
	}
}

func FuzzExtensions(f *testing.F) {
	for _, r := range offers {
		f.Add(strings.Join(r.lines, "\r\n"+offerLine))
	}
	f.Add(`permessage-deflate; a="\`)
	f.Fuzz(func(t *testing.T, value string) {
		u := frame.NewUpgrader(nil)
		plain, plainErr := u.Upgrade([]byte(with(offerLine + value)))
		plain = bytes.Clone(plain)
		u.Deflate = true
		wire, err := u.Upgrade([]byte(with(offerLine + value)))
		switch {
		case plainErr != nil && !bytes.Equal(wire, plain), err != nil && !bytes.Contains(wire, []byte("400")) && plainErr == nil:
			t.Errorf("%q is refused with %v, and %v without compression", value, err, plainErr)
		case err == nil && bytes.Contains(wire, []byte("permessage")) && !strings.Contains(value, "permessage-deflate"):
			t.Errorf("%q, which is no offer, is answered with %q", value, wire)
		}
	})
}

// deflating makes the parser that the other side would use for a connection
// that agreed to permessage-deflate.
func (from sender) deflating(max int64) *frame.Parser {
	p := from.parser(max)
	p.Deflate = true
	return p
}

// compressed is "Hello", section 7.2.3.1 of RFC 7692.
const compressed = "\xf2\x48\xcd\xc9\xc9\x07\x00"

// deflateCases are named by the section of RFC 7692 that decides them.
var deflateCases = []rfcCase{
	{"7.2.3.1 one frame", fromServer, 0, "\xc1\x07" + compressed, []string{"deflated " + show(frame.Text, compressed)}, nil},
	{"7.2.3.1 two fragments", fromServer, 0, "\x41\x03" + compressed[:3] + "\x80\x04" + compressed[3:], []string{"deflated " + show(frame.Text, compressed)}, nil},
	{"6 masked", fromClient, 0, client(fin|rsv1|bin, compressed), []string{"deflated " + show(frame.Binary, compressed)}, nil},
	{"6 plain among compressed", fromClient, 0, client(fin|rsv1|text, "\xff") + client(fin|text, "a") + client(fin|rsv1|bin, "b"),
		[]string{`deflated text "\xff"`, `text "a"`, `deflated binary "b"`}, nil},
	{"6 a ping between fragments", fromClient, 0, client(rsv1|text, "\xff") + client(fin|ping, "p") + client(more, "\xfe") + client(fin|more, ""),
		[]string{`ping "p"`, `deflated text "\xff\xfe"`}, nil},
	{"6 plain text is UTF-8 still", fromClient, 0, client(fin|rsv1|text, "\xff") + client(fin|text, "\xff"), []string{`deflated text "\xff"`}, frame.ErrUTF8},
	{"6 an empty fragment first", fromServer, 0, server(rsv1|text, "") + server(fin|more, compressed), []string{"deflated " + show(frame.Text, compressed)}, nil},
	{"6.1 on a continuation", fromClient, 0, client(rsv1|text, "a") + client(fin|rsv1|more, "b"), nil, breach("rsv")},
	{"6.1 on a continuation of plain text", fromServer, 0, server(text, "a") + server(fin|rsv1|more, "b"), nil, breach("rsv")},
	{"6.1 on a ping", fromClient, 0, client(fin|rsv1|ping, ""), nil, breach("rsv")},
	{"6.1 on a pong between fragments", fromServer, 0, server(rsv1|bin, "a") + server(fin|rsv1|pong, ""), nil, breach("rsv")},
	{"6.1 on a close", fromClient, 0, client(fin|rsv1|closing, ""), nil, breach("rsv")},
	{"6 with RSV2", fromClient, 0, client(fin|rsv1|rsv2|text, "a"), nil, breach("rsv")},
	{"6 with RSV3", fromServer, 0, server(fin|rsv1|rsv3|bin, "a"), nil, breach("rsv")},
	{"6 RSV2 alone", fromServer, 0, server(fin|rsv2|bin, "a"), nil, breach("rsv")},
	{"6 on a reserved opcode", fromClient, 0, client(fin|rsv1|3, ""), nil, breach("reserved op code")},
	{"6 inside a message", fromClient, 0, client(text, "a") + client(fin|rsv1|text, "b"), nil, breach("non-continuation")},
	{"6 not masked", fromClient, 0, server(fin|rsv1|text, "a"), nil, breach("must be masked")},
	{"10.4 of exactly the limit", fromClient, 512, client(rsv1|bin, zeros(512)) + client(fin|more, zeros(66)), []string{"deflated " + show(frame.Binary, zeros(578))}, nil},
	{"10.4 beyond the limit", fromClient, 512, client(rsv1|bin, zeros(512)) + client(fin|more, zeros(67)), nil, tooBig()},
	{"10.4 beyond the limit at once", fromServer, 512, server(fin|rsv1|text, zeros(579)), nil, tooBig()},
	{"10.4 plain beyond the limit", fromClient, 512, client(fin|text, zeros(513)), nil, tooBig()},
	{"10.4 no limit", fromClient, math.MaxInt64, client(fin|rsv1|text, "a"), []string{`deflated text "a"`}, nil},
}

func TestParserFindsCompressedMessages(t *testing.T) {
	plain := slices.DeleteFunc(slices.Clone(rfcCases), func(c rfcCase) bool { return c.name == "5.2 reserved bit 1" })
	for _, c := range slices.Concat(deflateCases, plain) {
		t.Run(c.name, func(t *testing.T) {
			wire := []byte(c.wire)
			pieces := []iter.Seq[[]byte]{atOnce(wire), byteByByte(wire)}
			for i := range min(len(wire), 50) {
				pieces = append(pieces, cutAt(wire, i))
			}
			for _, p := range pieces {
				events, err := readMessages(t, c.from.deflating(cmp.Or(c.max, 1<<20)), p)
				if !slices.Equal(events, whole(c.want)) {
					t.Errorf("events %q, want %q", events, whole(c.want))
				}
				got, failed := errors.AsType[*frame.Error](err)
				if failed != (c.fails != nil) || failed && (got.Code != c.fails.Code || !strings.Contains(got.Text, c.fails.Text)) {
					t.Errorf("error %v, want %v", err, c.fails)
				}
			}
		})
	}
}

func TestCompressedMessagesNeedAnAgreement(t *testing.T) {
	for _, c := range deflateCases {
		if !strings.Contains(strings.Join(c.want, ""), "deflated") {
			continue
		}
		_, err := readMessages(t, c.from.parser(1<<20), atOnce([]byte(c.wire)))
		if got, ok := errors.AsType[*frame.Error](err); !ok || got.Code != frame.ProtocolError {
			t.Errorf("%s: error %v", c.name, err)
		}
	}
}

func FuzzDeflatedChunking(f *testing.F) {
	for _, c := range deflateCases {
		f.Add([]byte(c.wire), []byte{1, 0, 2, 7}, bool(c.from))
	}
	f.Fuzz(func(t *testing.T, wire, cuts []byte, masked bool) {
		p := sender(masked).deflating(modelMax)
		want, wantErr := readMessages(t, p, atOnce(wire))
		got, err := readMessages(t, p, pattern(wire, cuts))
		if !slices.Equal(got, want) || fmt.Sprint(err) != fmt.Sprint(wantErr) {
			t.Errorf("in pieces: %q, %v; at once: %q, %v", got, err, want, wantErr)
		}
	})
}

func TestAppendedFramesMayBeCompressed(t *testing.T) {
	for _, op := range []frame.Op{frame.Text, frame.Binary} {
		for _, length := range lengths {
			payload := bytes.Repeat([]byte("lull"), length/4+1)[:length]
			want := "deflated " + show(op, payload)
			for from, wire := range map[sender][]byte{
				fromServer: frame.Append(nil, op|frame.Deflated, payload),
				fromClient: frame.AppendMasked(nil, op|frame.Deflated, [4]byte{1, 2, 3, 4}, payload),
			} {
				if events, err := readMessages(t, from.deflating(1<<20), atOnce(wire)); err != nil || !slices.Equal(events, []string{want}) {
					t.Errorf("%v of %d bytes: %q, error %v", op, length, events, err)
				}
			}
		}
	}
}
