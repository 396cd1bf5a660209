package experiment

import (
	"context"
	"time"

	"github.com/seed-134acfd0/lull/loadgen"
	"github.com/seed-134acfd0/lull/loadgen/result"
)

// The scenarios in which handlers or peers are slow.

// blocking is five clients of a handler that sleeps for a second: how many messages
// a second it handles in a mode, and how long another client's Ping takes.
func blocking(mode string, served, ping, stalls target, serve ...string) scenario {
	return scenario{
		name: "blocking-" + mode, named: true, watched: true, delay: time.Second, serve: append(serve, "--reactors", "1"),
		load: loadgen.Config{Conns: 5, Active: 5, Echo: 10500 * time.Millisecond, Probe: 10 * time.Millisecond, Workers: 1},
		figures: []figure{
			{"handler of 1 s, 5 callers", "messages/s", served, func(o outcome) float64 { return o.load.Echo.Rate }},
			{"another's ping during it, p99", "ms", ping, func(o outcome) float64 { return o.load.Probe.Busy.P99 }},
			{"stalls that the watchdog flags", "", stalls, func(o outcome) float64 { return o.watcher.last["lull_reactor_stalls_total"] }},
		},
	}
}

const (
	clickers = 2_000
	clicked  = time.Minute
	mebi     = 1 << 20
)

// clicking is clients that send more than a handler of 5 ms on 4 workers can
// handle. After they have stopped, the handler becomes fast, so that the remaining
// messages arrive soon and can be counted.
func clicking(name string, figures []figure, serve ...string) scenario {
	return scenario{
		name: name, named: true, watched: true, lossy: true, delay: 5 * time.Millisecond, delayFor: clicked + 5*time.Second,
		serve: append(serve, "--handlers", "workers", "--workers", "4"),
		load: loadgen.Config{Conns: clickers, Hold: time.Second, Flood: clickers, Echo: clicked, Size: 256,
			Patience: 20 * time.Second},
		figures: figures,
	}
}

func clickingFigures() []figure {
	return []figure{
		{"connections closed", "", atMost(0, 0), func(o outcome) float64 { return float64(clickers - o.load.Open) }},
		{"messages lost", "", atMost(0, 0), func(o outcome) float64 {
			return float64(o.load.Lost + o.load.Counts["missed"] + o.load.Counts["repeated"])
		}},
		{"messages that came back", "", atLeast(1, 1), func(o outcome) float64 { return float64(o.load.Echo.Flood.Answered) }},
		{"handled while they clicked", "messages/s", atLeast(700, 760), func(o outcome) float64 { return o.load.Echo.Rate }},
		// For each connection 16 KiB are in its inbox, and 16 KiB were read after those.
		{"memory, at most", "MiB", atMost(128, 96), func(o outcome) float64 { return o.grown(0, clicked) / mebi }},
		{"memory grown in the second half", "MiB", atMost(8, 4), func(o outcome) float64 {
			return (o.grown(clicked/2, clicked) - o.grown(0, clicked/2)) / mebi
		}},
	}
}

// grown is the largest growth of the server's memory between two times of the echo
// phase, in bytes since the start.
func (o outcome) grown(from, to time.Duration) (most float64) {
	begun := o.cost("echo").Begun
	for _, s := range o.samples {
		if at := s.Seconds - begun; at >= from.Seconds() && at < to.Seconds() {
			most = max(most, float64(s.Server-o.samples[0].Server))
		}
	}
	return most
}

// warning is clicking at a lower rate, at a server that closes connections whose
// inbox is full: how long before the first close the metrics give a warning.
func warning() scenario {
	s := clicking("clicking-warning", []figure{
		{"from the high watermark to the first close", "s", atLeast(1, 10), func(o outcome) float64 {
			return o.watcher.between("lull_inbox_high_total", `lull_connections_closed_total{reason="inbox"}`)
		}},
		{"connections closed", "", atLeast(1, 1), func(o outcome) float64 { return float64(o.load.Counts["closed"]) }},
	}, "--inbox-policy", "close")
	s.load.FloodRate = 4_000
	return s
}

// flooding is one connection that sends as fast as it can, and ten thousand that
// send now and then, all to a handler of 5 ms on 4 workers.
func flooding() scenario {
	const conns, pace = 10_001, 400
	load := loadgen.Config{Conns: conns, Hold: time.Second, Active: conns - 1, Pace: pace, Echo: 20 * time.Second, Size: 256, Patience: 20 * time.Second}
	flooded := load
	flooded.Flood = 1
	return scenario{
		name: "flooding", named: true, delay: 5 * time.Millisecond, delayFor: 25 * time.Second,
		serve: []string{"--handlers", "workers", "--workers", "4"},
		load:  flooded, instead: &load,
		figures: []figure{
			{"the polite ones' p99", "ms", atMost(100, 50), func(o outcome) float64 { return o.load.Echo.Latency.P99 }},
			{"the polite ones' p99, and without the flood", "ms", ratioAtMost(3, 2), func(o outcome) float64 { return o.load.Echo.Latency.P99 }},
			{"messages lost", "", atMost(0, 0), func(o outcome) float64 { return float64(o.load.Lost) }},
		},
	}
}

