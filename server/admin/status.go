package admin

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"math"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"github.com/seed-134acfd0/lull/internal/page"
	"github.com/seed-134acfd0/lull/server"
	"github.com/seed-134acfd0/lull/server/health"
	"github.com/seed-134acfd0/lull/server/internal/spread"
)

// largestShown is how many of the largest outboxes are shown if the request does
// not say how many.
const largestShown = 10

// status is everything that the page shows. Units stand last in its names.
type status struct {
	Addresses []netip.AddrPort `json:"addresses"`
	Uptime    float64          `json:"uptime_seconds"`
	NotReady  string           `json:"not_ready"` // why it is not; empty while it is
	Setup     struct {
		Mode         string `json:"mode"`
		InboxPolicy  string `json:"inbox_policy"`
		OutboxPolicy string `json:"outbox_policy"`
		Tables       string `json:"tables"`
		Reactors     int    `json:"reactors"`
		MaxInbox     int    `json:"max_inbox_messages"` // of a connection
		MaxOutbox    int    `json:"max_outbox_bytes"`   // of a connection
	} `json:"setup"`

	Connections struct {
		Open         int64  `json:"open"`
		Limit        int    `json:"limit"`
		Sockets      int    `json:"sockets"` // in use, including handshaking and closing ones
		SocketsLimit int    `json:"sockets_limit"`
		Handshaking  int    `json:"handshaking"`
		Closing      int    `json:"closing"`
		InboxHigh    uint64 `json:"inbox_high"` // their inbox has been half full, and more than an eighth full since
		Paused       int    `json:"paused"`     // not read until their inbox has room or their peer has read the answers
		Throttled    int    `json:"throttled"`  // not read until broadcasts have been sent
		Curbed       int    `json:"curbed"`     // not read until their rate allows it
		Slow         int    `json:"slow"`       // their outbox is above the high watermark
	} `json:"connections"`
	Draining *draining `json:"draining"` // null unless it drains
	Memory   struct {
		User   *float64 `json:"user_bytes_per_connection"` // null while there are few connections
		Kernel *float64 `json:"kernel_bytes_per_connection"`
	} `json:"memory"`
	Processors struct {
		Used  float64 `json:"used_seconds"` // since the start
		Count int     `json:"count"`
	} `json:"processors"`
	Inbox     level  `json:"inbox"`     // messages that wait for handlers
	Outbox    level  `json:"outbox"`    // messages that wait for peers
	Partial   level  `json:"partial"`   // incomplete messages and requests
	Broadcast level  `json:"broadcast"` // broadcasts on their way
	Topics    topics `json:"topics"`
	Workers   struct {
		Busy    int `json:"busy"`
		Stuck   int `json:"stuck"` // of these, in a call that takes longer than CallTimeout
		Limit   int `json:"limit"` // 0 if handlers run on the reactors
		Waiting int `json:"waiting_connections"`
	} `json:"workers"`
	Times struct {
		Turn   took `json:"reactor_turn"`
		Pass   took `json:"broadcast_pass"`
		Wait   took `json:"handler_wait"`
		Handle took `json:"handler"`
	} `json:"times"`

	Counters map[string]uint64 `json:"counters"` // since the start
	Rejected map[int]uint64    `json:"rejected"` // handshakes, by HTTP status
	Largest  []peerOutbox      `json:"largest"`  // outboxes
	Causes   []cause           `json:"causes"`   // of the last thousand endings
	Backends any               `json:"backends"` // null without any
	Cluster  any               `json:"cluster"`  // null without one
	Apps     any               `json:"apps"`     // null without any
}

// level is how full something is.
type level struct {
	Bytes int64 `json:"bytes"`
	Limit int   `json:"limit_bytes"`
}

// took is how long something took, since the start. Bucket i counts the times
// below 2^i microseconds that are in no bucket before it.
type took struct {
	Median  float64  `json:"median_seconds"` // at most
	P99     float64  `json:"p99_seconds"`
	Buckets []uint64 `json:"buckets"`
}

func tookOf(h *server.Histogram) took {
	last := len(h.Buckets)
	for last > 0 && h.Buckets[last-1] == 0 {
		last--
	}
	return took{spread.Times.Quantile(h, 0.5), spread.Times.Quantile(h, 0.99), h.Buckets[:last]}
}

