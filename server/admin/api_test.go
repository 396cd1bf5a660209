package admin_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/server"
)

// connections is the answer of /api/connections, and a part of the answer of /api/status.
type connections struct {
	Largest []struct {
		ID       string
		Remote   string
		Messages int     `json:"outbox_messages"`
		Bytes    int     `json:"outbox_bytes"`
		For      float64 `json:"waiting_seconds"`
		Kernel   int     `json:"kernel_bytes"`
	}
	Causes []struct {
		Cause string
		Count int
	}
	Endings []struct {
		Time   time.Time
		ID     string
		Code   uint16
		Cause  string
		Remote string
		Outbox int `json:"outbox_bytes"`
	}
}

// receipt is the answer of /api/broadcast.
type receipt struct {
	Sent, Queued, Dropped, Closed int
	Last                          time.Time
}

func TestBadRequestsAreExplained(t *testing.T) {
	s := start(t, server.Handler{}, server.Options{MaxMessage: 1000})
	for _, row := range []struct {
		method, path, kind, body string
		code                     int
		says                     string
	}{
		{"GET", "/nothing", "", "", 404, ""},
		{"GET", "/api", "", "", 404, ""},
		{"GET", "/api/connections/1", "", "", 405, ""},
		{"GET", "/api/broadcast", "", "", 405, ""},
		{"POST", "/", "", "", 405, ""},
		{"POST", "/metrics", "", "", 405, ""},
		{"DELETE", "/healthz", "", "", 405, ""},
		{"POST", "/api/status", "", "", 405, ""},
		{"POST", "/api/connections", "", "", 405, ""},
		{"PUT", "/api/connections/0000000100000000", "", "", 405, ""},
		{"POST", "/debug/pprof/", "", "", 405, ""},

		{"GET", "/api/connections?largest=many", "", "", 400, "number"},
		{"GET", "/api/connections?largest=-1", "", "", 400, "number"},
		{"GET", "/api/connections?largest=99999999999999999999", "", "", 400, "number"},

		{"DELETE", "/api/connections/me", "", "", 400, "hexadecimal"},
		{"DELETE", "/api/connections/-1", "", "", 400, "hexadecimal"},
		{"DELETE", "/api/connections/0x1", "", "", 400, "hexadecimal"},
		{"DELETE", "/api/connections/00000000000000001", "", "", 404, "no such"},
		{"DELETE", "/api/connections/10000000000000000", "", "", 400, "hexadecimal"},
		{"DELETE", "/api/connections/0", "", "", 404, "no such"},                // the first slot, free
		{"DELETE", "/api/connections/0000000100000000", "", "", 404, "no such"}, // the ID of the first connection, which was not opened
		{"DELETE", "/api/connections/00000001003fffff", "", "", 404, "no such"}, // the last slot
		{"DELETE", "/api/connections/00000001ffffffff", "", "", 404, "no such"}, // the last reactor that there can be
		{"DELETE", "/api/connections/", "", "", 404, ""},

		{"POST", "/api/broadcast", "text/plain; charset=utf-8", "\xff", 400, "UTF-8"},
		{"POST", "/api/broadcast", "TEXT/html", "\xff", 400, "UTF-8"},
		{"POST", "/api/broadcast", "", strings.Repeat("x", 1001), 413, "too large"},
		{"POST", "/api/broadcast", "text/plain", strings.Repeat("x", 100_000), 413, "too large"},
	} {
		r := s.request(row.method, row.path, row.body)
		r.Header.Set("Content-Type", row.kind)
		answer, body := s.do(r)
		if answer.StatusCode != row.code || !strings.Contains(body, row.says) {
			t.Errorf("%s %s %.20q: %d %.100s, want %d %s", row.method, row.path, row.body, answer.StatusCode, body, row.code, row.says)
		}
	}
	if n := count(s.Stats(), "messages_accepted"); n != 0 {
		t.Errorf("%d messages were sent", n)
	}
}

