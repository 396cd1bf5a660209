package gate

import (
	"net/url"
	"strings"
	"testing"
)

func TestOrigins(t *testing.T) {
	for _, test := range []struct {
		patterns string
		host     string
		origin   string
		want     bool
	}{
		// The server's own host.
		{"", "a.test", "https://a.test", true},
		{"", "a.test", "http://a.test", true},
		{"", "A.Test", "HTTPS://a.tEST", true},
		{"", "a.test:443", "https://a.test", true},
		{"", "a.test", "https://a.test:443", true},
		{"", "a.test:80", "http://a.test", true},
		{"", "a.test:80", "https://a.test", false},
		{"", "a.test:8080", "http://a.test:8080", true},
		{"", "a.test:8080", "http://a.test", false},
		{"", "a.test", "http://a.test:8080", false},
		{"", "a.test", "https://b.test", false},
		{"", "a.test", "https://x.a.test", false},
		{"", "a.test", "https://a.test.", false},
		{"", "a.test.", "https://a.test.", true},
		{"", "[::1]:8080", "http://[::1]:8080", true},
		{"", "[::1]", "http://[::1]", true},
		{"", "[::1]", "http://[::2]", false},
		{"", "192.0.2.1:80", "http://192.0.2.1", true},
		{"", "xn--bcher-kva.test", "https://xn--bcher-kva.test", true},

		// What browsers do not send.
		{"", "a.test", "", false},
		{"", "a.test", "null", false},
		{"", "null", "null", false},
		{"", "a.test", "a.test", false},
		{"", "a.test", "//a.test", false},
		{"", "a.test", "ftp://a.test", false},
		{"", "a.test", "https://a.test/", false},
		{"", "a.test", "https://a.test/chat", false},
		{"", "a.test", "https://a.test?", false},
		{"", "a.test", "https://a.test#", false},
		{"", "a.test", "https://evil.test#a.test", false},
		{"", "a.test", "https://me@a.test", false},
		{"", "a.test", "https://a.test@evil.test", false},
		{"", "a.test", "https://a.test:443@evil.test", false},
		{"", "a.test", "https://evil.test https://a.test", false},
		{"", "a.test", "https://evil.test, https://a.test", false},
		{"", "a.test", " https://a.test", false},
		{"", "a.test", "https://a.test\x00", false},
		{"", "a.test", "https://a%2etest", false},
		{"", "a.test", "https://a.test:", false},
		{"", "a.test", "https://a.test:0", false},
		{"", "a.test:65536", "https://a.test:65536", false},
		{"", "a.test", "https://a.test:4 3", false},
		{"", "a.test", "https://", false},
		{"", "", "https://", false},
		{"", "[::1", "http://[::1", false},
		{"", "[]", "http://[]", false},
		{"", "[::1%lo]", "http://[::1%lo]", false},
		{"", "bücher.test", "https://bücher.test", false},
		{"", "k.test", "https://\u212a.test", false}, // folds to k
		{"", "me@a.test", "https://a.test", false},

		// Listed beside the server's own.
		{"https://chat.test", "a.test", "https://a.test", true},
		{"https://chat.test", "a.test", "https://chat.test", true},
		{"HTTPS://Chat.test:443", "a.test", "https://chat.test", true},
		{"https://chat.test", "a.test", "http://chat.test", false},
		{"https://chat.test", "a.test", "https://chat.test:8443", false},
		{"https://chat.test:8443", "a.test", "https://chat.test:8443", true},
		{"chat.test", "a.test", "https://chat.test", true},
		{"chat.test", "a.test", "http://chat.test", true},
		{"chat.test", "a.test", "http://chat.test:3000", false},
		{"chat.test", "a.test", "app://chat.test", false},
		{"localhost:5173", "a.test", "http://localhost:5173", true},
		{"app://localhost", "a.test", "app://localhost", true},
		{"chrome-extension://abcdef", "a.test", "chrome-extension://abcdef", true},
		{"[2001:db8::1]:8080", "a.test", "http://[2001:db8::1]:8080", true},
		{"*.example.com", "a.test", "https://chat.example.com", true},
		{"*.example.com", "a.test", "https://a.b.Example.com", true},
		{"*.example.com", "a.test", "https://example.com", false},
		{"*.example.com", "a.test", "https://.example.com", false},
		{"*.example.com", "a.test", "https://evilexample.com", false},
		{"*.example.com", "a.test", "https://chat.example.com.evil.test", false},
		{"*.example.com", "a.test", "https://chat.example.com:8443", false},
		{"*.example.com:8443", "a.test", "https://chat.example.com:8443", true},
		{"https://*.example.com", "a.test", "http://chat.example.com", false},
		{"x.test https://*.example.com", "a.test", "https://chat.example.com", true},
		{"any", "a.test", "https://evil.test", true},
		{"chat.test any", "a.test", "null", true},
	} {
		o, err := ParseOrigins(strings.Fields(test.patterns))
		if err != nil {
			t.Error(err)
		} else if got := o.Allow([]byte(test.host), []byte(test.origin)); got != test.want {
			t.Errorf("patterns %q, host %q, origin %q: %v", test.patterns, test.host, test.origin, got)
		}
	}
}

