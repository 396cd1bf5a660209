package proxy

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/pires/go-proxyproto"
)

// binaryHead is a head of version 2.
func binaryHead(command, family byte, rest ...byte) string {
	b := append([]byte(proxyproto.SIGV2), command, family)
	return string(append(binary.BigEndian.AppendUint16(b, uint16(len(rest))), rest...))
}

var (
	four = []byte{192, 0, 2, 1, 10, 0, 0, 1, 0xdc, 0x04, 0x01, 0xbb} // ports 56324, 443
	six  = append(append(netip.MustParseAddr("2001:db8::1").AsSlice(), netip.MustParseAddr("::ffff:10.0.0.1").AsSlice()...), four[8:]...)
)

func with(b []byte, more ...byte) []byte { return append(bytes.Clone(b), more...) }

func TestHeads(t *testing.T) {
	const to = " -> 10.0.0.1:443"
	for name, test := range map[string]struct{ head, want string }{
		"version 1, IPv4":               {"PROXY TCP4 192.0.2.1 10.0.0.1 56324 443\r\n", "192.0.2.1:56324" + to},
		"version 1, IPv6":               {"PROXY TCP6 2001:db8::1 ::ffff:10.0.0.1 56324 443\r\n", "[2001:db8::1]:56324" + to},
		"version 1, mapped":             {"PROXY TCP6 ::ffff:192.0.2.1 10.0.0.1 56324 443\r\n", "192.0.2.1:56324" + to},
		"version 1, unknown":            {"PROXY UNKNOWN\r\n", "nothing"},
		"version 1, unknown with words": {"PROXY UNKNOWN ffff::ffff ffff::ffff 65535 65535\r\n", "nothing"},
		"version 1, the longest":        {"PROXY UNKNOWN" + strings.Repeat(" ", 92) + "\r\n", "nothing"},
		"version 1, too long":           {"PROXY UNKNOWN" + strings.Repeat(" ", 93) + "\r\n", "exceeds 107"},
		"version 1, another family":     {"PROXY TCP5 192.0.2.1 10.0.0.1 56324 443\r\n", "address family"},
		"version 1, a wrong address":    {"PROXY TCP4 192.0.2.256 10.0.0.1 56324 443\r\n", "invalid address"},
		"version 1, a wrong family":     {"PROXY TCP4 2001:db8::1 10.0.0.1 56324 443\r\n", "invalid address"},
		"version 1, a wrong port":       {"PROXY TCP4 192.0.2.1 10.0.0.1 65536 443\r\n", "invalid port"},
		"version 1, a word too many":    {"PROXY TCP4 192.0.2.1 10.0.0.1 56324 443 x\r\n", "is not"},
		"version 1, a word missing":     {"PROXY TCP4 192.0.2.1 10.0.0.1 56324\r\n", "is not"},
		"version 1, LF alone":           {"PROXY TCP4 192.0.2.1 10.0.0.1 56324 443\n", "end with"},
		"version 1, lower case":         {"proxy TCP4 192.0.2.1 10.0.0.1 56324 443\r\n", "does not begin"},

		"version 2, IPv4":                   {binaryHead(0x21, 0x11, four...), "192.0.2.1:56324" + to},
		"version 2, IPv6":                   {binaryHead(0x21, 0x21, six...), "[2001:db8::1]:56324" + to},
		"version 2, TLVs":                   {binaryHead(0x21, 0x11, with(four, 0x04, 0, 3, 0, 0, 0, 0xea, 0, 0)...), "192.0.2.1:56324" + to},
		"version 2, a TLV cut off":          {binaryHead(0x21, 0x11, with(four, 0x02, 0, 9, 'a')...), "truncated"},
		"version 2, local":                  {binaryHead(0x20, 0x00), "nothing"},
		"version 2, local with address":     {binaryHead(0x20, 0x11, four...), "nothing"},
		"version 2, local with nonsense":    {binaryHead(0x20, 0x77, 1, 2, 3), "nothing"},
		"version 2, Unix socket":            {binaryHead(0x21, 0x31, make([]byte, 216)...), "nothing"},
		"version 2, a family not specified": {binaryHead(0x21, 0x00), "unsupported address family"},
		"version 2, datagrams":              {binaryHead(0x21, 0x12, four...), "datagrams"},
		"version 2, too short":              {binaryHead(0x21, 0x11, four[:11]...), "length"},
		"version 2, another command":        {binaryHead(0x22, 0x11, four...), "command"},
		"version 2, another version":        {binaryHead(0x31, 0x11, four...), "command"},
		"version 2, the longest":            {binaryHead(0x21, 0x11, with(four, append([]byte{0x04, 0x0f, 0xe1}, make([]byte, 0x0fe1)...)...)...), "192.0.2.1:56324" + to},
		"version 2, too long":               {binaryHead(0x21, 0x11, make([]byte, HeadMax-15)...), "4097 bytes"},

		"a request":           {"GET / HTTP/1.1\r\n", "does not begin"},
		"a request with P":    {"PUT / HTTP/1.1\r\n", "does not begin"},
		"TLS":                 {"\x16\x03\x01\x02\x00", "does not begin"},
		"almost version 2":    {"\r\n\r\n\x00\r\nQUIT\r\r", "does not begin"},
		"empty lines, a head": {"\r\nGET / HTTP/1.1\r\n", "does not begin"},
	} {
		// Whatever has come of it, the answer is the same in the end and not wrong before.
		for _, behind := range []string{"", "GET / HTTP/1.1\r\n\r\n"} {
			all := test.head + behind
			for n := range len(all) + 1 {
				h, used, err := ParseHead([]byte(all[:n]))
				switch got := told(h, used, err); {
				case got == "more" && n < len(test.head):
				case !strings.Contains(got, test.want):
					t.Fatalf("%s, %d bytes: %s, want %s", name, n, got, test.want)
				case err == nil && used != len(test.head):
					t.Fatalf("%s: takes %d bytes of %d", name, used, len(test.head))
				}
			}
		}
	}
}

