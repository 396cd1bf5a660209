package admin_test

import (
	"errors"
	"io"
	"net"
	"net/http"
	"runtime"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/internal/build"
	"github.com/seed-134acfd0/lull/server"
	"github.com/seed-134acfd0/lull/server/admin"
)

func TestMetricsPassPrometheusLint(t *testing.T) {
	s := start(t, server.Handler{}, server.Options{})
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(admin.NewCollector(s.Server))
	problems, err := testutil.GatherAndLint(registry)
	if err != nil || len(problems) > 0 {
		t.Errorf("%v, %+v", err, problems)
	}
}

// Every counter of the server has a row in metrics.go.
func TestEveryCounterHasAMetric(t *testing.T) {
	scrape := start(t, server.Handler{}, server.Options{}).scrape()
	taken := make(map[string]string)
	for _, c := range counters() {
		if c == "rejected" {
			continue // it is shown by status, see below
		}
		series, ok := admin.SeriesOf(c)
		if !ok {
			t.Errorf("%v has no row in metrics.go", c)
			continue
		}
		if _, ok := scrape[series]; !ok {
			t.Errorf("%v is not shown as %s", c, series)
		}
		if other, ok := taken[series]; ok {
			t.Errorf("%v and %v are both %s", c, other, series)
		}
		taken[series] = c
	}
	if n, ok := scrape[`lull_handshakes_rejected_total{status="503"}`]; !ok || n != 0 {
		t.Errorf("rejections are not shown from the start")
	}
}

func TestMetricsHaveTheRightValues(t *testing.T) {
	h := server.Handler{
		Upgrade: func(r *server.Request) error {
			if r.Target() == "/secret" {
				return &server.Reject{Status: http.StatusForbidden, Reason: "no"}
			}
			return nil
		},
		Message: func(c server.Conn, op frame.Op, data []byte) { _ = c.Send(op, data) },
	}
	s := start(t, h, server.Options{Reactors: 2, MaxConns: 50})
	const conns = 5
	for range conns {
		c := s.open()
		say(t, c, "hello")
		if got, err := wsutil.ReadServerText(c); err != nil || string(got) != "hello" {
			t.Fatalf("%q, %v", got, err)
		}
	}
	var rejected ws.StatusError
	if _, err := s.dial(&net.Dialer{}, "/secret"); !errors.As(err, &rejected) || int(rejected) != http.StatusForbidden {
		t.Fatal(err)
	}
	foreign := ws.Dialer{Header: ws.HandshakeHeaderHTTP{"Origin": {"https://elsewhere.example"}}}
	if _, _, _, err := foreign.Dial(t.Context(), "ws://"+s.Addrs()[0].String()); !errors.As(err, &rejected) || int(rejected) != http.StatusForbidden {
		t.Fatal(err)
	}
	aborted, err := net.Dial("tcp", s.Addrs()[0].String())
	if err != nil {
		t.Fatal(err)
	}
	aborted.Close()
	left := s.open()
	if err := wsutil.WriteClientMessage(left, ws.OpClose, ws.NewCloseFrameBody(ws.StatusNormalClosure, "")); err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, left)
	late, err := net.Dial("tcp", s.Addrs()[0].String())
	if err != nil {
		t.Fatal(err)
	}
	defer late.Close()

	for series, want := range map[string]float64{
		`lull_connections{state="open"}`:                 conns,
		`lull_connections{state="handshaking"}`:          1,
		`lull_connections{state="closing"}`:              0,
		`lull_connections_limit`:                         50,
		`lull_sockets`:                                   conns + 1,
		`lull_sockets_limit`:                             float64(s.Stats().SocketsMax),
		`lull_accepted_total`:                            conns + 5,
		`lull_connections_opened_total`:                  conns + 1,
		`lull_handshakes_rejected_total{status="403"}`:   2,
		`lull_handshakes_refused_total{reason="origin"}`: 1,
		`lull_handshakes_refused_total{reason="memory"}`: 0,
		`lull_handshakes_rejected_total{status="503"}`:   0,
		`lull_handshakes_aborted_total`:                  1,
		`lull_connections_closed_total{reason="clean"}`:  1,
		`lull_connections_closed_total{reason="gone"}`:   0,
		`lull_messages_received_total`:                   conns,
		`lull_messages_sent_total`:                       conns,
		`lull_workers_limit`:                             float64(s.Options().Workers),
		`lull_reactors`:                                  2,
		`lull_outbox_bytes`:                              0,
		`lull_outbox_limit_bytes`:                        float64(s.Options().MaxOutboxTotal),
		`lull_inbox_limit_bytes`:                         float64(s.Options().MaxInboxTotal),
		`lull_broadcast_limit_bytes`:                     float64(s.Options().MaxBroadcast),
		`lull_handler_seconds_count`:                     s.scrape()[`lull_handler_seconds_count`], // any; the next test checks it
		`lull_handler_calls`:                             0,
		`lull_partial_bytes`:                             0,
		`lull_partial_limit_bytes`:                       float64(s.Options().MaxPartial),
		`lull_workers_stuck`:                             0,
		`lull_messages_dropped_total{policy="drop-old"}`: 0,
		`lull_setup_info{inbox_policy="pause",mode="workers",outbox_policy="close",tables="private"}`: 1,
		// A test program has neither version nor commit.
		`lull_build_info{commit="",go_version="` + runtime.Version() + `",version="` + build.Read().Version + `"}`: 1,
	} {
		s.shows(series, want)
	}
	scrape := s.scrape()
	for _, name := range []string{
		"lull_bytes_received_total", "lull_bytes_sent_total", "lull_descriptors_limit", "lull_machine_files_open", "lull_machine_files_limit",
		"lull_kernel_slab_bytes", "process_resident_memory_bytes", "go_goroutines", "lull_reactor_turn_seconds_count",
	} {
		if scrape[name] <= 0 {
			t.Errorf("%s is %v", name, scrape[name])
		}
	}
	for _, name := range []string{"lull_connection_user_bytes", "lull_connection_kernel_bytes"} {
		if v, ok := scrape[name]; ok {
			t.Errorf("%s is %v, and so few connections do not tell", name, v)
		}
	}
}

