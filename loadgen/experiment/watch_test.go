package experiment

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/seed-134acfd0/lull/loadgen/result"
)

// A watcher records when each value first rose, the highest and the last values.
func TestAWatcherSeesWhatRises(t *testing.T) {
	var looks atomic.Int64
	enough := make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n := looks.Add(1)
		if n == 6 {
			close(enough)
		}
		if r.URL.Path != "/metrics" {
			t.Errorf("asked for %s", r.URL.Path)
		}
		fmt.Fprintf(w, "# HELP early what rises first\n# TYPE early counter\nearly{reason=\"a b\"} %d\nearly{reason=\"c\"} 1\nlate %d\npeak %d\nstill 7\n",
			max(0, n-1), max(0, n-4), 10-n)
	}))
	defer s.Close()
	w := watchMetrics(s.URL + "/")
	<-enough
	if err := w.end(); err != nil {
		t.Fatal(err)
	}
	const early = `early{reason="a b"}`
	if gap := w.between(early, "late"); gap < (watchEvery / 2).Seconds() {
		t.Errorf("%v s between the two", gap)
	}
	if gap := w.between("still", "late") + w.between("late", "still"); gap != 0 {
		t.Errorf("%v s between what rose and what did not", gap)
	}
	if w.most["peak"] != 8 || w.last["peak"] != float64(10-looks.Load()) {
		t.Errorf("the peak was %v, in the end %v after %d looks", w.most["peak"], w.last["peak"], looks.Load())
	}
	if got := w.last.sum("early"); got != w.last[early]+1 || w.last.sum("earl") != 0 {
		t.Errorf("the sum is %v of %v", got, w.last)
	}
}

func TestScrapesThatFail(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "lull_x many") }))
	if _, err := scrape(t.Context(), s.URL+"/"); err == nil || !strings.Contains(err.Error(), "no metric") {
		t.Errorf("got %v", err)
	}
	s.Close()
	if err := watchMetrics(s.URL + "/").end(); err == nil || !strings.Contains(err.Error(), "scrape") {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := measureScrapes(ctx, s.URL+"/"); err == nil {
		t.Error("measureScrapes returned no error although the server is gone")
	}
}

// grown is the largest growth within its times of the phase.
func TestGrowthIsMeasuredWithinThePhase(t *testing.T) {
	o := outcome{
		costs: []Cost{{Phase: "ramp", Begun: 0}, {Phase: "echo", Begun: 10}, {Phase: "broadcast", Begun: 10}},
		samples: []Sample{
			{Seconds: 0, Server: 100}, {Seconds: 9, Server: 900}, {Seconds: 10, Server: 300}, {Seconds: 14, Server: 250},
			{Seconds: 16, Server: 400}, {Seconds: 25, Server: 1000},
		},
	}
	if a, b := o.grown(0, 5*time.Second), o.grown(5*time.Second, 10*time.Second); a != 200 || b != 300 {
		t.Errorf("memory grew by %v and %v", a, b)
	}
	if got := o.most(); got != 100 { // 1000 - 900, the last before the phase
		t.Errorf("memory grew by %v since the phase began", got)
	}
}

func TestFiguresOfThePressureScenarios(t *testing.T) {
	o := outcome{
		load: &result.Result{
			Open: clickers - 3, Lost: 5, Counts: map[string]int{"missed": 2, "repeated": 1, "received": 60, "deaf_received": 30, "closed": 4},
			Echo: &result.Echo{Rate: 750, Flood: &result.Flood{Answered: 99}},
		},
		watcher: &watcher{
			last: metrics{
				"lull_messages_accepted_total": 130, "lull_messages_sent_total": 100,
				`lull_messages_dropped_total{policy="drop-new"}`: 10, `lull_messages_dropped_total{policy="latest"}`: 8, "lull_messages_undelivered_total": 7,
			},
			most: metrics{"lull_outbox_bytes": 3 * mebi},
		},
		scrapes: scrapes{n: 10, idle: 1, busy: 3, idleCPU: 2, busyCPU: 7, took: []float64{0.005, 0.1, 0.001}},
	}
	want := map[string]float64{
		"connections closed": 3, "messages lost": 8, "messages that came back": 99, "handled while they clicked": 750,
		"outboxes, at most": 3, "accepted": 130, "sent": 100, "dropped, conflated or undelivered": 25, "accepted, and none of these": 5,
		"sent, and not received": 10, "others' messages lost": 7,
		"reactors' time, all of it, for each scrape":                  300,
		"reactors' time for each scrape, above what they did without": 200,
		"server CPU for each scrape, above what it did without":       500,
		"a scrape takes": 5,
	}
	figures := append(append(clickingFigures(), slow("latest").figures...), scraping().figures...)
	for _, f := range figures {
		if want, ok := want[f.name]; ok && f.value(o) != want {
			t.Errorf("%s: %v, want %v", f.name, f.value(o), want)
		}
	}
}
