package pusher

import (
	"cmp"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metric is something of Stats.
type metric struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
	of   func(*Stats) float64
}

func pusherDesc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("lull_pusher_"+name, help, labels, nil)
}

func total(name, help string, of func(*Stats) uint64) metric {
	return metric{pusherDesc(name+"_total", help), prometheus.CounterValue, func(s *Stats) float64 { return float64(of(s)) }}
}

func level(name, help string, of func(*Stats) int) metric {
	return metric{pusherDesc(name, help), prometheus.GaugeValue, func(s *Stats) float64 { return float64(of(s)) }}
}

var metrics = []metric{
	total("subscriptions", "Number of subscriptions to channels.", func(s *Stats) uint64 { return s.Subscriptions }),
	total("events_published", "Number of events that publishers have published, each once for each channel.", func(s *Stats) uint64 { return s.Published }),
	total("client_events", "Number of events that clients have published.", func(s *Stats) uint64 { return s.ClientEvents }),
	total("events_unsent", "Number of answers that a connection did not take, because it reads too slowly.", func(s *Stats) uint64 { return s.Unsent }),
	total("member_changes_lost", "Number of members that came or went without other members being told, because too much was on its way.", func(s *Stats) uint64 { return s.Lost }),
	total("questions_unanswered", "Number of questions about channels that another node has not answered, or not to the end.", func(s *Stats) uint64 { return s.Unanswered }),
	total("cache_evicted", "Number of last events of cache channels that were dropped because there were too many.", func(s *Stats) uint64 { return s.CacheEvicted }),
	total("webhook_events", "Number of events that webhooks were told.", func(s *Stats) uint64 { return s.HookEvents }),
	total("webhook_events_lost", "Number of events that webhooks were not told, because they failed for too long or are too slow.", func(s *Stats) uint64 { return s.HookLost }),
	total("webhook_requests", "Number of requests to webhooks.", func(s *Stats) uint64 { return s.HookTries }),
	total("webhook_requests_failed", "Number of requests to webhooks that have failed.", func(s *Stats) uint64 { return s.HookFailures }),
	level("channels", "Channels that have subscribers.", func(s *Stats) int { return s.Channels }),
	level("cache_events", "Last events of cache channels that are kept.", func(s *Stats) int { return s.Cached }),
	level("cache_bytes", "Memory that they take, in bytes.", func(s *Stats) int { return s.CacheBytes }),
}

var (
	appDesc     = pusherDesc("connections", "Open connections of an app.", "app")
	faultDesc   = pusherDesc("refused_total", "Number of handshakes, messages, subscriptions and requests of publishers that were refused, by the reason.", "reason")
	waitingDesc = pusherDesc("webhook_events_waiting", "Events that a webhook is not told yet.", "app", "url")
	failingDesc = pusherDesc("webhook_failing_seconds", "For how long a webhook has failed; 0 if it does not.", "app", "url")
)

// Describe is for Prometheus, whose Collector Pusher is.
func (p *Pusher) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{appDesc, faultDesc, waitingDesc, failingDesc} {
		out <- d
	}
	for i := range metrics {
		out <- metrics[i].desc
	}
}

// Collect is for Prometheus.
func (p *Pusher) Collect(out chan<- prometheus.Metric) {
	s := p.Stats()
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	for i := range metrics {
		out <- prometheus.MustNewConstMetric(metrics[i].desc, metrics[i].kind, metrics[i].of(&s))
	}
	for name, n := range s.Faults {
		out <- prometheus.MustNewConstMetric(faultDesc, prometheus.CounterValue, float64(n), name)
	}
	for _, a := range s.Apps {
		gauge(appDesc, float64(a.Connections), a.ID)
	}
	for _, h := range s.Hooks {
		gauge(waitingDesc, float64(h.Waiting), h.App, h.URL)
		gauge(failingDesc, h.failing().Seconds(), h.App, h.URL)
	}
}

// failing is for how long a webhook has failed.
func (h *HookStats) failing() time.Duration {
	if h.Since.IsZero() {
		return 0
	}
	return time.Since(h.Since)
}

// Status is how the apps are, for a page.
type Status struct {
	Apps         []AppStatus     `json:"apps"`
	Channels     int             `json:"channels"`
	Published    uint64          `json:"events_published"`
	ClientEvents uint64          `json:"client_events"`
	Refused      []RefusedStatus `json:"refused"` // the most frequent first
}

// AppStatus is how an app is.
type AppStatus struct {
	ID          string  `json:"id"`
	Connections int64   `json:"connections"`
	Limit       int     `json:"connections_limit"` // 0 is none
	Waiting     int     `json:"webhook_events_waiting"`
	Failing     float64 `json:"webhook_failing_seconds"` // of the webhook that has failed for longest
	Advice      string  `json:"advice"`                  // what there is to do; empty if nothing is
}

// RefusedStatus is how often something was refused.
type RefusedStatus struct {
	Reason string `json:"reason"`
	Count  uint64 `json:"count"`
}

// refusedMost is how many reasons are named.
const refusedMost = 5

// Status is how the apps are, as JSON for a page.
func (p *Pusher) Status() any {
	s := p.Stats()
	is := Status{Apps: []AppStatus{}, Channels: s.Channels, Published: s.Published, ClientEvents: s.ClientEvents, Refused: []RefusedStatus{}}
	for _, a := range s.Apps {
		one := AppStatus{ID: a.ID, Connections: a.Connections, Limit: a.Limit}
		for i := range s.Hooks {
			h := &s.Hooks[i]
			if h.App != a.ID {
				continue
			}
			one.Waiting += h.Waiting
			if f := h.failing().Seconds(); f > one.Failing {
				one.Failing, one.Advice = f, h.URL+" fails: "+h.Cause
			}
		}
		if one.Limit > 0 && one.Connections >= int64(one.Limit) {
			one.Advice = cmp.Or(one.Advice, "it has all the connections that it may have")
		}
		is.Apps = append(is.Apps, one)
	}
	for name, n := range s.Faults {
		if n > 0 {
			is.Refused = append(is.Refused, RefusedStatus{name, n})
		}
	}
	slices.SortFunc(is.Refused, func(a, b RefusedStatus) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Reason, b.Reason))
	})
	is.Refused = is.Refused[:min(len(is.Refused), refusedMost)]
	return is
}
