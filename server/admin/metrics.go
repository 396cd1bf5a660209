package admin

import (
	"math"
	"net/http"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/seed-134acfd0/lull/server"
	"github.com/seed-134acfd0/lull/tuning"
)

// metric is the name and meaning of one, or of that part of it which a label
// tells from the others.
type metric struct {
	name         string // without the lull_ before it
	label, value string // or empty
	help         string // rows with the same name have the same
}

func (m *metric) desc() *prometheus.Desc {
	var labels prometheus.Labels
	if m.label != "" {
		labels = prometheus.Labels{m.label: m.value}
	}
	return prometheus.NewDesc("lull_"+m.name, m.help, nil, labels)
}

const (
	closedHelp  = "Connections that have ended, by why they did."
	droppedHelp = "Messages dropped: for a slow peer as its policy says, or of a peer whose handler had too many before it (queue)."
)

// counted has a row for each counter of a server but Refused, which is told by
// its status.
var counted = []struct {
	counter server.Counter
	metric
}{
	{server.Accepted, metric{"accepted_total", "", "", "Sockets accepted."}},
	{server.Opened, metric{"connections_opened_total", "", "", "Handshakes answered with 101."}},
	{server.Aborted, metric{"handshakes_aborted_total", "", "", "Sockets that ended before their request did."}},

	{server.ClosedClean, metric{"connections_closed_total", "reason", "clean", closedHelp}},
	{server.ClosedGone, metric{"connections_closed_total", "reason", "gone", closedHelp}},
	{server.ClosedBreach, metric{"connections_closed_total", "reason", "breach", closedHelp}},
	{server.ClosedUTF8, metric{"connections_closed_total", "reason", "utf8", closedHelp}},
	{server.ClosedTooBig, metric{"connections_closed_total", "reason", "too_big", closedHelp}},
	{server.ClosedOutbox, metric{"connections_closed_total", "reason", "outbox", closedHelp}},
	{server.ClosedPartial, metric{"connections_closed_total", "reason", "partial", closedHelp}},
	{server.ClosedIdle, metric{"connections_closed_total", "reason", "idle", closedHelp}},
	{server.ClosedQueue, metric{"connections_closed_total", "reason", "queue", closedHelp}},
	{server.ClosedTimeout, metric{"connections_closed_total", "reason", "timeout", closedHelp}},
	{server.ClosedPanic, metric{"connections_closed_total", "reason", "panic", closedHelp}},
	{server.ClosedShutdown, metric{"connections_closed_total", "reason", "shutdown", closedHelp}},

	{server.MessagesIn, metric{"messages_received_total", "", "", "Messages received."}},
	{server.QueueBegins, metric{"queue_begins_total", "", "", "Times that a connection's handler had half of what it may have before it."}},
	{server.QueueEnds, metric{"queue_ends_total", "", "", "Times that it had at most an eighth again, or its connection closed."}},
	{server.Paused, metric{"paused_total", "", "", "Times that a connection was not read because its handler had too many messages before it."}},
	{server.MessagesTaken, metric{"messages_taken_total", "", "", "Messages to be sent, a broadcast once for each connection."}},
	{server.MessagesOut, metric{"messages_sent_total", "", "", "Messages sent, a broadcast once for each connection."}},
	{server.Undelivered, metric{"messages_undelivered_total", "", "", "Messages owed to connections that closed."}},

	{server.MessagesDropped, metric{"messages_dropped_total", "policy", "queue", droppedHelp}},
	{server.DroppedNew, metric{"messages_dropped_total", "policy", "drop-new", droppedHelp}},
	{server.DroppedOld, metric{"messages_dropped_total", "policy", "drop-old", droppedHelp}},
	{server.Conflated, metric{"messages_dropped_total", "policy", "latest", droppedHelp}},

	{server.BroadcastMessages, metric{"broadcast_messages_total", "", "", "Messages of broadcasts, once for each connection. Divided by lull_broadcast_sends_total: how many left together."}},
	{server.BroadcastSends, metric{"broadcast_sends_total", "", "", "System calls that carried them."}},
	{server.SendsRefused, metric{"sends_refused_total", "", "", "Messages that Send did not take, because too much was on its way."}},
	{server.SlowBegins, metric{"slow_begins_total", "", "", "Times that a peer became slow: it was owed half of what it may be."}},
	{server.SlowEnds, metric{"slow_ends_total", "", "", "Times that it was owed at most an eighth again, or closed."}},
	{server.Held, metric{"held_total", "", "", "Times that a connection was not read because it broadcast too much."}},
	{server.BytesIn, metric{"bytes_received_total", "", "", "Bytes received."}},
	{server.BytesOut, metric{"bytes_sent_total", "", "", "Bytes sent."}},
	{server.BytesUndelivered, metric{"bytes_undelivered_total", "", "", "Bytes owed to connections when they closed."}},
	{server.AcceptRests, metric{"accept_rests_total", "", "", "Times that accepting had to rest, for want of descriptors or memory."}},
	{server.Stalls, metric{"reactor_stalls_total", "", "", "Times that a reactor took too long for a turn."}},
	{server.LinesLost, metric{"log_lines_lost_total", "", "", "Log lines dropped because too many came at once."}},
}

