package proxy

import (
	"net/netip"
	"strings"
	"testing"
)

func TestClient(t *testing.T) {
	trust, err := ParseTrust([]string{"10.0.0.0/8", "192.168.1.1", "fd00::/8"})
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		field Field
		peer  string
		lines string // separated by |
		want  string
	}{
		// Nobody is believed who is not trusted.
		{XForwardedFor, "203.0.113.1", "192.0.2.1", "203.0.113.1"},
		{Forwarded, "203.0.113.1", "for=192.0.2.1", "203.0.113.1"},
		{XForwardedFor, "192.168.1.2", "192.0.2.1", "192.168.1.2"},

		// One proxy, several, several lines.
		{XForwardedFor, "10.0.0.1", "", "10.0.0.1"},
		{XForwardedFor, "10.0.0.1", "192.0.2.1", "192.0.2.1"},
		{XForwardedFor, "::ffff:10.0.0.1", "192.0.2.1", "192.0.2.1"},
		{XForwardedFor, "192.168.1.1", "2001:db8::1", "2001:db8::1"},
		{XForwardedFor, "fd00::1", "[2001:db8::1]", "2001:db8::1"},
		{XForwardedFor, "10.0.0.1", "192.0.2.1, 10.0.0.3,10.0.0.2 ", "192.0.2.1"},
		{XForwardedFor, "10.0.0.1", "192.0.2.1|10.0.0.3|10.0.0.2", "192.0.2.1"},
		{XForwardedFor, "10.0.0.1", "192.0.2.1, ::ffff:10.0.0.2", "192.0.2.1"},
		{XForwardedFor, "10.0.0.1", "10.0.0.3, 10.0.0.2", "10.0.0.3"},
		{XForwardedFor, "10.0.0.1", "192.0.2.1:4711", "192.0.2.1"},
		{XForwardedFor, "10.0.0.1", "[2001:db8::1]:4711", "2001:db8::1"},
		{XForwardedFor, "10.0.0.1", ",192.0.2.1, ,,", "192.0.2.1"},

		// What the client has made up is further left.
		{XForwardedFor, "10.0.0.1", "198.51.100.9, 192.0.2.1", "192.0.2.1"},
		{XForwardedFor, "10.0.0.1", "198.51.100.9, 192.0.2.1, 10.0.0.2", "192.0.2.1"},
		{XForwardedFor, "10.0.0.1", "198.51.100.9|192.0.2.1", "192.0.2.1"},
		{XForwardedFor, "10.0.0.1", "10.0.0.9, 192.0.2.1", "192.0.2.1"},
		{XForwardedFor, "10.0.0.1", `"198.51.100.9, 192.0.2.1`, "192.0.2.1"},

		// What is malformed ends the search at who wrote it.
		{XForwardedFor, "10.0.0.1", "unknown", "10.0.0.1"},
		{XForwardedFor, "10.0.0.1", "198.51.100.9, unknown", "10.0.0.1"},
		{XForwardedFor, "10.0.0.1", "198.51.100.9, x, 10.0.0.2", "10.0.0.2"},
		{XForwardedFor, "10.0.0.1", "192.0.2.01", "10.0.0.1"},
		{XForwardedFor, "10.0.0.1", "192.0.2.1:x", "10.0.0.1"},
		{XForwardedFor, "10.0.0.1", "192.0.2.1:65536", "10.0.0.1"},
		{XForwardedFor, "10.0.0.1", "fe80::1%eth0", "10.0.0.1"},
		{XForwardedFor, "10.0.0.1", "[fe80::1%eth0]:1", "10.0.0.1"},
		{XForwardedFor, "10.0.0.1", "[192.0.2.1]", "10.0.0.1"},
		{XForwardedFor, "10.0.0.1", "192.0.2.1 198.51.100.9", "10.0.0.1"},
		{XForwardedFor, "10.0.0.1", strings.Repeat("1", 1000), "10.0.0.1"},

		{Forwarded, "10.0.0.1", "for=192.0.2.1", "192.0.2.1"},
		{Forwarded, "10.0.0.1", "For=192.0.2.1;proto=https;by=10.0.0.1", "192.0.2.1"},
		{Forwarded, "10.0.0.1", ` proto=https ; for="192.0.2.1:4711" `, "192.0.2.1"},
		{Forwarded, "10.0.0.1", `for="[2001:db8::1]:4711"`, "2001:db8::1"},
		{Forwarded, "10.0.0.1", `for=192.0.2.1, for=10.0.0.3;by=10.0.0.2|for="10.0.0.2"`, "192.0.2.1"},
		{Forwarded, "10.0.0.1", "for=198.51.100.9, for=192.0.2.1", "192.0.2.1"},
		{Forwarded, "10.0.0.1", `for=192.0.2.1;host="a,for=198.51.100.9;b"`, "192.0.2.1"},
		{Forwarded, "10.0.0.1", `for=192.0.2.1;host="\",for=198.51.100.9;x=\""`, "192.0.2.1"},
		{Forwarded, "10.0.0.1", `for=192.0.2.1;host="\\"`, "192.0.2.1"},
		{Forwarded, "10.0.0.1", "for=unknown", "10.0.0.1"},
		{Forwarded, "10.0.0.1", "for=198.51.100.9, for=_hidden, for=10.0.0.2", "10.0.0.2"},
		{Forwarded, "10.0.0.1", "for=198.51.100.9, proto=https", "10.0.0.1"},
		{Forwarded, "10.0.0.1", "for=192.0.2.1;for=198.51.100.9", "10.0.0.1"},
		{Forwarded, "10.0.0.1", "for", "10.0.0.1"},
		{Forwarded, "10.0.0.1", "for=", "10.0.0.1"},
		{Forwarded, "10.0.0.1", `for="`, "10.0.0.1"},
		{Forwarded, "10.0.0.1", `for=""`, "10.0.0.1"},
		{Forwarded, "10.0.0.1", "192.0.2.1", "10.0.0.1"},
		{Forwarded, "10.0.0.1", `for="192.0.2.1`, "10.0.0.1"},

		// A quote that the client leaves open.
		{Forwarded, "10.0.0.1", `for=198.51.100.9;x=", for=192.0.2.1`, "192.0.2.1"},
		{Forwarded, "10.0.0.1", `for=198.51.100.9;x=", for="192.0.2.1"`, "192.0.2.1"},
		{Forwarded, "10.0.0.1", `x=", for=192.0.2.1;host=";for=198.51.100.9;y="`, "192.0.2.1"},
		{Forwarded, "10.0.0.1", `for=198.51.100.9;x="|for=192.0.2.1`, "192.0.2.1"},
	} {
		var lines [][]byte
		for line := range strings.SplitSeq(test.lines, "|") {
			lines = append(lines, []byte(line))
		}
		if got := trust.Client(netip.MustParseAddr(test.peer), test.field, lines...); got != netip.MustParseAddr(test.want) {
			t.Errorf("%s: %s from %s: %v, want %v", test.field, test.lines, test.peer, got, test.want)
		}
	}
}

