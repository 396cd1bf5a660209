package admin_test

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/seed-134acfd0/lull/server"
	"github.com/seed-134acfd0/lull/server/health"
)

func TestANewServerIsHealthyAndReady(t *testing.T) {
	s := start(t, server.Handler{}, server.Options{})
	for _, path := range []string{"/healthz", "/readyz"} {
		if code, body := s.get(path); code != http.StatusOK {
			t.Errorf("%s: %d %s", path, code, body)
		}
	}
}

func TestAStalledReactorIsNotHealthy(t *testing.T) {
	g := newGate()
	s := start(t, server.Handler{Message: g.message}, server.Options{Mode: server.Inline, StallAfter: 20 * time.Millisecond})
	say(t, s.open(), "hello")
	g.reached(t)
	if code, body := s.get("/healthz"); code != http.StatusServiceUnavailable || !strings.Contains(body, "1 of 1 reactors") {
		t.Errorf("while it stalls: %d %s", code, body)
	}
	if code, body := s.get("/readyz"); code != http.StatusOK {
		t.Errorf("it should be ready nevertheless, but says %d %s", code, body)
	}
	g.open()
	eventually(t, "it is healthy again", func() bool {
		code, _ := s.get("/healthz")
		return code == http.StatusOK
	})
}

func TestAFullServerIsNotReady(t *testing.T) {
	s := start(t, server.Handler{}, server.Options{MaxConns: 2})
	s.open()
	if code, body := s.get("/readyz"); code != http.StatusOK {
		t.Errorf("with room for one: %d %s", code, body)
	}
	last := s.open()
	if code, body := s.get("/readyz"); code != http.StatusServiceUnavailable || !strings.Contains(body, "2 of 2") {
		t.Errorf("without room: %d %s", code, body)
	}
	last.Close()
	eventually(t, "it is ready again", func() bool {
		code, _ := s.get("/readyz")
		return code == http.StatusOK
	})
}

// What is away may be away for all servers: those that are degraded stay ready, and say so.
func TestADegradedServerIsReady(t *testing.T) {
	s := start(t, server.Handler{}, server.Options{})
	trouble := errors.New("the broker is away")
	h := health.Handler(t.Context(), s.Server, nil, func() error { return trouble })
	for _, want := range []string{"ready, but degraded: the broker is away\n", "ready\n"} {
		answer := httptest.NewRecorder()
		h.ServeHTTP(answer, httptest.NewRequest(http.MethodGet, "/readyz", nil))
		if got := answer.Body.String(); answer.Code != http.StatusOK || got != want {
			t.Errorf("%d %q, not %q", answer.Code, got, want)
		}
		trouble = nil
	}
}

// Clients whose request was rejected and that do not leave use up the sockets,
// though no connection is open. The server evicts them after a second, so the
// test sends more of them until it sees that all sockets are in use.
func TestAServerWithoutFreeSocketsIsNotReady(t *testing.T) {
	s := start(t, server.Handler{}, server.Options{MaxConns: 1, CloseTimeout: patience})
	most := s.Stats().SocketsMax
	want := fmt.Sprintf("%d of %[1]d sockets", most)
	var rejected []net.Conn
	leave := func() {
		for _, c := range rejected {
			c.Close()
		}
	}
	defer leave()
	eventually(t, "it says that it is full", func() bool {
		for range most / 2 {
			c, err := net.Dial("tcp", s.Addrs()[0].String())
			if err != nil {
				t.Fatal(err)
			}
			rejected = append(rejected, c)
			_, _ = c.Write([]byte("GET / HTTP/1.1\r\n\r\n")) // fails if it is evicted already
		}
		code, body := s.get("/readyz")
		return code == http.StatusServiceUnavailable && strings.Contains(body, want)
	})
	leave()
	eventually(t, "it is ready again", func() bool {
		code, _ := s.get("/readyz")
		return code == http.StatusOK
	})
	s.shows("lull_sockets", 0)
}

func TestAServerWhoseWorkersAreAllStuckIsNotReady(t *testing.T) {
	g := newGate()
	s := start(t, server.Handler{Message: g.message}, server.Options{
		Workers: 2, CallTimeout: 50 * time.Millisecond,
		StallAfter: 100 * time.Millisecond, // the watchdog that counts stuck calls looks twice in this time
	})
	say(t, s.open(), "hello")
	g.reached(t)
	s.shows("lull_workers_stuck", 1)
	s.counted("calls_stuck", 1)
	if code, body := s.get("/readyz"); code != http.StatusOK {
		t.Errorf("with a worker that is not stuck: %d %s", code, body)
	}
	say(t, s.open(), "hello")
	g.reached(t)
	s.shows("lull_workers_stuck", 2)
	if code, body := s.get("/readyz"); code != http.StatusServiceUnavailable || !strings.Contains(body, "every worker") || !strings.Contains(body, "50ms") {
		t.Errorf("with all workers stuck: %d %s", code, body)
	}
	var status struct {
		NotReady string `json:"not_ready"`
		Workers  struct{ Stuck int }
	}
	s.json("/api/status", &status)
	if status.Workers.Stuck != 2 || !strings.Contains(status.NotReady, "every worker") {
		t.Errorf("%+v", status)
	}
	g.open()
	eventually(t, "it is ready again", func() bool {
		code, _ := s.get("/readyz")
		return code == http.StatusOK
	})
}

func TestAnEndingServerIsNotReady(t *testing.T) {
	s := start(t, server.Handler{}, server.Options{Grace: patience})
	s.open() // the server waits for it
	s.end()
	if code, body := s.get("/readyz"); code != http.StatusServiceUnavailable || !strings.Contains(body, "ending") {
		t.Errorf("%d %s", code, body)
	}
	if code, body := s.get("/healthz"); code != http.StatusOK {
		t.Errorf("it should be healthy nevertheless, but says %d %s", code, body)
	}
}

// A server that lets nobody in for lack of memory is not ready.
func TestAServerThatIsShortOfMemoryIsNotReady(t *testing.T) {
	s := start(t, server.Handler{}, server.Options{})
	now := s.Stats()
	if why := health.NotReady(t.Context(), s.Server, &now); why != "" {
		t.Errorf("not ready: %s", why)
	}
	now.MemoryShort = true
	if why := health.NotReady(t.Context(), s.Server, &now); !strings.Contains(why, "memory") {
		t.Errorf("short of memory, and ready: %q", why)
	}
}

func TestHealthIsThereAlone(t *testing.T) {
	s := start(t, server.Handler{}, server.Options{})
	health := httptest.NewServer(health.Handler(t.Context(), s.Server))
	defer health.Close()
	for path, want := range map[string]int{"/healthz": 200, "/readyz": 200, "/": 404, "/api/status": 404, "/metrics": 404} {
		r, err := http.Get(health.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		r.Body.Close()
		if r.StatusCode != want {
			t.Errorf("%s: %d", path, r.StatusCode)
		}
	}
	s.Drain()
	r, err := http.Get(health.URL + "/readyz")
	if err != nil {
		t.Fatal(err)
	}
	r.Body.Close()
	if r.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("while it drains /readyz answers %d", r.StatusCode)
	}
}