func TestStatusHasTheRightValues(t *testing.T) {
	s := start(t, server.Handler{}, server.Options{Reactors: 2, MaxConns: 10})
	for range 3 {
		say(t, s.open(), "hello")
	}
	s.counted("messages_in", 3)
	var status struct {
		Addresses   []string
		Uptime      float64 `json:"uptime_seconds"`
		NotReady    string  `json:"not_ready"`
		Setup       struct{ Mode, Tables string }
		Connections struct{ Open, Limit int }
		Workers     struct{ Limit int }
		Outbox      struct {
			Limit int `json:"limit_bytes"`
		}
		Times map[string]struct {
			Buckets []int
			P99     float64 `json:"p99_seconds"`
		}
		Counters map[string]int
		connections
	}
	s.json("/api/status", &status)
	o := s.Options()
	if c := status.Connections; c.Open != 3 || c.Limit != 10 || status.NotReady != "" || status.Uptime <= 0 {
		t.Errorf("%+v", status)
	}
	if status.Addresses[0] != s.Addrs()[0].String() || status.Setup.Mode != "workers" || status.Setup.Tables != "private" ||
		status.Workers.Limit != o.Workers || status.Outbox.Limit != o.MaxOutboxTotal {
		t.Errorf("%+v", status)
	}
	for _, c := range counters() {
		if n, ok := status.Counters[c]; !ok {
			t.Errorf("%v is missing", c)
		} else if c == "messages_in" && n != 3 {
			t.Errorf("%v is %d", c, n)
		}
	}
	if turn := status.Times["reactor_turn"]; len(turn.Buckets) == 0 || turn.P99 <= 0 {
		t.Errorf("reactors' turns: %+v", turn)
	}
	if status.Largest == nil || status.Causes == nil {
		t.Error("lists that are empty are null")
	}
	s.open()
	s.end()
	s.json("/api/status", &status)
	if !strings.Contains(status.NotReady, "ending") {
		t.Errorf("at the end it says %q", status.NotReady)
	}
}

func TestTheLargestOutboxesAreListedAndTheirConnectionsCanBeClosed(t *testing.T) {
	s := start(t, server.Handler{}, server.Options{OutboxPolicy: server.OutboxDropNew})
	deaf, other := s.openDeaf(), s.openDeaf()
	s.fill()
	var now connections
	eventually(t, "both are listed", func() bool {
		s.json("/api/connections?largest=20", &now)
		return len(now.Largest) == 2
	})
	for _, p := range now.Largest {
		if p.Messages == 0 || p.Bytes < (p.Messages-1)*(4<<10) || p.Kernel == 0 || len(p.ID) != 16 {
			t.Errorf("%+v", p)
		}
		if p.Remote != deaf.LocalAddr().String() && p.Remote != other.LocalAddr().String() {
			t.Errorf("%s is not an address of a client", p.Remote)
		}
	}
	if now.Largest[0].Bytes < now.Largest[1].Bytes {
		t.Errorf("not the largest first: %+v", now.Largest)
	}
	var fewer connections
	s.json("/api/connections?largest=1", &fewer)
	if len(fewer.Largest) != 1 {
		t.Errorf("asked for one: %+v", fewer.Largest)
	}

	id := now.Largest[0].ID
	if r, body := s.do(s.request("DELETE", "/api/connections/"+id, "")); r.StatusCode != http.StatusAccepted || !strings.Contains(body, id) {
		t.Fatalf("%s %s", r.Status, body)
	}
	s.counted("closed_close_timeout", 1) // the peer does not read the Close frame either
	if r, body := s.do(s.request("DELETE", "/api/connections/"+id, "")); r.StatusCode != http.StatusNotFound {
		t.Errorf("once more: %s %s", r.Status, body)
	}
	s.json("/api/connections", &now)
	if len(now.Endings) != 1 || len(now.Causes) != 1 || now.Causes[0].Count != 1 {
		t.Fatalf("%+v", now)
	}
	if e := now.Endings[0]; e.ID != id || e.Cause != server.ErrCloseTimeout.Error() || e.Cause != now.Causes[0].Cause || e.Outbox == 0 || e.Remote == "" {
		t.Errorf("%+v", e)
	}
}

