package admin_test

import (
	"cmp"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/internal/testkit"
	"github.com/seed-134acfd0/lull/server"
	"github.com/seed-134acfd0/lull/server/admin"
)

// Helpers that tests of all packages use.
const patience = testkit.Patience

var eventually = testkit.Eventually

// site is a running server and its admin address.
type site struct {
	*server.Server
	t    testing.TB
	web  *httptest.Server
	url  string
	end  func()       // makes the server end, and does not wait for it
	stop func() error // makes the server end, and returns what Run returned
}

// start runs a server. By default it has one reactor.
func start(t testing.TB, h server.Handler, o server.Options) *site {
	t.Helper()
	return startWith(t, h, o, admin.Options{})
}

// startWith runs a server whose admin address shows more than the server.
func startWith(t testing.TB, h server.Handler, o server.Options, shown admin.Options) *site {
	t.Helper()
	o.Log = slog.New(slog.DiscardHandler)
	o.Reactors = cmp.Or(o.Reactors, 1)
	o.StallAfter = cmp.Or(o.StallAfter, -1) // machines may be slow
	o.CloseTimeout = cmp.Or(o.CloseTimeout, time.Second)
	o.Grace = cmp.Or(o.Grace, time.Second)
	s, err := server.Listen([]string{"127.0.0.1:0"}, h, o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	stop := testkit.Run(t, ctx, s)
	shown.Names, shown.Pprof = []string{"lull.test", ""}, true
	web := httptest.NewServer(admin.New(ctx, s, shown))
	t.Cleanup(web.Close)
	return &site{s, t, web, web.URL, cancel, stop}
}

// dial opens a connection.
func (s *site) dial(d *net.Dialer, path string) (net.Conn, error) {
	dialer := ws.Dialer{NetDial: d.DialContext}
	conn, _, _, err := dialer.Dial(context.Background(), "ws://"+s.Addrs()[0].String()+path)
	if err != nil {
		return nil, err
	}
	s.t.Cleanup(func() { conn.Close() })
	return conn, conn.SetDeadline(time.Now().Add(patience))
}

func (s *site) open() net.Conn {
	s.t.Helper()
	conn, err := s.dial(&net.Dialer{}, "/")
	if err != nil {
		s.t.Fatal(err)
	}
	return conn
}

// openDeaf opens a connection with small buffers, which the test does not read.
func (s *site) openDeaf() net.Conn {
	s.t.Helper()
	conn, err := s.dial(testkit.DeafDialer(), "/")
	if err != nil {
		s.t.Fatal(err)
	}
	return conn
}

// fill broadcasts until the sockets of deaf connections have taken nothing for a while.
func (s *site) fill() {
	s.t.Helper()
	const settled = 300 * time.Millisecond
	taken, since := uint64(0), time.Now()
	eventually(s.t, "sockets take no more", func() bool {
		if err := s.Broadcast(frame.Binary, make([]byte, 4<<10)); err != nil && err != server.ErrBackpressure {
			s.t.Fatal(err)
		}
		if n := count(s.Stats(), "bytes_out"); n != taken {
			taken, since = n, time.Now()
		}
		return s.Stats().Outbox > 0 && time.Since(since) > settled
	})
	eventually(s.t, "no broadcast is on its way", func() bool { return s.Stats().Broadcast == 0 })
}

// counted waits until a counter has reached n.
func (s *site) counted(c string, n uint64) {
	s.t.Helper()
	eventually(s.t, c+" is "+strconv.FormatUint(n, 10), func() bool { return count(s.Stats(), c) >= n })
}

// count is the value of a counter.
func count(stats server.Stats, name string) uint64 {
	n, ok := maps.Collect(stats.All())[name]
	if !ok {
		panic("there is no counter " + name)
	}
	return n
}

// counters are the names of all counters.
func counters() []string {
	return slices.Collect(maps.Keys(maps.Collect(server.Counts{}.All())))
}

// do sends a request and returns its answer.
func (s *site) do(r *http.Request) (*http.Response, string) {
	s.t.Helper()
	answer, body, err := roundTrip(r)
	if err != nil {
		s.t.Fatal(err)
	}
	return answer, body
}

func roundTrip(r *http.Request) (*http.Response, string, error) {
	answer, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		return nil, "", err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	return answer, string(body), err
}

// answered is the answer to a request that begin has sent.
type answered struct {
	code int
	body string
}

// begin sends a request and does not wait for the answer.
func (s *site) begin(r *http.Request) <-chan answered {
	later := make(chan answered, 1)
	go func() {
		defer close(later)
		answer, body, err := roundTrip(r)
		if err != nil {
			s.t.Error(err)
			return
		}
		later <- answered{answer.StatusCode, body}
	}()
	return later
}

func (s *site) request(method, path, body string) *http.Request {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	s.t.Cleanup(cancel)
	r, err := http.NewRequestWithContext(ctx, method, s.url+path, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	return r
}

// get returns the status and the body of a page.
func (s *site) get(path string) (int, string) {
	s.t.Helper()
	r, body := s.do(s.request("GET", path, ""))
	return r.StatusCode, body
}

// json gets a page and reads it into v.
func (s *site) json(path string, v any) {
	s.t.Helper()
	code, body := s.get(path)
	if err := json.Unmarshal([]byte(body), v); code != http.StatusOK || err != nil {
		s.t.Fatalf("%s: %d %v %s", path, code, err, body)
	}
}

// scrape returns what /metrics shows, by series.
func (s *site) scrape() map[string]float64 {
	s.t.Helper()
	code, body := s.get("/metrics")
	if code != http.StatusOK {
		s.t.Fatalf("/metrics: %d %s", code, body)
	}
	series := make(map[string]float64)
	for line := range strings.Lines(body) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		cut := strings.LastIndexByte(line, ' ')
		value, err := strconv.ParseFloat(strings.TrimSpace(line[cut+1:]), 64)
		if err != nil {
			s.t.Fatalf("%q: %v", line, err)
		}
		series[line[:cut]] = value
	}
	return series
}

// shows waits until a series has a value. It scrapes again and again.
func (s *site) shows(series string, want float64) {
	s.t.Helper()
	var got float64
	var ok bool
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if got, ok = s.scrape()[series]; ok && got == want {
			return
		}
	}
	s.t.Errorf("%s is %v (in the scrape: %v), want %v", series, got, ok, want)
}

// say sends a text.
func say(t testing.TB, conn net.Conn, text string) {
	t.Helper()
	if err := wsutil.WriteClientText(conn, []byte(text)); err != nil {
		t.Fatal(err)
	}
}

// gate is a handler that blocks until the gate is opened.
type gate struct {
	entered chan struct{} // gets a value from each call
	opened  chan struct{}
}

func newGate() gate { return gate{make(chan struct{}, 1000), make(chan struct{})} }

func (g gate) message(server.Conn, frame.Op, []byte) {
	g.entered <- struct{}{}
	<-g.opened
}

func (g gate) open() { close(g.opened) }

// reached waits until a call has come to the gate.
func (g gate) reached(t testing.TB) {
	t.Helper()
	select {
	case <-g.entered:
	case <-time.After(patience):
		t.Fatal("the handler was not called")
	}
}
