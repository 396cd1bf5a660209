package frame_test

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/gobwas/ws"
	"github.com/seed-134acfd0/lull/frame"
)

// lengths stand at the edges of the header's three forms.
var lengths = []int{0, 1, 125, 126, 65535, 65536, 1 << 20}

// readBack reads one frame with the library's reader, checks that it has the
// shortest header and is whole, and returns what it carries.
func readBack(t *testing.T, wire []byte) (h ws.Header, payload []byte) {
	t.Helper()
	r := bytes.NewReader(wire)
	h, err := ws.ReadHeader(r)
	if err != nil {
		t.Fatal(err)
	}
	payload, _ = io.ReadAll(r)
	if int64(len(payload)) != h.Length || ws.HeaderSize(h)+len(payload) != len(wire) {
		t.Fatalf("a header of %d bytes for %d, %d behind it", len(wire)-len(payload), h.Length, len(payload))
	}
	if !h.Fin || h.Rsv != 0 {
		t.Fatalf("header %+v, want FIN and no reserved bit", h)
	}
	if h.Masked {
		ws.Cipher(payload, h.Mask, 0)
	}
	return h, payload
}

func TestAppendedFramesReadBack(t *testing.T) {
	mask := [4]byte([]byte(key))
	ways := []struct {
		name   string
		masked bool
		add    func(dst []byte, op frame.Op, payload []byte) []byte
	}{
		{"Append", false, frame.Append},
		{"AppendHeader", false, func(dst []byte, op frame.Op, payload []byte) []byte {
			return append(frame.AppendHeader(dst, op, len(payload)), payload...)
		}},
		{"AppendMasked", true, func(dst []byte, op frame.Op, payload []byte) []byte {
			return frame.AppendMasked(dst, op, mask, payload)
		}},
	}
	ops := []frame.Op{frame.Text, frame.Binary, frame.Close, frame.Ping, frame.Pong}
	for _, way := range ways {
		for _, length := range lengths {
			for _, op := range ops {
				if op.Control() && length > ws.MaxControlFramePayloadSize {
					continue
				}
				t.Run(fmt.Sprintf("%s %v of %d bytes", way.name, op, length), func(t *testing.T) {
					payload := bytes.Repeat([]byte("lull"), length/4+1)[:length]
					given := bytes.Clone(payload)
					wire := way.add([]byte("held"), op, given)
					if !bytes.Equal(given, payload) {
						t.Error("the payload that was passed in has changed")
					}
					if !bytes.HasPrefix(wire, []byte("held")) {
						t.Errorf("what dst held became %q", wire[:4])
					}
					h, got := readBack(t, wire[4:])
					if h.OpCode != ws.OpCode(op) || h.Masked != way.masked || h.Masked && h.Mask != mask {
						t.Errorf("header %+v", h)
					}
					if !bytes.Equal(got, payload) {
						t.Error("another payload was read back")
					}
				})
			}
		}
	}
}

func TestParserReadsWhatIsAppended(t *testing.T) {
	for _, length := range lengths {
		payload := bytes.Repeat([]byte("lull"), length/4+1)[:length]
		want := show(frame.Text, payload)
		for from, wire := range map[sender][]byte{
			fromServer: frame.Append(nil, frame.Text, payload),
			fromClient: frame.AppendMasked(nil, frame.Text, [4]byte{1, 2, 3, 4}, payload),
		} {
			events, err := read(t, from.parser(1<<20), atOnce(wire))
			if err != nil || len(events) != 1 || events[0] != want {
				t.Errorf("%d bytes: %q, error %v", length, events, err)
			}
		}
	}
}