func TestAClosedPeerGetsACloseFrame(t *testing.T) {
	ids := make(chan uint64, 1)
	s := start(t, server.Handler{Open: func(c server.Conn) { ids <- c.ID() }}, server.Options{})
	c := s.open()
	path := fmt.Sprintf("/api/connections/%X", <-ids) // without leading zeros, in capitals
	if r, body := s.do(s.request("DELETE", path, "")); r.StatusCode != http.StatusAccepted {
		t.Fatalf("%s %s", r.Status, body)
	}
	var closed wsutil.ClosedError
	if _, _, err := wsutil.ReadServerData(c); !errors.As(err, &closed) || closed.Code != ws.StatusPolicyViolation || closed.Reason == "" {
		t.Errorf("the client is told %v", err)
	}
}

func TestABroadcastReachesAllConnections(t *testing.T) {
	for _, row := range []struct {
		kind, body string
		op         ws.OpCode
	}{
		{"text/plain; charset=utf-8", "grüß Gott", ws.OpText},
		{"Text/Plain", "", ws.OpText},
		{"application/octet-stream", "\x00\xff", ws.OpBinary},
		{"", strings.Repeat("x", 1000), ws.OpBinary},
	} {
		s := start(t, server.Handler{}, server.Options{Reactors: 2, MaxMessage: 1000})
		all := []io.ReadWriter{s.open(), s.open(), s.open()}
		r := s.request("POST", "/api/broadcast", row.body)
		r.Header.Set("Content-Type", row.kind)
		answer, body := s.do(r)
		var got receipt
		if err := json.Unmarshal([]byte(body), &got); err != nil || answer.StatusCode != http.StatusOK {
			t.Fatalf("%s %s %v", answer.Status, body, err)
		}
		if got.Sent != len(all) || got.Queued+got.Dropped+got.Closed != 0 || time.Since(got.Last).Abs() > patience {
			t.Errorf("%+v", got)
		}
		for _, c := range all {
			if data, op, err := wsutil.ReadServerData(c); err != nil || op != row.op || string(data) != row.body {
				t.Errorf("%v %q %v", op, data, err)
			}
		}
	}
}

func TestAReceiptCountsPeersThatDoNotRead(t *testing.T) {
	s := start(t, server.Handler{}, server.Options{OutboxPolicy: server.OutboxDropNew})
	s.openDeaf()
	s.fill()
	s.open()
	_, body := s.do(s.request("POST", "/api/broadcast", strings.Repeat("x", 4<<10)))
	var got receipt
	if err := json.Unmarshal([]byte(body), &got); err != nil || got.Sent != 1 || got.Queued+got.Dropped != 1 {
		t.Errorf("%s %v", body, err)
	}
}

// While a reactor is blocked, one broadcast is on its way and no more may be.
func TestTooManyBroadcastsAreRefused(t *testing.T) {
	g := newGate()
	s := start(t, server.Handler{Message: g.message}, server.Options{Mode: server.Inline, MaxBroadcast: 1})
	say(t, s.open(), "block it")
	g.reached(t)
	first := s.begin(s.request("POST", "/api/broadcast", "first"))
	eventually(t, "the first is on its way", func() bool { return s.Stats().Broadcast > 0 })
	r, body := s.do(s.request("POST", "/api/broadcast", "second"))
	if r.StatusCode != http.StatusServiceUnavailable || r.Header.Get("Retry-After") == "" {
		t.Errorf("%s %v %s", r.Status, r.Header, body)
	}
	g.open()
	var got receipt
	if a := <-first; json.Unmarshal([]byte(a.body), &got) != nil || got.Sent != 1 {
		t.Errorf("%d %s", a.code, a.body)
	}
}