// A handler blocks for a while. Its time is shown in seconds, and in all buckets
// from that time on.
func TestTimesAreInSeconds(t *testing.T) {
	g := newGate()
	s := start(t, server.Handler{Message: g.message}, server.Options{Workers: 1})
	before := time.Now()
	c := s.open()
	say(t, c, "hello")
	g.reached(t)
	blocked := time.Now()
	<-time.After(20 * time.Millisecond)
	least := time.Since(blocked).Seconds()
	g.open()
	const quick = 3
	for range quick {
		say(t, c, "hello")
		g.reached(t)
	}
	s.shows("lull_handler_calls", 0)
	most := time.Since(before).Seconds()

	scrape := s.scrape()
	if sum := scrape["lull_handler_seconds_sum"]; sum < least || sum > most {
		t.Errorf("handlers took %v s, not between %v and %v", sum, least, most)
	}
	all := scrape["lull_handler_seconds_count"]
	if n := scrape[`lull_handler_seconds_bucket{le="0.016384"}`]; n != all-1 {
		t.Errorf("%v of %v took up to 16 ms", n, all)
	}
	if n := scrape[`lull_handler_seconds_bucket{le="67.108864"}`]; n != all || all <= quick {
		t.Errorf("%v of %v took up to a minute", n, all)
	}
	var status struct {
		Times map[string]struct {
			Median float64 `json:"median_seconds"`
			P99    float64 `json:"p99_seconds"`
		}
	}
	s.json("/api/status", &status)
	if h := status.Times["handler"]; h.P99 < least || h.P99 > 2*most || h.Median >= least {
		t.Errorf("a median of %v and a p99 of %v, where one took %v to %v", h.Median, h.P99, least, most)
	}
}

// The outboxes of peers that do not read are shown, each and all together.
func TestOutboxesShow(t *testing.T) {
	s := start(t, server.Handler{}, server.Options{OutboxPolicy: server.OutboxDropNew, MaxOutbox: 16 << 10})
	s.openDeaf()
	s.openDeaf()
	s.fill()
	s.shows("lull_slow_connections", 2)
	s.shows("lull_connection_outbox_bytes_count", 2)
	s.shows("lull_connection_outbox_bytes_sum", float64(s.Stats().Outbox))
	scrape := s.scrape()
	if n := scrape["lull_outbox_high_total"] - scrape["lull_outbox_low_total"]; n != 2 {
		t.Errorf("%v are slow", n)
	}
	if n := scrape[`lull_connection_outbox_bytes_bucket{le="32767"}`]; n != 2 {
		t.Errorf("%v outboxes are smaller than twice MaxOutbox", n)
	}
	if n := scrape[`lull_connection_outbox_bytes_bucket{le="255"}`]; n != 0 {
		t.Errorf("%v outboxes have next to nothing", n)
	}
	if n := scrape[`lull_messages_dropped_total{policy="drop-new"}`]; n < 2 {
		t.Errorf("%v were dropped", n)
	}
}

// The metrics show the overload before the first message is lost.
func TestAHalfFullInboxShowsBeforeAnythingIsDropped(t *testing.T) {
	g := newGate()
	defer g.open()
	s := start(t, server.Handler{Message: g.message}, server.Options{Workers: 1, MaxInboxMessages: 8, InboxPolicy: server.InboxDrop})
	c := s.open()
	say(t, c, "the first")
	g.reached(t)
	for range 4 {
		say(t, c, "another")
	}
	s.shows("lull_inbox_high_total", 1)
	s.shows("lull_inbox_low_total", 0)
	s.shows("lull_workers_busy", 1)
	s.shows(`lull_messages_dropped_total{policy="inbox"}`, 0)
	for range 20 {
		say(t, c, "too many")
	}
	s.shows("lull_messages_received_total", 25)
	if n := s.scrape()[`lull_messages_dropped_total{policy="inbox"}`]; n == 0 {
		t.Error("nothing was dropped, so there was no time before it")
	}
}

func TestHandlersOnReactorsHaveNoWorkers(t *testing.T) {
	s := start(t, server.Handler{}, server.Options{Mode: server.Inline})
	s.shows("lull_workers_limit", 0)
	s.shows("lull_workers_busy", 0)
}