// slow is 2,000 of 20,000 connections that stop reading while broadcasts go on.
func slow(policy string) scenario {
	const conns, deaf, outbox = 20_000, 2_000, 64 << 10
	load := loadgen.Config{Conns: conns, Hold: time.Second, Segment: 1460, Broadcasts: 1200, Burst: 10, Size: 1024}
	with := load
	with.Deaf = deaf
	sent := func(o outcome) float64 { return o.watcher.last.sum("lull_messages_sent_total") }
	figures := []figure{
		{"others' p99, and without slow ones", "ms", ratioAtMost(2, 1.2), func(o outcome) float64 {
			return o.median(func(b result.Broadcast) float64 { return b.Latency.P99 })
		}},
		{"others' messages lost", "", atMost(0, 0), func(o outcome) float64 {
			return float64(o.load.Lost + o.load.Counts["missed"])
		}},
		{"outboxes, at most", "MiB", atMost(deaf*outbox/mebi+1, deaf*outbox/mebi+1), func(o outcome) float64 { return o.watcher.most["lull_outbox_bytes"] / mebi }},
		{"memory, at most", "MiB", atMost(deaf*outbox/mebi+1, 32), func(o outcome) float64 { return o.most() / mebi }},
		{"accepted", "messages", atLeast(1, 1), func(o outcome) float64 { return o.watcher.last.sum("lull_messages_accepted_total") }},
		{"sent", "messages", atLeast(1, 1), sent},
		{"dropped, conflated or undelivered", "messages", atLeast(1, 1), func(o outcome) float64 {
			return o.watcher.last.sum("lull_messages_dropped_total") + o.watcher.last.sum("lull_messages_undelivered_total")
		}},
		{"accepted, and none of these", "messages", atMost(0, 0), func(o outcome) float64 {
			m := o.watcher.last
			return m.sum("lull_messages_accepted_total") - sent(o) - m.sum("lull_messages_dropped_total") - m.sum("lull_messages_undelivered_total")
		}},
	}
	if policy == "close" {
		figures = append(figures, figure{"connections closed", "", atLeast(deaf, deaf), func(o outcome) float64 {
			return o.watcher.last[`lull_connections_closed_total{reason="outbox"}`]
		}})
	} else {
		figures = append(figures, figure{"sent, and not received", "messages", atMost(0, 0), func(o outcome) float64 {
			return sent(o) - float64(o.load.Counts["received"]+o.load.Counts["deaf_received"])
		}})
	}
	return scenario{
		name: "slow-" + policy, named: true, mode: "chat", watched: true, lossy: true,
		serve: []string{"--outbox-policy", policy}, load: with, instead: &load, figures: figures,
	}
}

// most is the largest growth of the server's memory during the broadcasts, in bytes.
func (o outcome) most() (most float64) {
	begun := o.cost("broadcast").Begun
	base := int64(0)
	for _, s := range o.samples {
		if s.Seconds < begun {
			base = s.Server
		} else {
			most = max(most, float64(s.Server-base))
		}
	}
	return most
}

// scraping is what reading the metrics costs the reactors at a million connections.
func scraping() scenario {
	return scenario{
		name: "metrics-1m", named: true, mode: "chat", scraped: true,
		load: loadgen.Config{Conns: 1_000_000, Hold: 2*scrapeWindow + 2*time.Second},
		figures: []figure{
			// All that the reactors did in a window with scrapes, which is more
			// than the scrapes cost.
			{"reactors' time, all of it, for each scrape", "ms", atMost(100, 10), func(o outcome) float64 {
				return o.scrapes.busy / float64(o.scrapes.n) * 1000
			}},
			{"reactors' time for each scrape, above what they did without", "ms", atMost(100, 1), func(o outcome) float64 {
				return (o.scrapes.busy - o.scrapes.idle) / float64(o.scrapes.n) * 1000
			}},
			{"server CPU for each scrape, above what it did without", "ms", atMost(100, 20), func(o outcome) float64 {
				return (o.scrapes.busyCPU - o.scrapes.idleCPU) / float64(o.scrapes.n) * 1000
			}},
			{"a scrape takes", "ms", atMost(100, 20), func(o outcome) float64 { return result.Median(o.scrapes.took) * 1000 }},
		},
	}
}

// scrapeWindow is how long the server is measured with scrapes, and how long
// without.
const scrapeWindow = 10 * time.Second

// scrapes is how long a server worked in two windows of equal length, in seconds:
// idle is the window without scrapes, busy the one with them.
type scrapes struct {
	n                int
	idle, busy       float64   // of the reactors
	idleCPU, busyCPU float64   // of the process
	took             []float64 // each scrape
}

// measureScrapes scrapes a server that has nothing else to do.
func measureScrapes(ctx context.Context, url string) (s scrapes, err error) {
	const reactors, process = "lull_reactor_turn_seconds_sum", "process_cpu_seconds_total"
	before, err := scrape(ctx, url)
	if err != nil {
		return s, err
	}
	select {
	case <-time.After(scrapeWindow):
	case <-ctx.Done():
		return s, ctx.Err()
	}
	between, err := scrape(ctx, url)
	if err != nil {
		return s, err
	}
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	last := between
	for begun := time.Now(); time.Since(begun) < scrapeWindow; s.n++ {
		at := time.Now()
		if last, err = scrape(ctx, url); err != nil {
			return s, err
		}
		s.took = append(s.took, time.Since(at).Seconds())
		<-tick.C
	}
	s.idle, s.busy = between[reactors]-before[reactors], last[reactors]-between[reactors]
	s.idleCPU, s.busyCPU = between[process]-before[process], last[process]-between[process]
	return s, nil
}