// The answer to a broadcast does not wait for its receipt if the server ends, because
// there may never be one.
func TestABroadcastsAnswerDoesNotWaitForAnEndingServer(t *testing.T) {
	g := newGate()
	s := start(t, server.Handler{Message: g.message}, server.Options{Mode: server.Inline})
	say(t, s.open(), "block it")
	g.reached(t)
	first := s.begin(s.request("POST", "/api/broadcast", "first"))
	eventually(t, "it is on its way", func() bool { return s.Stats().Broadcast > 0 })
	s.end()
	if a := <-first; a.code != http.StatusServiceUnavailable {
		t.Errorf("while it ends: %d %s", a.code, a.body)
	}
	g.open()
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	if r, body := s.do(s.request("POST", "/api/broadcast", "last")); r.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("when it has ended: %s %s", r.Status, body)
	}
}

// An incomplete body is not sent.
func TestHalfABodyIsNotBroadcast(t *testing.T) {
	s := start(t, server.Handler{}, server.Options{})
	c := s.open()
	r := s.request("POST", "/api/broadcast", "")
	r.Body, r.ContentLength = io.NopCloser(bytes.NewReader([]byte("half"))), 8
	if answer, err := http.DefaultTransport.RoundTrip(r); err == nil {
		answer.Body.Close()
		if answer.StatusCode != http.StatusBadRequest {
			t.Errorf("%s", answer.Status)
		}
	}
	if err := s.Broadcast(frame.Text, []byte("whole")); err != nil {
		t.Fatal(err)
	}
	if got, err := wsutil.ReadServerText(c); err != nil || string(got) != "whole" {
		t.Errorf("%q %v", got, err)
	}
}

func TestProfilesCanBeRead(t *testing.T) {
	s := start(t, server.Handler{}, server.Options{})
	for path, says := range map[string]string{
		"/debug/pprof/":                   "goroutine",
		"/debug/pprof/goroutine?debug=1":  "goroutine profile",
		"/debug/pprof/heap?debug=1":       "heap profile",
		"/debug/pprof/cmdline":            "admin.test",
		"/debug/pprof/symbol":             "num_symbols",
		"/debug/pprof/trace?seconds=0.01": "trace",
		"/debug/pprof/profile?seconds=1":  "",
	} {
		if code, body := s.get(path); code != http.StatusOK || !strings.Contains(body, says) {
			t.Errorf("%s: %d %.100q", path, code, body)
		}
	}
}

func TestEndingsSayWhy(t *testing.T) {
	s := start(t, server.Handler{}, server.Options{})
	s.open().Close()
	s.counted("closed_gone", 1)
	s.open().Close()
	s.counted("closed_gone", 2)
	polite := s.open()
	if err := wsutil.WriteClientMessage(polite, ws.OpClose, ws.NewCloseFrameBody(ws.StatusNormalClosure, "")); err != nil {
		t.Fatal(err)
	}
	s.counted("closed_clean", 1)
	var now connections
	s.json("/api/connections", &now)
	if len(now.Causes) != 2 || now.Causes[0].Count != 2 || !strings.HasPrefix(now.Causes[0].Cause, "gone") || now.Causes[1].Cause != "clean" {
		t.Errorf("%+v", now.Causes)
	}
	for _, e := range now.Endings {
		if !strings.HasPrefix(e.Remote, "127.0.0.1:") {
			t.Errorf("%+v", e)
		}
	}
	if len(now.Endings) != 3 || now.Endings[0].Cause != "clean" || now.Endings[0].Code != uint16(frame.NormalClosure) || time.Since(now.Endings[0].Time) > patience {
		t.Errorf("%+v", now.Endings)
	}
}
