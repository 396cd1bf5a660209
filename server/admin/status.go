package admin

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"github.com/seed-134acfd0/lull/server"
)

// slowestShown is how many of the slowest peers are shown unless more are asked
// for.
const slowestShown = 10

// status is all that the page shows. Units stand last in its names.
type status struct {
	Addresses []netip.AddrPort `json:"addresses"`
	Uptime    float64          `json:"uptime_seconds"`
	NotReady  string           `json:"not_ready"` // why; empty while it is
	Setup     struct {
		Mode     string `json:"mode"`
		WhenFull string `json:"when_full"`
		WhenSlow string `json:"when_slow"`
		Tables   string `json:"tables"`
		Reactors int    `json:"reactors"`
		Outbox   int    `json:"outbox_bytes"`   // that a connection may be owed
		Queue    int    `json:"queue_messages"` // that its handler may have before it
	} `json:"setup"`

	Connections struct {
		Open        int64  `json:"open"`
		Limit       int    `json:"limit"`
		Handshaking int    `json:"handshaking"`
		Closing     int    `json:"closing"`
		Paused      int    `json:"paused"`    // not read until their handlers have got on
		HalfFull    uint64 `json:"half_full"` // whose handlers have half of what they may have
		Held        int    `json:"held"`      // not read until their broadcasts have been sent
		Slow        int    `json:"slow"`      // whose peers are owed half of what they may be
	} `json:"connections"`
	Memory struct {
		User   float64 `json:"user_bytes_per_connection"`
		Kernel float64 `json:"kernel_bytes_per_connection"`
	} `json:"memory"`
	Owed      level `json:"owed"`      // to peers
	Queued    level `json:"queued"`    // before handlers
	Published level `json:"published"` // broadcasts on their way
	Workers   struct {
		Busy    int `json:"busy"`
		Limit   int `json:"limit"` // 0 if handlers run on the reactors
		Waiting int `json:"waiting_connections"`
	} `json:"workers"`
	Times struct {
		Turn   took `json:"reactor_turn"`
		Pass   took `json:"broadcast_pass"`
		Wait   took `json:"handler_wait"`
		Handle took `json:"handler"`
	} `json:"times"`

	Counters map[string]uint64 `json:"counters"` // since the beginning
	Refused  map[int]uint64    `json:"refused"`  // of these, by HTTP status
	Slowest  []slowPeer        `json:"slowest"`
	Causes   []cause           `json:"causes"` // of the last thousand endings
}

// level is how full something is.
type level struct {
	Bytes int64 `json:"bytes"`
	Limit int   `json:"limit_bytes"`
}

// took is how long something took: bucket i counts the times below 2^i
// microseconds that are not in one before it.
type took struct {
	Median  float64  `json:"median_seconds"` // as much or less; since the beginning
	P99     float64  `json:"p99_seconds"`
	Buckets []uint64 `json:"buckets"`
}

func tookOf(h *server.Histogram) took {
	last := len(h.Buckets)
	for last > 0 && h.Buckets[last-1] == 0 {
		last--
	}
	return took{quantile(h, 0.5), quantile(h, 0.99), h.Buckets[:last]}
}

// quantile is the end of the bucket in which that share of all times is
// reached, in seconds.
func quantile(h *server.Histogram, share float64) float64 {
	all := float64(h.Count())
	var n uint64
	for i, in := range h.Buckets {
		if n += in; n > 0 && float64(n) >= share*all {
			return times.bound(i)
		}
	}
	return 0
}