func TestARequestHasNoOriginOrOne(t *testing.T) {
	anyone, _ := ParseOrigins([]string{"any"})
	own, other := []byte("https://a.test"), []byte("https://b.test")
	for _, o := range []*Origins{nil, {}, anyone} {
		if !o.Allow(own[8:]) || !o.Allow(own[8:], own) || o.Allow(own[8:], own, own) || o.Allow(own[8:], other, own) {
			t.Errorf("%v: none and one of its own are allowed, and no more", o)
		}
	}
}

func TestPatternsThatAreNoneSayWhatIsWrong(t *testing.T) {
	for pattern, says := range map[string]string{
		"":                         "should be a host",
		"*":                        `write "any"`,
		"null":                     "sandboxed",
		"https://*":                "*.example.com",
		"chat*.example.com":        "*.example.com",
		"*.*.example.com":          "*.example.com",
		"*.":                       "should be a host",
		"*.[::1]":                  "no subdomains",
		"https://chat.test/":       "no path",
		"chat.test/x":              "no path",
		"https://me@chat.test":     "should be a host",
		"chat.test:99999":          "should be a host",
		"http s://chat.test":       "no scheme",
		"://chat.test":             "no scheme",
		"https://bücher.test":      "xn--",
		"a.test,b.test":            "should be a host",
		"https://https://chat.com": "no path",
	} {
		if _, err := ParseOrigins([]string{"fine.test", pattern}); err == nil || !strings.Contains(err.Error(), says) || !strings.Contains(err.Error(), `"`+pattern+`"`) {
			t.Errorf("%q: %v, want it to say %q", pattern, err, says)
		}
	}
	if o, err := ParseOrigins([]string{"*.a.test:1", "app://b", "any"}); err != nil || o.String() != "own *.a.test:1 app://b any" {
		t.Errorf("%v, %v", o, err)
	}
}

func TestDecidingAboutAnOriginDoesNotAllocate(t *testing.T) {
	o, _ := ParseOrigins([]string{"https://x.test", "*.example.com"})
	host, from := []byte("a.test"), []byte("https://chat.example.com")
	if n := testing.AllocsPerRun(100, func() {
		if !o.Allow(host, from) {
			t.Fatal("refused")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// What is allowed as the server's own is so by net/url too.
func FuzzOrigins(f *testing.F) {
	for _, seed := range [][2]string{
		{"a.test", "https://a.test"}, {"a.test:80", "http://a.test"}, {"[::1]:8080", "http://[::1]:8080"},
		{"a.test", "https://a.test@evil.test"}, {"x.example.com", "https://y.example.com:443"}, {"", "null"},
	} {
		f.Add(seed[0], seed[1])
	}
	subdomains, _ := ParseOrigins([]string{"*.example.com"})
	f.Fuzz(func(t *testing.T, host, from string) {
		var own *Origins
		byHost, byPattern := own.Allow([]byte(host), []byte(from)), subdomains.Allow([]byte(host), []byte(from))
		if byHost && !byPattern {
			t.Fatal("a list of others takes the server's own away")
		}
		if !byPattern {
			return
		}
		u, err := url.Parse(from)
		if err != nil || u.User != nil || u.Path != "" || u.RawQuery != "" || u.Fragment != "" {
			t.Fatalf("%q is allowed and no origin: %v", from, err)
		}
		h, err := url.Parse(u.Scheme + "://" + host)
		if byHost && (err != nil || !strings.EqualFold(h.Hostname(), u.Hostname())) {
			t.Fatalf("%q is not at %q", from, host)
		}
		if !byHost && !strings.HasSuffix(strings.ToLower(u.Hostname()), ".example.com") {
			t.Fatalf("%q is no subdomain", from)
		}
	})
}

func BenchmarkOrigins(b *testing.B) {
	o, _ := ParseOrigins([]string{"https://x.test", "*.example.com"})
	host, from := []byte("a.test"), []byte("https://chat.example.com")
	b.ReportAllocs()
	for b.Loop() {
		o.Allow(host, from)
	}
}
