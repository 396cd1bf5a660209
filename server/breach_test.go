package server_test

import (
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/server"
)

const (
	text   = byte(frame.Text)
	binary = byte(frame.Binary)
	ping   = byte(frame.Ping)

	rsv1, rsv2, rsv3 = 0x40, 0x20, 0x10
)

// declares is the header of a masked frame with a 64-bit length, and a part of its
// payload.
func declares(b byte, length uint64, payload string) string {
	header := []byte{b, 0x80 | 127}
	for i := 7; i >= 0; i-- {
		header = append(header, byte(length>>(8*i)))
	}
	return string(header) + "\x00\x00\x00\x00" + payload
}

// smallest is MaxMessage in the tests of violations.
const smallest = 1000

func TestViolationsOfTheProtocol(t *testing.T) {
	rows := []struct {
		name string
		wire string
		code frame.Code
	}{
		{"an unmasked frame", string(frame.Append(nil, frame.Text, []byte("hello"))), 1002},
		{"an unmasked ping", string(frame.Append(nil, frame.Ping, nil)), 1002},
		{"reserved bit 1", piece(fin|rsv1|text, "hello"), 1002},
		{"reserved bit 2", piece(fin|rsv2|binary, "hello"), 1002},
		{"reserved bit 3", piece(fin|rsv3|ping, ""), 1002},
		{"a reserved opcode", piece(fin|3, "hello"), 1002},
		{"a reserved control opcode", piece(fin|0xb, ""), 1002},
		{"a continuation of nothing", piece(fin, "hello"), 1002},
		{"a message within a message", piece(text, "hel") + piece(fin|text, "hello"), 1002},
		{"a control frame that is too long", piece(fin|ping, xs(126)), 1002},
		{"a control frame in fragments", piece(ping, "hel"), 1002},
		{"a length that is not minimal", declares(fin|binary, 5, "hello"), 1002},
		{"a length with its highest bit set", declares(fin|binary, 1<<63, ""), 1002},
		{"HTTP", request, 1002},

		{"a message of one byte too many", message(frame.Binary, xs(smallest+1)), 1009},
		{"fragments of one byte too many", fragments(frame.Binary, xs(smallest+1), 100), 1009},
		{"a giant length", declares(fin|binary, 1<<62, "hello"), 1009},
		{"a giant fragment", piece(binary, "hello") + declares(fin, 1<<63-1, ""), 1009},

		{"text that is not UTF-8", message(frame.Text, "hello\xff"), 1007},
		{"a surrogate", message(frame.Text, "\xed\xa0\x80"), 1007},
		{"an overlong rune", message(frame.Text, "\xc0\xaf"), 1007},
		{"half a rune at the end", message(frame.Text, "κόσμε"[:9]), 1007},
		{"a bad byte in a message that has not ended", piece(fin|text, "hello\xff"+xs(500))[:100], 1007},
		{"a bad byte in a first fragment", piece(text, "hello\xff"), 1007},
		{"a bad byte that continues a rune of another fragment", piece(text, "\xce") + piece(0, "x"), 1007},

		{"Close with one byte", message(frame.Close, "x"), 1002},
		{"Close with code 0", message(frame.Close, "\x00\x00"), 1002},
		{"Close with code 999", message(frame.Close, "\x03\xe7"), 1002},
		{"Close with code 1004", message(frame.Close, "\x03\xec"), 1002},
		{"Close with code 1005", message(frame.Close, "\x03\xed"), 1002},
		{"Close with code 1006", message(frame.Close, "\x03\xee"), 1002},
		{"Close with code 1015", message(frame.Close, "\x03\xf7"), 1002},
		{"Close with code 2999", message(frame.Close, "\x0b\xb7"), 1002},
		{"Close with code 5000", message(frame.Close, "\x13\x88"), 1002},
		{"Close with a reason that is not UTF-8", message(frame.Close, "\x03\xe8\xff"), 1007},
		{"Close with a payload that is too long", message(frame.Close, "\x03\xe8"+xs(124)), 1002},
	}
	counters := map[frame.Code]string{1002: "closed_protocol", 1007: "closed_utf8", 1009: "closed_too_big"}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			onBothTables(t, func(t *testing.T, o server.Options) {
				h := echo
				var told <-chan ending
				h.Close, told = endings()
				o.MaxMessage = smallest
				s := start(t, h, o)
				bystander := s.open()
				c := s.open()
				// A message and a Ping after the violation are ignored.
				c.write(row.wire + message(frame.Text, "more") + message(frame.Ping, ""))
				if reason := c.expectClose(row.code); reason == "" {
					t.Error("Close says no reason")
				}
				c.expectEnd()
				expectEnding(t, told, row.code, &frame.Error{Code: row.code})
				s.log.one(t, "WARN connection closed", fmt.Sprintf("code=%d", row.code), "cause=", "conn=0x")
				bystander.echoed("hello")
				s.counted(counters[row.code], 1)
				s.counted("messages_in", 1)
				if n := s.Stats().Open; n != 1 {
					t.Errorf("%d connections are open", n)
				}
			})
		})
	}
}

// The first bad byte of a text ends the connection, before the rest of the text has
// arrived.
func TestBadTextIsFoundAsItArrives(t *testing.T) {
	onBothTables(t, func(t *testing.T, o server.Options) {
		c := start(t, echo, o).open()
		wire := piece(fin|text, strings.Repeat("κόσμε", 100)+"\xff"+xs(100))
		c.write(wire[:400])
		c.write(wire[400:1000])
		c.write(wire[1000 : len(wire)-99])
		c.expectClose(frame.InvalidPayload)
		c.expectEnd()
	})
}

// The server allocates memory for bytes that have arrived, not for declared ones.
func TestDeclaredLengthsReserveNothing(t *testing.T) {
	const peers = 200
	heap := func() int64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	rows := []struct {
		name string
		wire string
		code frame.Code // of the Close frame, zero for none
	}{
		{"more than is allowed", declares(fin|binary, 1<<62, ""), frame.MessageTooBig},
		{"all that is allowed", declares(fin|binary, largest, "x"), 0},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			s := start(t, echo, roomy(server.Options{}))
			all := s.openMany(peers)
			before := heap()
			for _, c := range all {
				c.write(row.wire)
				if row.code != 0 {
					c.expectClose(row.code)
				} else {
					c.write("x")
				}
			}
			all[0].t = t
			s.open().echoed("the server has read so far")
			if grown := heap() - before; grown > peers*(16<<10) {
				t.Errorf("%d peers cost %d bytes", peers, grown)
			}
			runtime.KeepAlive(all)
		})
	}
}