func (a *admin) status() *status {
	r := a.read()
	s := &status{
		Addresses: a.server.Addrs(),
		Uptime:    time.Since(a.began).Seconds(),
		NotReady:  health.NotReady(a.ctx, a.server, &r.stats),
		Inbox:     level{r.stats.Inbox, r.options.MaxInboxTotal},
		Outbox:    level{r.stats.Outbox, r.options.MaxOutboxTotal},
		Partial:   level{r.stats.Partial, r.options.MaxPartial},
		Broadcast: level{r.stats.Broadcast, r.options.MaxBroadcast},
		Topics:    r.topicsNow(),
		Counters:  make(map[string]uint64),
		Rejected:  r.stats.RejectedBy,
		Largest:   largest(&r.census, largestShown),
		Causes:    causes(a.server.Endings()),
	}
	if a.backends != nil {
		s.Backends = a.backends.Status()
	}
	if a.cluster != nil {
		s.Cluster = a.cluster.Status()
	}
	if a.apps != nil {
		s.Apps = a.apps.Status()
	}
	if r.stats.Draining {
		s.Draining = &draining{r.stats.Open, r.stats.DrainFor.Seconds()}
	}
	o := &r.options
	u := &s.Setup
	u.Mode, u.InboxPolicy, u.OutboxPolicy, u.Tables = o.Mode.String(), o.InboxPolicy.String(), o.OutboxPolicy.String(), o.Tables.String()
	u.Reactors, u.MaxInbox, u.MaxOutbox = o.Reactors, o.MaxInboxMessages, o.MaxOutbox
	c := &s.Connections
	c.Open, c.Limit, c.Handshaking, c.Closing = r.stats.Open, o.MaxConns, r.census.Handshaking, r.census.Closing
	c.Sockets, c.SocketsLimit = r.stats.Sockets, r.stats.SocketsMax
	c.InboxHigh, c.Paused, c.Throttled, c.Curbed, c.Slow = r.inboxHigh(), r.census.Paused, r.census.Throttled, r.census.Curbed, r.census.Slow
	s.Memory.User, s.Memory.Kernel = orNull(r.user), orNull(r.kernel)
	s.Processors.Used, s.Processors.Count = processorTime().Seconds(), processors
	w := &s.Workers
	w.Busy, w.Stuck, w.Limit, w.Waiting = r.stats.Busy, r.stats.Stuck, r.workers(), r.stats.Waiting
	s.Times.Turn, s.Times.Pass = tookOf(&r.stats.TurnTime), tookOf(&r.stats.PassTime)
	s.Times.Wait, s.Times.Handle = tookOf(&r.stats.WaitTime), tookOf(&r.stats.CallTime)
	maps.Insert(s.Counters, r.stats.All())
	return s
}

// orNull is n for JSON, which has no NaN.
func orNull(n float64) *float64 {
	if math.IsNaN(n) {
		return nil
	}
	return &n
}

func (a *admin) showStatus(w http.ResponseWriter, _ *http.Request) {
	page.Answer(w, http.StatusOK, a.status())
}

// peerOutbox is a server.PeerOutbox in JSON.
type peerOutbox struct {
	ID       string         `json:"id"`
	Tag      uint64         `json:"tag"`
	Remote   netip.AddrPort `json:"remote"`
	Messages int            `json:"outbox_messages"`
	Bytes    int            `json:"outbox_bytes"`
	For      float64        `json:"waiting_seconds"` // since the outbox was last empty
	Kernel   int            `json:"kernel_bytes"`    // in the socket, not acknowledged by the peer
}

func largest(c *server.Census, n int) []peerOutbox {
	peers := make([]peerOutbox, min(n, len(c.Largest)))
	for i := range peers {
		p := &c.Largest[i]
		peers[i] = peerOutbox{hex(p.ID), p.Tag, p.Remote, p.Messages, p.Bytes, p.For.Seconds(), p.Kernel}
	}
	return peers
}

// hex is how an ID is written and read. It is text because a number in JavaScript
// cannot hold 64 bits.
func hex(id uint64) string { return fmt.Sprintf("%016x", id) }

// ending is a server.Ending in JSON.
type ending struct {
	Time   time.Time      `json:"time"`
	ID     string         `json:"id"`
	Tag    uint64         `json:"tag"`
	Remote netip.AddrPort `json:"remote"` // empty if the peer has reset its socket
	Code   uint16         `json:"code"`
	Cause  string         `json:"cause"`
	Outbox int            `json:"outbox_bytes"` // that the peer had not read
}

// cause is how many connections ended for one cause.
type cause struct {
	Cause string `json:"cause"`
	Count int    `json:"count"`
}

// causeOf says why a connection ended. The server gives no cause after a complete
// closing handshake, and io.EOF if the peer left without a Close frame.
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

// showConnections lists the connections with the largest outboxes and the last
// connections that ended. A list of millions of silent ones would help nobody.
func (a *admin) showConnections(w http.ResponseWriter, r *http.Request) {
	n := largestShown
	if text := r.FormValue("largest"); text != "" {
		var err error
		if n, err = strconv.Atoi(text); err != nil || n < 0 {
			http.Error(w, "largest must be a number of connections", http.StatusBadRequest)
			return
		}
	}
	census, last := a.server.Census(), a.server.Endings()
	endings := make([]ending, len(last))
	for i := range last {
		e := &last[i]
		endings[i] = ending{e.Time, hex(e.ID), e.Tag, e.Remote, e.Code, causeOf(e), e.Outbox}
	}
	page.Answer(w, http.StatusOK, struct {
		Largest []peerOutbox `json:"largest"`
		Causes  []cause      `json:"causes"`
		Endings []ending     `json:"endings"`
	}{largest(&census, n), causes(last), endings})
}
