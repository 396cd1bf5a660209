package hooks

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/seed-134acfd0/lull/server"
	"github.com/seed-134acfd0/lull/server/internal/spread"
)

// level is a metric of what a backend has now.
type level struct {
	desc *prometheus.Desc
	of   func(*BackendStats) float64
}

func hookDesc(name, help string) *prometheus.Desc {
	return prometheus.NewDesc("lull_hook_"+name, help, []string{"backend"}, nil)
}

var levels = []level{
	{hookDesc("down", "1 while the backend is down: handshakes are refused, and messages wait."), func(s *BackendStats) float64 {
		if s.Down {
			return 1
		}
		return 0
	}},
	{hookDesc("calls", "Calls that the backend has to answer. As many as lull_hook_calls_limit means: scale the backend."), func(s *BackendStats) float64 { return float64(s.Busy) }},
	{hookDesc("calls_limit", "Calls that the backend gets at once: its workers."), func(s *BackendStats) float64 { return float64(s.Limit) }},
	{hookDesc("calls_waiting", "Calls that wait for their turn."), func(s *BackendStats) float64 { return float64(s.Turns) }},
	{hookDesc("connections_waiting", "Connections whose messages wait for the backend."), func(s *BackendStats) float64 { return float64(s.Parked) }},
	{hookDesc("waiting_seconds", "For how long connections have waited for the backend without a pause."), func(s *BackendStats) float64 { return s.ParkedSince.Seconds() }},
	{hookDesc("messages_held_now", "Messages that the backend has not taken, and that are sent again."), func(s *BackendStats) float64 { return float64(s.Held) }},
	{hookDesc("disconnects_waiting", "Ended connections of which the backend is not told yet."), func(s *BackendStats) float64 { return float64(s.Ends) }},
}

// spans are the histograms.
var spans = []struct {
	desc *prometheus.Desc
	of   func(*BackendStats) *server.Histogram
}{
	{hookDesc("turn_seconds", "How long calls waited for their turn."), func(s *BackendStats) *server.Histogram { return &s.TurnTime }},
	{hookDesc("answer_seconds", "How long the backend took to answer."), func(s *BackendStats) *server.Histogram { return &s.AnswerTime }},
}

var (
	countDescs = func() (all [len(CounterNames)]*prometheus.Desc) {
		for i, c := range CounterNames {
			all[i] = hookDesc(c.Name+"_total", "Number of "+c.Help+".")
		}
		return all
	}()
	apiDesc    = prometheus.NewDesc("lull_api_requests_total", "Requests to the API for backends, by what came of them.", []string{"result"}, nil)
	noPathDesc = prometheus.NewDesc("lull_hook_no_backend_total", "Handshakes for whose path there is no backend.", nil, nil)
)

// Describe is for Prometheus, whose Collector Hooks is.
func (h *Hooks) Describe(out chan<- *prometheus.Desc) {
	out <- apiDesc
	out <- noPathDesc
	for _, d := range countDescs {
		out <- d
	}
	for i := range levels {
		out <- levels[i].desc
	}
	for i := range spans {
		out <- spans[i].desc
	}
}

// Collect is for Prometheus.
func (h *Hooks) Collect(out chan<- prometheus.Metric) {
	stats := h.Stats()
	for code, n := range stats.API {
		out <- prometheus.MustNewConstMetric(apiDesc, prometheus.CounterValue, float64(n), code)
	}
	out <- prometheus.MustNewConstMetric(noPathDesc, prometheus.CounterValue, float64(stats.NoPath))
	for i := range stats.Backends {
		b := &stats.Backends[i]
		for j, d := range countDescs {
			out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(b.Counts[CounterNames[j].Name]), b.URL)
		}
		for j := range levels {
			out <- prometheus.MustNewConstMetric(levels[j].desc, prometheus.GaugeValue, levels[j].of(b), b.URL)
		}
		for j := range spans {
			out <- spread.Times.Metric(spans[j].desc, spans[j].of(b), b.URL)
		}
	}
}

// Status is how a backend is, for a page.
type Status struct {
	Path    string            `json:"path"`
	URL     string            `json:"url"`
	Down    float64           `json:"down_seconds"` // for which it has been down; 0 while it is up
	Cause   string            `json:"cause"`        // why it is down
	Busy    int               `json:"calls"`
	Limit   int               `json:"calls_limit"`
	Turns   int               `json:"calls_waiting"`
	Parked  int               `json:"connections_waiting"`
	For     float64           `json:"waiting_seconds"` // that there have been such, without a pause
	Longest []WaitingStatus   `json:"longest"`         // those of them that wait for longest
	Held    int               `json:"messages_held"`
	Ends    int               `json:"disconnects_waiting"`
	Advice  string            `json:"advice"` // what there is to do; empty if nothing is
	Answer  float64           `json:"answer_median_seconds"`
	Lost    uint64            `json:"messages_lost"`
	Counts  map[string]uint64 `json:"counters"`
}

// WaitingStatus is a connection whose messages wait.
type WaitingStatus struct {
	ID   string  `json:"id"`
	User string  `json:"user"`
	For  float64 `json:"waiting_seconds"`
}

// Status is how the backends are, as JSON for a page.
func (h *Hooks) Status() any {
	var all []Status
	for _, b := range h.Stats().Backends {
		s := Status{
			Path: b.Path, URL: b.URL, Cause: b.Cause, Busy: b.Busy, Limit: b.Limit, Turns: b.Turns, Parked: b.Parked, For: b.ParkedSince.Seconds(),
			Longest: []WaitingStatus{}, Held: b.Held, Ends: b.Ends, Advice: b.Advice(), Answer: spread.Times.Quantile(&b.AnswerTime, 0.5),
			Lost: b.Counts[CounterNames[messagesLost].Name], Counts: b.Counts,
		}
		if b.Down {
			s.Down = time.Since(b.Since).Seconds()
		}
		for _, w := range b.Longest {
			s.Longest = append(s.Longest, WaitingStatus{w.ID, w.User, w.For.Seconds()})
		}
		all = append(all, s)
	}
	return all
}