func TestTrust(t *testing.T) {
	trust, err := ParseTrust([]string{"10.1.2.3/8", "::ffff:192.0.2.1", "2001:db8::/32"})
	if err != nil {
		t.Fatal(err)
	}
	for address, want := range map[string]bool{
		"10.255.0.1": true, "::ffff:10.0.0.1": true, "11.0.0.1": false, "192.0.2.1": true, "192.0.2.2": false,
		"2001:db8:1::1": true, "2001:db8:1::1%eth0": true, "2001:db9::1": false,
	} {
		if trust.Has(netip.MustParseAddr(address)) != want {
			t.Errorf("%s: trusted is not %v", address, want)
		}
	}
	if trust.Has(netip.Addr{}) || Trust(nil).Has(netip.MustParseAddr("10.0.0.1")) {
		t.Error("somebody is trusted who was not named")
	}
	for _, wrong := range []string{"", "x", "10.0.0.0/33", "10.0.0/8", "::ffff:10.0.0.0/104", "fe80::1%eth0/64", "localhost"} {
		if _, err := ParseTrust([]string{wrong}); err == nil || !strings.Contains(err.Error(), "10.0.0.0/8") {
			t.Errorf("%q: %v", wrong, err)
		}
	}
}

// Whatever the client sends, in either header, it is who the proxy says.
func FuzzClient(f *testing.F) {
	for _, seed := range []string{"", "198.51.100.9", `for=198.51.100.9;x="`, `"`, `\`, `x="\`, ",", "for=10.0.0.2", "10.0.0.2"} {
		f.Add(seed, seed)
	}
	trust, _ := ParseTrust([]string{"10.0.0.0/8"})
	proxy, client := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("192.0.2.1")
	f.Fuzz(func(t *testing.T, sent, host string) {
		if got := trust.Client(proxy, XForwardedFor, []byte(sent+", 192.0.2.1")); got != client {
			t.Fatalf("X-Forwarded-For: %q: %v", sent, got)
		}
		if got := trust.Client(client, XForwardedFor, []byte(sent)); got != client {
			t.Fatalf("X-Forwarded-For: %q of no proxy: %v", sent, got)
		}
		quoted := strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(host)
		for _, added := range []string{"for=192.0.2.1", `for="192.0.2.1:80";proto=http`, `for=192.0.2.1;host="` + quoted + `"`, `host="` + quoted + `";for=192.0.2.1`} {
			for _, lines := range [][][]byte{{[]byte(sent + ", " + added)}, {[]byte(sent), []byte(added)}} {
				if got := trust.Client(proxy, Forwarded, lines...); got != client {
					t.Fatalf("Forwarded: %q: %v", lines, got)
				}
			}
		}
	})
}

func BenchmarkClient(b *testing.B) {
	trust, _ := ParseTrust([]string{"10.0.0.0/8"})
	proxy := netip.MustParseAddr("10.0.0.1")
	for f, line := range map[Field][]byte{XForwardedFor: []byte("192.0.2.1, 10.0.0.2"), Forwarded: []byte(`for=192.0.2.1;proto=https, for="10.0.0.2"`)} {
		b.Run(f.String(), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				trust.Client(proxy, f, line)
			}
		})
	}
}