func (a *admin) status() *status {
	r := a.read()
	s := &status{
		Addresses: a.server.Addrs(),
		Uptime:    time.Since(a.began).Seconds(),
		NotReady:  a.notReady(r.stats.Open),
		Owed:      level{r.stats.Owed, r.options.MaxOwed},
		Queued:    level{r.stats.Queued, r.options.MaxQueued},
		Published: level{r.stats.Published, r.options.MaxPublished},
		Counters:  make(map[string]uint64),
		Refused:   r.stats.RefusedBy,
		Slowest:   slowest(&r.census, slowestShown),
		Causes:    causes(a.server.Endings()),
	}
	o := &r.options
	u := &s.Setup
	u.Mode, u.WhenFull, u.WhenSlow, u.Tables = o.Mode.String(), o.WhenFull.String(), o.WhenSlow.String(), o.Tables.String()
	u.Reactors, u.Outbox, u.Queue = o.Reactors, o.MaxOutbox, o.QueueMessages
	c := &s.Connections
	c.Open, c.Limit, c.Handshaking, c.Closing = r.stats.Open, o.MaxConns, r.census.Handshaking, r.census.Closing
	c.Paused, c.HalfFull, c.Held, c.Slow = r.census.Paused, r.halfFull(), r.census.Held, r.census.Slow
	s.Memory.User, s.Memory.Kernel = r.user, r.kernel
	s.Workers.Busy, s.Workers.Limit, s.Workers.Waiting = r.stats.Busy, r.workers(), r.stats.Waiting
	s.Times.Turn, s.Times.Pass = tookOf(&r.stats.TurnTime), tookOf(&r.stats.PassTime)
	s.Times.Wait, s.Times.Handle = tookOf(&r.stats.WaitTime), tookOf(&r.stats.HandleTime)
	for _, c := range server.Counters() {
		s.Counters[c.String()] = r.stats.Count(c)
	}
	return s
}

func (a *admin) showStatus(w http.ResponseWriter, _ *http.Request) {
	answer(w, http.StatusOK, a.status())
}

// slowPeer is a server.SlowPeer in JSON.
type slowPeer struct {
	ID       string         `json:"id"`
	Tag      uint64         `json:"tag"`
	Remote   netip.AddrPort `json:"remote"`
	Messages int            `json:"owed_messages"`
	Bytes    int            `json:"owed_bytes"`
	For      float64        `json:"owed_for_seconds"`
	Kernel   int            `json:"kernel_bytes"` // sent, and not acknowledged
}

func slowest(c *server.Census, n int) []slowPeer {
	peers := make([]slowPeer, min(n, len(c.Slowest)))
	for i := range peers {
		p := &c.Slowest[i]
		peers[i] = slowPeer{hex(p.ID), p.Tag, p.Remote, p.Messages, p.Bytes, p.For.Seconds(), p.Kernel}
	}
	return peers
}

// hex is how an ID is written and read: 64 bits are more than numbers in
// JavaScript have.
func hex(id uint64) string { return fmt.Sprintf("%016x", id) }

// ending is a server.Ending in JSON.
type ending struct {
	Time  time.Time `json:"time"`
	ID    string    `json:"id"`
	Tag   uint64    `json:"tag"`
	Code  uint16    `json:"code"`
	Cause string    `json:"cause"`
	Owed  int       `json:"owed_bytes"`
}

// cause is how many connections ended for it.
type cause struct {
	Cause string `json:"cause"`
	Count int    `json:"count"`
}

// causeOf says why a connection ended, of which the server says nothing if all
// is well, and io.EOF if its peer just left.
func causeOf(e *server.Ending) string {
	switch e.Cause {
	case "":
		return "clean"
	case io.EOF.Error():
		return "gone without a Close frame"
	}
	return e.Cause
}

// causes counts endings, the most frequent cause first.
func causes(endings []server.Ending) []cause {
	counts := make(map[string]int)
	for i := range endings {
		counts[causeOf(&endings[i])]++
	}
	all := make([]cause, 0, len(counts))
	for name, n := range counts {
		all = append(all, cause{name, n})
	}
	slices.SortFunc(all, func(a, b cause) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Cause, b.Cause))
	})
	return all
}

// showConnections tells of those connections that there is something to tell
// of: of millions that are silent there is not.
func (a *admin) showConnections(w http.ResponseWriter, r *http.Request) {
	n := slowestShown
	if text := r.FormValue("slowest"); text != "" {
		var err error
		if n, err = strconv.Atoi(text); err != nil || n < 0 {
			http.Error(w, "slowest must be a number of connections", http.StatusBadRequest)
			return
		}
	}
	census, last := a.server.Census(), a.server.Endings()
	endings := make([]ending, len(last))
	for i := range last {
		e := &last[i]
		endings[i] = ending{e.Time, hex(e.ID), e.Tag, e.Code, causeOf(e), e.Owed}
	}
	answer(w, http.StatusOK, struct {
		Slowest []slowPeer `json:"slowest"`
		Causes  []cause    `json:"causes"`
		Endings []ending   `json:"endings"`
	}{slowest(&census, n), causes(last), endings})
}

func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // an error means that nobody listens any more
}