// statusKnown are the statuses with which the server refuses by itself. They
// are shown from the beginning, so that a rate knows where they came from.
var statusKnown = []int{
	http.StatusBadRequest, http.StatusForbidden, http.StatusMethodNotAllowed, http.StatusRequestTimeout,
	http.StatusUpgradeRequired, http.StatusRequestHeaderFieldsTooLarge, http.StatusInternalServerError,
	http.StatusServiceUnavailable, http.StatusHTTPVersionNotSupported,
}

var refused = prometheus.NewDesc("lull_handshakes_refused_total",
	"Handshakes answered with an HTTP error, by its status.", []string{"status"}, nil)

const connectionsHelp = "Connections now. Those that are not open were counted in passing, some seconds ago."

// measured are the metrics that rise and fall. What is not known is not shown.
var measured = []struct {
	metric
	of func(*reading) float64
}{
	{metric{"connections", "state", "handshaking", connectionsHelp}, func(r *reading) float64 { return float64(r.census.Handshaking) }},
	{metric{"connections", "state", "open", connectionsHelp}, func(r *reading) float64 { return float64(r.stats.Open) }},
	{metric{"connections", "state", "closing", connectionsHelp}, func(r *reading) float64 { return float64(r.census.Closing) }},
	{metric{"connections_limit", "", "", "Most connections that may be open; the next is answered 503."}, func(r *reading) float64 { return float64(r.options.MaxConns) }},

	{metric{"paused_connections", "", "", "Connections that are not read until their handlers have got on."}, func(r *reading) float64 { return float64(r.census.Paused) }},
	{metric{"held_connections", "", "", "Connections that are not read until their broadcasts have been sent."}, func(r *reading) float64 { return float64(r.census.Held) }},
	{metric{"slow_connections", "", "", "Connections whose peers are owed half of what they may be."}, func(r *reading) float64 { return float64(r.census.Slow) }},

	{metric{"owed_bytes", "", "", "Bytes that peers have not taken, beyond what their sockets buffer."}, func(r *reading) float64 { return float64(r.stats.Owed) }},
	{metric{"owed_limit_bytes", "", "", "Most bytes that all peers together may be owed."}, func(r *reading) float64 { return float64(r.options.MaxOwed) }},
	{metric{"queued_bytes", "", "", "Bytes of messages that handlers have yet to hear."}, func(r *reading) float64 { return float64(r.stats.Queued) }},
	{metric{"queued_limit_bytes", "", "", "Most bytes that may wait for handlers; beyond it each connection may have one message."}, func(r *reading) float64 { return float64(r.options.MaxQueued) }},
	{metric{"queued_calls", "", "", "Calls that handlers have yet to get or to return from."}, func(r *reading) float64 { return float64(r.stats.Calls) }},
	{metric{"published_bytes", "", "", "Bytes of broadcasts on their way."}, func(r *reading) float64 { return float64(r.stats.Published) }},
	{metric{"published_limit_bytes", "", "", "Most bytes of broadcasts on their way."}, func(r *reading) float64 { return float64(r.options.MaxPublished) }},

	{metric{"workers_busy", "", "", "Handlers that run now."}, func(r *reading) float64 { return float64(r.stats.Busy) }},
	{metric{"workers_limit", "", "", "Handlers that may run at once; 0 if they run on the reactors."}, func(r *reading) float64 { return float64(r.workers()) }},
	{metric{"workers_waiting_connections", "", "", "Connections that wait for a worker."}, func(r *reading) float64 { return float64(r.stats.Waiting) }},
	{metric{"reactors", "", "", "Reactors."}, func(r *reading) float64 { return float64(r.options.Reactors) }},

	{metric{"connection_user_bytes", "", "", "The process's memory since the beginning, divided by the open connections."}, func(r *reading) float64 { return r.user }},
	{metric{"connection_kernel_bytes", "", "", "The machine's kernel memory for objects (slab) since the beginning, divided by the open connections."}, func(r *reading) float64 { return r.kernel }},
	{metric{"kernel_slab_bytes", "", "", "The machine's kernel memory for objects, sockets among them."}, func(r *reading) float64 { return orNaN(r.slab) }},
	{metric{"descriptors_limit", "", "", "RLIMIT_NOFILE: descriptors that each table may have."}, func(r *reading) float64 { return orNaN(r.descriptors) }},
	{metric{"machine_files_open", "", "", "Files open on the whole machine, sockets among them."}, func(r *reading) float64 { return orNaN(r.files) }},
	{metric{"machine_files_limit", "", "", "fs.file-max: most files open on the whole machine."}, func(r *reading) float64 { return orNaN(r.filesMax) }},
}

