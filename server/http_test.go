package server_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	gorilla "github.com/gorilla/websocket"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/server"
)

type ctxKey struct{}

// beside mounts a server in a net/http server, behind a router and middleware.
func beside(t *testing.T, h http.Handler) *httptest.Server {
	mux := http.NewServeMux()
	mux.Handle("/ws/", http.StripPrefix("/ws", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Cookie") == "" {
			http.Error(w, "who are you?", http.StatusUnauthorized)
			return
		}
		h.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), ctxKey{}, "from middleware")))
	})))
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "a page") })
	site := httptest.NewServer(mux)
	t.Cleanup(site.Close)
	return site
}

var besideRequest = strings.Replace(strings.Replace(request, "GET /", "GET /ws/room", 1), "\r\n\r\n", "\r\nCookie: a=b\r\n\r\n", 1)

// A connection that a router has passed on is a connection like any other.
func TestAServerMountsInNetHTTP(t *testing.T) {
	everywhere(t, func(t *testing.T, o server.Options) {
		h := echo
		h.Upgrade = func(r *server.Request) error {
			if r.Path() != "/room" || r.Header("Cookie") != "a=b" || r.Context().Value(ctxKey{}) != "from middleware" || !r.RemoteAddr().IsValid() {
				t.Errorf("the request is for %q, with cookie %q and context %v", r.Target(), r.Header("Cookie"), r.Context())
			}
			r.Tag, r.Value = 7, "a value"
			return nil
		}
		var opened atomic.Int32
		h.Open = func(c server.Conn) {
			if c.Tag() != 7 || c.Value() != "a value" {
				t.Errorf("tag %d, value %v", c.Tag(), c.Value())
			}
			opened.Add(1)
		}
		var told <-chan ending
		h.Close, told = endings()
		s := start(t, h, o)
		site := beside(t, s)
		clients := make([]*client, 20)
		for i := range clients {
			c := dialTo(t, site.Listener.Addr().String())
			c.write(besideRequest + message(frame.Text, "sent along")) // net/http reads both
			c.accepted()
			c.expect(frame.Text, "sent along")
			c.echoed("hello")
			clients[i] = c
		}
		eventually(t, "net/http keeps goroutines", func() bool {
			stacks := make([]byte, 1<<20)
			return !strings.Contains(string(stacks[:runtime.Stack(stacks, true)]), "net/http.(*conn).serve")
		})
		if n := s.Stats().Open; n != 20 || opened.Load() != 20 {
			t.Errorf("%d connections are open, %d were opened", n, opened.Load())
		}
		for _, c := range clients {
			c.Close()
			expectEnding(t, told, frame.Abnormal, io.EOF)
		}
		eventually(t, "connections are left", func() bool { return s.Stats().Open == 0 })
	})
}

func TestRejectionsBehindNetHTTPAreItsResponses(t *testing.T) {
	inModes(t, func(t *testing.T, o server.Options) {
		h := echo
		h.Upgrade = func(*server.Request) error {
			return &server.Reject{Status: 403, Reason: "not you", Header: http.Header{"X-Why": {"because"}}}
		}
		o.MaxConns = 1
		s := start(t, h, o)
		site := beside(t, s)
		for _, row := range []struct {
			request string
			status  int
		}{
			{besideRequest, 403},
			{strings.Replace(besideRequest, "Upgrade: websocket\r\n", "", 1), 426},
			{strings.Replace(besideRequest, "Version: 13", "Version: 8", 1), 426},
			{strings.Replace(besideRequest, "\r\n\r\n", "\r\nContent-Length: 1\r\n\r\nx", 1), 400},
			{strings.Replace(besideRequest, "GET", "POST", 1), 405},
			{strings.Replace(besideRequest, "Cookie: a=b\r\n", "", 1), 401}, // by the middleware
		} {
			c := dialTo(t, site.Listener.Addr().String())
			c.write(row.request)
			r, body := c.nextResponse()
			if r.StatusCode != row.status || row.status == 403 && (r.Header.Get("X-Why") != "because" || body != "not you\n") {
				t.Errorf("answered %s %v %q, want %d", r.Status, r.Header, body, row.status)
			}
		}
		if n := s.Stats(); n.Open != 0 || n.Rejected != 5 {
			t.Errorf("%d open, %d rejected", n.Open, n.Rejected)
		}
	})
}