func TestAppendCloseSaysWhatFits(t *testing.T) {
	long := strings.Repeat("a", frame.MaxCloseReason)
	rows := []struct {
		name   string
		code   frame.Code
		reason string
		want   string // the reason that is sent
	}{
		{"no reason", frame.NormalClosure, "", ""},
		{"short", frame.GoingAway, "bye", "bye"},
		{"application's code", 4999, "bye", "bye"},
		{"exactly the limit", frame.TryAgainLater, long, long},
		{"beyond the limit", frame.TryAgainLater, long + "b", long},
		{"far beyond the limit", frame.TryAgainLater, strings.Repeat(long, 50), long},
		{"a rune that ends at the limit", frame.NormalClosure, long[2:] + "é", long[2:] + "é"},
		{"a rune that crosses the limit", frame.NormalClosure, long[1:] + "é", long[1:]},
		{"four bytes that cross the limit", frame.NormalClosure, long[3:] + "😀", long[3:]},
		{"not UTF-8", frame.NormalClosure, "a\xffb", "a\ufffdb"},
		{"not UTF-8, too long when replaced", frame.NormalClosure, long[1:] + "\xff", long[1:]},
		{"half a rune at the end", frame.NormalClosure, "a\xe2\x82", "a\ufffd"},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			wire := frame.AppendClose([]byte("held"), r.code, r.reason)
			h, payload := readBack(t, wire[4:])
			if string(wire[:4]) != "held" || h.OpCode != ws.OpClose || h.Masked {
				t.Errorf("%q, header %+v", wire[:4], h)
			}
			code, reason := frame.ParseClose(payload)
			if code != r.code || string(reason) != r.want {
				t.Errorf("got %d %q, want %d %q", code, reason, r.code, r.want)
			}
		})
	}
}

func TestAppendCloseLeavesOutWhatMayNotBeSent(t *testing.T) {
	for code := range frame.Code(5101) {
		payload := frame.AppendClosePayload(nil, code, "why")
		if sent := len(payload) > 0; sent != sendable(code) {
			t.Errorf("code %d: payload %q", code, payload)
		}
		if wire := frame.AppendClose(nil, code, "why"); !bytes.HasSuffix(wire, payload) || len(wire) != 2+len(payload) {
			t.Errorf("code %d: frame %q, payload %q", code, wire, payload)
		}
	}
}

func FuzzAppendClose(f *testing.F) {
	f.Add(uint16(1000), "bye")
	f.Add(uint16(1005), "never sent")
	f.Add(uint16(4000), strings.Repeat("é", 70))
	f.Add(uint16(3000), strings.Repeat("\xff.", 70))
	f.Fuzz(func(t *testing.T, code uint16, reason string) {
		events, err := read(t, fromServer.parser(0), atOnce(frame.AppendClose(nil, frame.Code(code), reason)))
		if err != nil || len(events) != 1 {
			t.Fatalf("%q, error %v", events, err)
		}
		payload := frame.AppendClosePayload(nil, frame.Code(code), reason)
		_, got := frame.ParseClose(payload)
		if utf8.ValidString(reason) && !strings.HasPrefix(reason, string(got)) {
			t.Errorf("%q became %q", reason, got)
		}
	})
}

func TestAppendDoesNotAllocateWhatDstHolds(t *testing.T) {
	dst := make([]byte, 0, 1<<10)
	payload := make([]byte, 500)
	rows := map[string]func(){
		"Append":             func() { frame.Append(dst, frame.Binary, payload) },
		"AppendHeader":       func() { frame.AppendHeader(dst, frame.Binary, 1<<40) },
		"AppendMasked":       func() { frame.AppendMasked(dst, frame.Binary, [4]byte{1, 2, 3, 4}, payload) },
		"AppendClose":        func() { frame.AppendClose(dst, frame.GoingAway, "the server is going away") },
		"AppendClosePayload": func() { frame.AppendClosePayload(dst, frame.GoingAway, "the server is going away") },
	}
	for name, call := range rows {
		if allocs := testing.AllocsPerRun(100, call); allocs != 0 {
			t.Errorf("%s: %v allocations", name, allocs)
		}
	}
}