// orNaN is NaN for what could not be read.
func orNaN(n int64) float64 {
	if n == tuning.Unknown {
		return math.NaN()
	}
	return float64(n)
}

var setup = prometheus.NewDesc("lull_setup_info",
	"How the server was set up; always 1.", []string{"mode", "tables", "when_full", "when_slow"}, nil)

// spread are the metrics that are distributions.
//
// The last two are snapshots: how many connections are owed how much now. The
// text format has no histogram that may fall, and gauges must not have a bucket's
// label (le), so they are histograms all the same. Prometheus takes them, and
// histogram_quantile(0.99, lull_connection_owed_bytes_bucket) is right. What
// would be wrong is rate(): it would take each fall for a restart.
var spread = []struct {
	metric
	of   func(*reading) *server.Histogram
	unit unit
}{
	{metric{"reactor_turn_seconds", "", "", "What reactors took for a turn."}, func(r *reading) *server.Histogram { return &r.stats.TurnTime }, times},
	{metric{"broadcast_pass_seconds", "", "", "What reactors took to send a broadcast to all of theirs."}, func(r *reading) *server.Histogram { return &r.stats.PassTime }, times},
	{metric{"handler_wait_seconds", "", "", "How long connections waited for a worker."}, func(r *reading) *server.Histogram { return &r.stats.WaitTime }, times},
	{metric{"handler_seconds", "", "", "What handlers took, on workers."}, func(r *reading) *server.Histogram { return &r.stats.HandleTime }, times},
	{metric{"connection_owed_bytes", "", "", "Bytes owed to each connection that is owed any, now. A snapshot: without rate()."}, func(r *reading) *server.Histogram { return &r.census.Owed }, sizes},
	{metric{"connection_queued_calls", "", "", "Calls before each handler that has any, now. A snapshot: without rate()."}, func(r *reading) *server.Histogram { return &r.census.Queued }, calls},
}

// unit says how a server's histogram becomes one in base units.
type unit struct {
	from, to int     // buckets that are shown
	per      float64 // how many of the histogram's units are one
	gap      float64 // between a bucket's end and the largest value in it
}

// Bucket i holds values below 2^i. Whole numbers below that are at most one
// less; times were cut to whole microseconds, so they come as close as they
// like.
var (
	times = unit{from: 4, to: 26, per: 1e6} // 16 µs to a minute
	sizes = unit{from: 8, to: 30, per: 1, gap: 1}
	calls = unit{from: 1, to: 14, per: 1, gap: 1}
)

func (u unit) bound(bucket int) float64 { return (float64(uint64(1)<<bucket) - u.gap) / u.per }

func (u unit) metric(desc *prometheus.Desc, h *server.Histogram) prometheus.Metric {
	below := make(map[float64]uint64, u.to-u.from+1)
	var n uint64
	for i, in := range h.Buckets {
		if n += in; u.from <= i && i <= u.to {
			below[u.bound(i)] = n
		}
	}
	return prometheus.MustNewConstHistogram(desc, n, float64(h.Sum)/u.per, below)
}

// collector reads a server once for each scrape.
type collector struct{ source }

func (c *collector) Describe(out chan<- *prometheus.Desc) {
	out <- refused
	out <- setup
	for i := range counted {
		out <- counted[i].desc()
	}
	for i := range measured {
		out <- measured[i].desc()
	}
	for i := range spread {
		out <- spread[i].desc()
	}
}

func (c *collector) Collect(out chan<- prometheus.Metric) {
	r := c.read()
	for i := range counted {
		row := &counted[i]
		out <- prometheus.MustNewConstMetric(row.desc(), prometheus.CounterValue, float64(r.stats.Count(row.counter)))
	}
	for status, n := range r.refusedBy() {
		out <- prometheus.MustNewConstMetric(refused, prometheus.CounterValue, float64(n), strconv.Itoa(status))
	}
	for i := range measured {
		row := &measured[i]
		if v := row.of(r); !math.IsNaN(v) {
			out <- prometheus.MustNewConstMetric(row.desc(), prometheus.GaugeValue, v)
		}
	}
	for i := range spread {
		row := &spread[i]
		out <- row.unit.metric(row.desc(), row.of(r))
	}
	o := &r.options
	out <- prometheus.MustNewConstMetric(setup, prometheus.GaugeValue, 1,
		o.Mode.String(), o.Tables.String(), o.WhenFull.String(), o.WhenSlow.String())
}

// refusedBy is what was refused by each status, those that are known first at
// zero.
func (r *reading) refusedBy() map[int]uint64 {
	all := make(map[int]uint64, len(statusKnown))
	for _, status := range statusKnown {
		all[status] = 0
	}
	for status, n := range r.stats.RefusedBy {
		all[status] = n
	}
	return all
}