// told is ParseHead's answer in words.
func told(h Head, n int, err error) string {
	switch {
	case err != nil:
		return err.Error()
	case n == 0:
		return "more"
	case h == Head{}:
		return "nothing"
	}
	return h.Source.String() + " -> " + h.Destination.String()
}

func TestWhatIsNoHeadHasItsOwnError(t *testing.T) {
	if _, _, err := ParseHead([]byte("GET ")); !errors.Is(err, ErrNoHead) {
		t.Error(err)
	}
	if _, _, err := ParseHead([]byte("PROXY TCP4\r\n")); err == nil || errors.Is(err, ErrNoHead) {
		t.Error(err)
	}
}

// No more than HeadMax bytes are asked for, a longer piece gives the same as a shorter
// one, and what is parsed is what the library writes.
func FuzzHead(f *testing.F) {
	f.Add([]byte("PROXY TCP4 192.0.2.1 10.0.0.1 56324 443\r\nGET"))
	f.Add([]byte("PROXY UNKNOWN\r\n"))
	f.Add([]byte(binaryHead(0x21, 0x11, four...)))
	f.Add([]byte(binaryHead(0x21, 0x21, with(six, 0x04, 0, 0)...)))
	f.Add([]byte(binaryHead(0x20, 0x00)))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, n, err := ParseHead(b)
		if n < 0 || n > len(b) || n > HeadMax || err != nil && n != 0 {
			t.Fatalf("%d of %d bytes, %v", n, len(b), err)
		}
		if n == 0 && err == nil && len(b) >= HeadMax {
			t.Fatalf("%d bytes are not enough", len(b))
		}
		if n == 0 {
			return
		}
		for i := range n {
			if _, less, err := ParseHead(b[:i]); less != 0 || err != nil {
				t.Fatalf("%d bytes of %d: %d, %v", i, n, less, err)
			}
		}
		if h == (Head{}) {
			return
		}
		again, err := proxyproto.HeaderProxyFromAddrs(b[0]&1+1, net.TCPAddrFromAddrPort(h.Source), net.TCPAddrFromAddrPort(h.Destination)).Format()
		if err != nil {
			return // it has mixed families
		}
		if h2, _, err := ParseHead(again); err != nil || h2 != h && h2 != (Head{}) {
			t.Fatalf("%v, and written and parsed again %v, %v", h, h2, err)
		}
	})
}

func BenchmarkHead(b *testing.B) {
	for name, head := range map[string]string{"1": "PROXY TCP4 192.0.2.1 10.0.0.1 56324 443\r\n", "2": binaryHead(0x21, 0x11, four...)} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				ParseHead([]byte(head))
			}
		})
	}
}