// Where the socket cannot be had the client is told, and nothing is left.
func TestAServerCannotStandBehindTheTLSOfNetHTTP(t *testing.T) {
	h := echo
	h.Upgrade = func(*server.Request) error { t.Error("Upgrade was asked"); return nil }
	s := start(t, h, server.Options{})
	site := httptest.NewTLSServer(s)
	defer site.Close()
	d := gorilla.Dialer{TLSClientConfig: site.Client().Transport.(*http.Transport).TLSClientConfig}
	_, r, err := d.Dial("wss://"+site.Listener.Addr().String(), nil)
	if err == nil || r == nil || r.StatusCode != http.StatusNotImplemented {
		t.Errorf("answered %v, %v", r, err)
	}
	s.log.one(t, "WARN handshake rejected", "status=501")
}

// Whom Upgrade accepts hears an end, though the server has no place for it or has
// ended.
func TestWhoComesToAnEndedServerHearsOfIt(t *testing.T) {
	inModes(t, func(t *testing.T, o server.Options) {
		h := echo
		h.Upgrade = func(r *server.Request) error { r.Tag, r.Value = 9, "mine"; return nil }
		closed := make(chan [2]any, 1)
		h.Close = func(c server.Conn, _ frame.Code, _ error) { closed <- [2]any{c.Tag(), c.Value()} }
		s := start(t, h, o)
		site := beside(t, s)
		must(s.stop())
		c := dialTo(t, site.Listener.Addr().String())
		c.write(besideRequest)
		if got := <-closed; got != [2]any{uint64(9), "mine"} {
			t.Errorf("told of %v", got)
		}
	})
}

// pages serves a page and an API that reads bodies.
var pages = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), 500)
		return
	}
	fmt.Fprintf(w, "%s %s %d", r.Method, r.URL.Path, len(body))
})

// Requests that are no handshake are net/http's: with bodies, one after the
// other, and a handshake behind them.
func TestHTTPOnTheServersOwnPort(t *testing.T) {
	everywhere(t, func(t *testing.T, o server.Options) {
		o.HTTP = pages
		s := start(t, echo, o)
		bystander := s.open()
		c := s.dial()
		large := strings.Repeat("x", 200_000)
		for _, row := range []struct{ request, want string }{
			{"GET /page HTTP/1.1\r\nHost: x\r\n\r\n", "GET /page 0"},
			{fmt.Sprintf("POST /api HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", len(large), large), "POST /api 200000"},
			{"GET /h2 HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n", "GET /h2 0"},
		} {
			c.writing(row.request)
			if r, body := c.nextResponse(); r.StatusCode != 200 || body != row.want {
				t.Errorf("answered %s %q, want %q", r.Status, body, row.want)
			}
		}
		c.write(request + message(frame.Text, "behind"))
		c.accepted()
		c.expect(frame.Text, "behind")
		c.echoed("as any other")
		bystander.echoed("hello")
		s.counted("visits", 1)
		s.counted("opened", 2)
		s.counted("aborted", 0)
		trickle := s.dial()
		for _, b := range []byte("GET /slow HTTP/1.1\r\nHost: x\r\n\r\n") {
			trickle.write(string(b))
		}
		if r, body := trickle.nextResponse(); r.StatusCode != 200 || body != "GET /slow 0" {
			t.Errorf("answered %s %q", r.Status, body)
		}
		eventually(t, "sockets of net/http count as the server's", func() bool { return s.Stats().Sockets == 2 })
	})
}

// There are at most MaxHTTP connections of net/http, and an end of the server
// waits for requests that are being served.
func TestHTTPIsBoundedAndEndsWithTheServer(t *testing.T) {
	onBothTables(t, func(t *testing.T, o server.Options) {
		arrived, release := make(chan struct{}), make(chan struct{})
		o.MaxHTTP = 2
		o.HTTP = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			arrived <- struct{}{}
			<-release
			io.WriteString(w, "served")
		})
		s := start(t, echo, o)
		var clients []*client
		for range 2 {
			c := s.dial()
			c.write("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
			<-arrived
			clients = append(clients, c)
		}
		c := s.dial()
		c.write("GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		if r, _ := c.response(); r.StatusCode != http.StatusServiceUnavailable {
			t.Errorf("the third was answered %s", r.Status)
		}
		c.Close()
		stopped := make(chan error, 1)
		go func() { stopped <- s.stop() }()
		eventually(t, "the server takes connections", func() bool {
			c, err := s.guest()
			if c != nil {
				c.Close()
			}
			return err != nil
		})
		close(release)
		for _, c := range clients {
			if r, body := c.response(); r.StatusCode != 200 || body != "served" {
				t.Errorf("answered %s %q", r.Status, body)
			}
		}
		must(<-stopped)
	})
}
