package admin_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/seed-134acfd0/lull/server"
)

func TestAServerThatGetsOnIsHealthyAndReady(t *testing.T) {
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
		t.Errorf("it is ready all the same, but says %d %s", code, body)
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

func TestAnEndingServerIsNotReady(t *testing.T) {
	s := start(t, server.Handler{}, server.Options{Grace: patience})
	s.open() // which it waits for
	s.end()
	if code, body := s.get("/readyz"); code != http.StatusServiceUnavailable || !strings.Contains(body, "ending") {
		t.Errorf("%d %s", code, body)
	}
	if code, body := s.get("/healthz"); code != http.StatusOK {
		t.Errorf("it gets on all the same, but says %d %s", code, body)
	}
}
