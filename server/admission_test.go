package server_test

import (
	"crypto/tls"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/server"
)

// An address has so many connections, however they come and end, and the next one
// when one of them has ended.
func TestAnAddressHasALimit(t *testing.T) {
	everywhere(t, func(t *testing.T, o server.Options) {
		o.MaxConnsPerAddress = 3
		h := echo
		h.Upgrade = func(r *server.Request) error {
			if r.Path() == "/no" {
				return &server.Reject{Status: 404, Reason: "no"}
			}
			return nil
		}
		s := start(t, h, o)
		site := beside(t, s)
		refused := func(what string) {
			t.Helper()
			c := s.dial()
			if r, _ := c.response(); r.StatusCode != http.StatusTooManyRequests || r.Header.Get("Retry-After") == "" {
				t.Errorf("%s: answered %s", what, r.Status)
			}
			c.Close()
		}
		for range 5 {
			first, second, third := s.open(), s.open(), dialTo(t, site.Listener.Addr().String())
			third.write(besideRequest)
			third.accepted()
			third.echoed("by way of net/http")
			refused("the fourth")
			first.leave()
			again := s.dial()
			again.write(swap("GET / ", "GET /no "))
			if r, _ := again.response(); r.StatusCode != 404 {
				t.Errorf("answered %s", r.Status)
			}
			again.Close()
			eventually(t, "the rejected one is counted", func() bool { return s.Stats().Sockets <= 2 })
			fifth := s.open()
			refused("the sixth")
			second.reset()
			third.reset()
			fifth.reset()
			eventually(t, "sockets are left", func() bool { return s.Stats().Sockets == 0 })
		}
		if n := s.Stats().RefusedBy["address_connections"]; n != 10 {
			t.Errorf("%d were refused", n)
		}
	})
}

// With TLS nobody is answered, but counted, before the handshake costs anything.
func TestAnAddressHasALimitOverTLS(t *testing.T) {
	onBothTables(t, func(t *testing.T, o server.Options) {
		config := secure(&o)
		o.MaxConnsPerAddress = 1
		s := start(t, echo, o)
		c := s.wss(config)
		_, err := io.WriteString(c, request)
		must(err)
		readHead(t, c)
		if c, err := tls.Dial("tcp", s.address(), config); err == nil {
			c.Close()
			t.Error("the second was let in")
		}
		if n := s.Stats().RefusedBy["address_connections"]; n != 1 {
			t.Errorf("%d were refused", n)
		}
		s.counted("tls_handshakes", 1)
	})
}

func TestHandshakesHaveARate(t *testing.T) {
	onBothTables(t, func(t *testing.T, o server.Options) {
		o.HandshakeRate = 3
		s := start(t, echo, o)
		refused := 0
		for range 20 {
			c := s.dial()
			c.write(request)
			if r, _ := c.nextResponse(); r.StatusCode == http.StatusServiceUnavailable {
				refused++
			}
			c.Close()
		}
		if refused == 0 || refused > 17 { // time passes
			t.Errorf("%d of 20 were refused", refused)
		}
	})
}

// Connections end when the request said so, and by MaxAge.
func TestConnectionsExpire(t *testing.T) {
	inModes(t, func(t *testing.T, o server.Options) {
		o.MaxAge = time.Hour
		h := echo
		h.Upgrade = func(r *server.Request) error {
			if r.Path() == "/soon" {
				r.Expires = time.Now()
			}
			return nil
		}
		var told <-chan ending
		h.Close, told = endings()
		s := start(t, h, o)
		stays := s.open()
		soon := s.dial()
		soon.write(swap("GET / ", "GET /soon "))
		soon.accepted()
		if reason := soon.expectClose(frame.PolicyViolation); reason != server.ErrExpired.Error() {
			t.Errorf("reason %q", reason)
		}
		expectEnding(t, told, frame.PolicyViolation, server.ErrExpired)
		soon.Close()
		eventually(t, "it is left", func() bool { return s.Stats().Sockets == 1 })
		s.open().echoed("in the same slot") // which does not expire
		stays.echoed("hello")
		s.counted("closed_expired", 1)
	})
}
