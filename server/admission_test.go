package server_test

import (
	"crypto/tls"
	"net/http"
	"strconv"
	"strings"
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
		s.wssOpen(config)
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

// One that was refused when it was accepted, before it was polled, gives its slot back as
// soon as it leaves.
func TestARefusedConnectionThatLeavesIsGone(t *testing.T) {
	for name, row := range map[string]struct {
		wire   string
		status int
	}{
		"an address":           {"", http.StatusTooManyRequests},
		"a bad request":        {"nonsense\r\n\r\n", http.StatusBadRequest},
		"a client of a proxy":  {proxyHead(2, "203.0.113.1:2"), http.StatusTooManyRequests},
		"a path that is wrong": {swap("GET / ", "GET /no "), http.StatusNotFound},
	} {
		t.Run(name, func(t *testing.T) {
			onBothTables(t, func(t *testing.T, o server.Options) {
				h := newObliging()
				o.CloseTimeout, o.MaxConnsPerAddress = time.Hour, 100
				if row.status == http.StatusTooManyRequests {
					o.MaxConnsPerAddress = 1
				}
				first := request
				if strings.HasPrefix(row.wire, proxyHead(2, "203.0.113.1:2")[:12]) {
					o.Trust, o.ProxyProtocol = []string{"127.0.0.1"}, true
					first = proxyHead(2, "203.0.113.1:1") + request
				}
				s := start(t, server.Handler{Message: h.message, Upgrade: func(r *server.Request) error {
					if r.Path() == "/no" {
						return &server.Reject{Status: http.StatusNotFound}
					}
					return nil
				}}, o)
				stays := s.dial()
				stays.write(first)
				stays.accepted()
				release := h.hold(stays) // so that all of it has arrived when it is accepted
				c := s.dial()
				c.write(row.wire)
				release()
				if r, _ := c.response(); r.StatusCode != row.status {
					t.Errorf("answered %s, want %d", r.Status, row.status)
				}
				c.Close()
				eventually(t, "it is gone", func() bool { return s.Stats().Sockets == 1 })
				stays.echoed("hello")
			})
		})
	}
}

// Connections of net/http count as their client's, until they end or become WebSockets,
// and behind a proxy that names the client each of its requests does.
func TestVisitsCountAsTheirClients(t *testing.T) {
	const get = "GET /page HTTP/1.1\r\nHost: x\r\n\r\n"
	onBothTables(t, func(t *testing.T, o server.Options) {
		for _, behind := range []bool{false, true} {
			o.MaxConnsPerAddress, o.HTTP = 1, pages
			head := func() string { return "" }
			if behind {
				o.Trust, o.ProxyProtocol = []string{"127.0.0.1"}, true
				head = func() string { return proxyHead(2, "203.0.113.7:1") }
			}
			s := start(t, echo, o)
			visit := func() (c *client) { // when the one before is not counted any more
				t.Helper()
				eventually(t, "the next may come", func() bool {
					c = s.dial()
					c.write(head() + get)
					r, body := c.nextResponse()
					if r.StatusCode == http.StatusOK && body == "GET /page 0" {
						return true
					}
					c.Close()
					return false
				})
				return c
			}
			refused := func() {
				t.Helper()
				c := s.dial()
				c.write(head() + get)
				if r, _ := c.nextResponse(); r.StatusCode != http.StatusTooManyRequests {
					t.Errorf("the second was answered %s", r.Status)
				}
				c.Close()
			}
			for range 3 {
				visitor := visit()
				refused()
				visitor.write(request)
				visitor.accepted()
				visitor.echoed("it is counted once")
				refused()
				visitor.leave()
				visitor = visit()
				refused()
				visitor.Close()
			}
		}
	})
}

func TestRequestsCountAsTheClientThatTheirProxyNames(t *testing.T) {
	arrived, release := make(chan struct{}), make(chan struct{})
	o := server.Options{Trust: []string{"127.0.0.1"}, ClientHeader: "X-Forwarded-For", MaxConnsPerAddress: 1}
	o.HTTP = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			arrived <- struct{}{}
			<-release
		}
	})
	s := start(t, echo, o)
	get := func(path, client string) *client {
		c := s.dial()
		c.write("GET " + path + " HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: " + client + "\r\n\r\n")
		return c
	}
	status := func(c *client, want int) {
		t.Helper()
		if r, _ := c.nextResponse(); r.StatusCode != want {
			t.Errorf("answered %s, want %d", r.Status, want)
		}
	}
	slow := get("/slow", "203.0.113.1")
	<-arrived
	status(get("/", "203.0.113.1"), http.StatusTooManyRequests)
	status(get("/", "203.0.113.2"), http.StatusOK)
	release <- struct{}{}
	status(slow, http.StatusOK)
	eventually(t, "the next may come", func() bool {
		r, _ := get("/", "203.0.113.1").nextResponse()
		return r.StatusCode == http.StatusOK
	})
}

// Whoever is turned away is told when it was, and to come back at different times.
func TestThoseWhoFindTheServerFullDoNotComeBackTogether(t *testing.T) {
	s := start(t, echo, server.Options{MaxConns: 1})
	s.open()
	waits := map[string]bool{}
	for range 60 {
		c := s.dial()
		c.write(request)
		r, _ := c.response()
		seconds, err := strconv.Atoi(r.Header.Get("Retry-After"))
		if r.StatusCode != http.StatusServiceUnavailable || err != nil || seconds < 5 || seconds > 10 {
			t.Fatalf("answered %s, %v", r.Status, r.Header)
		}
		waits[r.Header.Get("Retry-After")] = true
		c.Close()
	}
	if len(waits) < 2 {
		t.Errorf("all are told to come back after %v", waits)
	}
}

func TestErrorsHaveADate(t *testing.T) {
	s := start(t, echo, server.Options{})
	for _, wire := range []string{"nonsense\r\n\r\n", "GET / HTTP/1.1\r\nHost: x\r\n\r\n"} {
		c := s.dial()
		c.write(wire)
		r, _ := c.response()
		at, err := http.ParseTime(r.Header.Get("Date"))
		if age := time.Since(at); err != nil || age < -2*time.Second || age > patience || len(r.Header["Date"]) != 1 {
			t.Errorf("%s has the date %q, %v", r.Status, r.Header["Date"], err)
		}
	}
}
