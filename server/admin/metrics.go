package admin

import (
	"maps"
	"math"
	"net/http"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/seed-134acfd0/lull/internal/build"
	"github.com/seed-134acfd0/lull/server"
	"github.com/seed-134acfd0/lull/server/internal/spread"
	"github.com/seed-134acfd0/lull/tuning"
)

// metric is a row of /metrics: a metric, or the part of a metric that has one
// label value.
type metric struct {
	name         string // without the prefix lull_
	label, value string // empty if the metric has no label
	help         string // the same in all rows with the same name
}

func (m *metric) desc() *prometheus.Desc {
	var labels prometheus.Labels
	if m.label != "" {
		labels = prometheus.Labels{m.label: m.value}
	}
	return prometheus.NewDesc("lull_"+m.name, m.help, nil, labels)
}

const (
	closedHelp  = "Connections that have ended, by reason."
	droppedHelp = "Messages dropped: because the connection's inbox was full (inbox), or because its outbox was full, by outbox policy."
)

// counted has a row for each counter of the server except Rejected, which is
// shown by HTTP status.
var counted = []struct {
	counter string // its name in server.Counts
	metric
}{
	{"accepted", metric{"accepted_total", "", "", "Sockets accepted."}},
	{"opened", metric{"connections_opened_total", "", "", "Handshakes answered with 101."}},
	{"drained", metric{"drained_total", "", "", "Connections that were asked to leave at the server's end."}},
	{"compressed", metric{"connections_compressed_total", "", "", "Connections that agreed to permessage-deflate."}},
	{"aborted", metric{"handshakes_aborted_total", "", "", "Sockets that ended before their request was answered."}},
	{"evicted", metric{"sockets_evicted_total", "", "", "Sockets that were handshaking or closing and were cut off because all sockets were in use."}},

	{"closed_clean", metric{"connections_closed_total", "reason", "clean", closedHelp}},
	{"closed_gone", metric{"connections_closed_total", "reason", "gone", closedHelp}},
	{"tls_handshakes", metric{"tls_handshakes_total", "", "", "TLS handshakes completed."}},
	{"tls_resumed", metric{"tls_handshakes_resumed_total", "", "", "Of these, resumed by a session ticket."}},
	{"tls_failed", metric{"tls_handshakes_failed_total", "", "", "TLS handshakes that failed."}},
	{"visits", metric{"http_connections_total", "", "", "Connections passed to the HTTP handler on the server's own port."}},
	{"closed_tls", metric{"connections_closed_total", "reason", "tls", closedHelp}},
	{"closed_expired", metric{"connections_closed_total", "reason", "expired", closedHelp}},
	{"closed_protocol", metric{"connections_closed_total", "reason", "protocol", closedHelp}},
	{"closed_utf8", metric{"connections_closed_total", "reason", "utf8", closedHelp}},
	{"closed_too_big", metric{"connections_closed_total", "reason", "too_big", closedHelp}},
	{"closed_outbox", metric{"connections_closed_total", "reason", "outbox", closedHelp}},
	{"closed_write_timeout", metric{"connections_closed_total", "reason", "write_timeout", closedHelp}},
	{"closed_partial", metric{"connections_closed_total", "reason", "partial", closedHelp}},
	{"closed_message_timeout", metric{"connections_closed_total", "reason", "message_timeout", closedHelp}},
	{"closed_idle", metric{"connections_closed_total", "reason", "idle", closedHelp}},
	{"closed_inbox", metric{"connections_closed_total", "reason", "inbox", closedHelp}},
	{"closed_close_timeout", metric{"connections_closed_total", "reason", "close_timeout", closedHelp}},
	{"closed_rate", metric{"connections_closed_total", "reason", "rate", closedHelp}},
	{"closed_topics", metric{"connections_closed_total", "reason", "topics", closedHelp}},
	{"closed_panic", metric{"connections_closed_total", "reason", "panic", closedHelp}},
	{"closed_shutdown", metric{"connections_closed_total", "reason", "shutdown", closedHelp}},

	{"messages_in", metric{"messages_received_total", "", "", "Messages received."}},
	{"messages_discarded", metric{"messages_discarded_total", "", "", "Messages received and not handled, because their connection had ended."}},
	{"inbox_high", metric{"inbox_high_total", "", "", "Times that an inbox became half full."}},
	{"inbox_low", metric{"inbox_low_total", "", "", "Times that an inbox that had been half full was at most an eighth full again, or its connection ended."}},
	{"read_pauses", metric{"read_pauses_total", "", "", "Times that a connection was not read because its inbox was full."}},
	{"read_blocks", metric{"read_blocks_total", "", "", "Times that a connection was not read because its peer did not read the answers."}},
	{"curbed", metric{"curbed_total", "", "", "Times that a connection was not read because it was over its rate."}},
	{"throttled", metric{"throttled_total", "", "", "Times that a connection was not read because too much was broadcast, or waited in all inboxes."}},

	{"messages_accepted", metric{"messages_accepted_total", "", "", "Messages accepted for sending, a broadcast once for each connection."}},
	{"messages_out", metric{"messages_sent_total", "", "", "Messages sent, a broadcast once for each connection."}},
	{"undelivered", metric{"messages_undelivered_total", "", "", "Messages in outboxes when their connections ended."}},

	{"messages_dropped", metric{"messages_dropped_total", "policy", "inbox", droppedHelp}},
	{"dropped_new", metric{"messages_dropped_total", "policy", "drop-new", droppedHelp}},
	{"dropped_old", metric{"messages_dropped_total", "policy", "drop-old", droppedHelp}},
	{"conflated", metric{"messages_dropped_total", "policy", "latest", droppedHelp}},

	{"broadcast_messages", metric{"broadcast_messages_total", "", "", "Broadcast messages sent, once for each connection. Divided by lull_broadcast_sends_total: how many left in one system call."}},
	{"broadcast_sends", metric{"broadcast_sends_total", "", "", "System calls that sent broadcasts."}},
	{"sends_refused", metric{"sends_refused_total", "", "", "Messages that Send, Broadcast or Publish refused with ErrBackpressure."}},
	{"published", metric{"published_total", "", "", "Messages published to topics."}},
	{"subscribed", metric{"subscribed_total", "", "", "Subscriptions to topics that began."}},
	{"unsubscribed", metric{"unsubscribed_total", "", "", "Of these, ended."}},
	{"subscriptions_refused", metric{"subscriptions_refused_total", "", "", "Subscriptions refused because there were too many topics (MaxTopics), or too many of one connection (MaxSubscriptions)."}},
	{"outbox_high", metric{"outbox_high_total", "", "", "Times that a peer became slow: its outbox was half full, or a send was refused."}},
	{"outbox_low", metric{"outbox_low_total", "", "", "Times that a slow peer's outbox was at most an eighth full again, or its connection ended."}},

	{"bytes_in", metric{"bytes_received_total", "", "", "Bytes received."}},
	{"bytes_out", metric{"bytes_sent_total", "", "", "Bytes sent."}},
	{"bytes_to_deflate", metric{"deflate_bytes_total", "stage", "before", "Bytes of messages that were compressed, before and after; a broadcast once for all."}},
	{"bytes_deflated", metric{"deflate_bytes_total", "stage", "after", "Bytes of messages that were compressed, before and after; a broadcast once for all."}},
	{"bytes_to_inflate", metric{"inflate_bytes_total", "stage", "before", "Bytes of compressed messages received, before and after they were inflated."}},
	{"bytes_inflated", metric{"inflate_bytes_total", "stage", "after", "Bytes of compressed messages received, before and after they were inflated."}},
	{"bytes_undelivered", metric{"bytes_undelivered_total", "", "", "Bytes in outboxes when their connections ended."}},

	{"accept_pauses", metric{"accept_pauses_total", "", "", "Times that the server stopped accepting for a moment because descriptors or memory had run out."}},
	{"stalls", metric{"reactor_stalls_total", "", "", "Times that a reactor took too long for a turn of its loop."}},
	{"calls_stuck", metric{"calls_stuck_total", "", "", "Times that a handler on a worker took longer than CallTimeout."}},
	{"log_lines_lost", metric{"log_lines_lost_total", "", "", "Log lines dropped because too many came at once."}},
}

// statusKnown are the statuses with which the server itself rejects handshakes.
// They are shown from the start at zero, so that rate() sees the first rejection.
var statusKnown = []int{
	http.StatusBadRequest, http.StatusForbidden, http.StatusMethodNotAllowed, http.StatusRequestTimeout,
	http.StatusUpgradeRequired, http.StatusTooManyRequests, http.StatusRequestHeaderFieldsTooLarge, http.StatusInternalServerError,
	http.StatusServiceUnavailable, http.StatusHTTPVersionNotSupported,
}

var rejected = prometheus.NewDesc("lull_handshakes_rejected_total",
	"Handshakes answered with an HTTP error, by HTTP status.", []string{"status"}, nil)

const connectionsHelp = "Connections, by state. The numbers of handshaking and closing ones are some seconds old."

// measured are the metrics that can rise and fall. A value that is not known is
// not shown.
var measured = []struct {
	metric
	of func(*reading) float64
}{
	{metric{"connections", "state", "handshaking", connectionsHelp}, func(r *reading) float64 { return float64(r.census.Handshaking) }},
	{metric{"connections", "state", "open", connectionsHelp}, func(r *reading) float64 { return float64(r.stats.Open) }},
	{metric{"connections", "state", "closing", connectionsHelp}, func(r *reading) float64 { return float64(r.census.Closing) }},
	{metric{"connections_limit", "", "", "Maximum number of open connections. A request beyond it is answered 503."}, func(r *reading) float64 { return float64(r.options.MaxConns) }},
	{metric{"sockets", "", "", "Sockets in use, including those that are handshaking or closing."}, func(r *reading) float64 { return float64(r.stats.Sockets) }},
	{metric{"sockets_limit", "", "", "Maximum number of sockets."}, func(r *reading) float64 { return float64(r.stats.SocketsMax) }},

	{metric{"paused_connections", "", "", "Connections that are not read until their inbox has room or their peer has read the answers."}, func(r *reading) float64 { return float64(r.census.Paused) }},
	{metric{"throttled_connections", "", "", "Connections that are not read until broadcasts have been sent."}, func(r *reading) float64 { return float64(r.census.Throttled) }},
	{metric{"curbed_connections", "", "", "Connections that are not read until their rate allows it."}, func(r *reading) float64 { return float64(r.census.Curbed) }},
	{metric{"slow_connections", "", "", "Connections whose outbox is above the high watermark."}, func(r *reading) float64 { return float64(r.census.Slow) }},

	{metric{"outbox_bytes", "", "", "Bytes in all outboxes, which peers have not read, beyond what their sockets buffer."}, func(r *reading) float64 { return float64(r.stats.Outbox) }},
	{metric{"outbox_limit_bytes", "", "", "Maximum number of bytes in all outboxes."}, func(r *reading) float64 { return float64(r.options.MaxOutboxTotal) }},
	{metric{"inbox_bytes", "", "", "Bytes in all inboxes, which wait for handlers."}, func(r *reading) float64 { return float64(r.stats.Inbox) }},
	{metric{"inbox_limit_bytes", "", "", "Maximum number of bytes in all inboxes."}, func(r *reading) float64 { return float64(r.options.MaxInboxTotal) }},
	{metric{"partial_bytes", "", "", "Bytes of incomplete messages and requests."}, func(r *reading) float64 { return float64(r.stats.Partial) }},
	{metric{"partial_limit_bytes", "", "", "Maximum number of bytes of incomplete messages."}, func(r *reading) float64 { return float64(r.options.MaxPartial) }},
	{metric{"broadcast_bytes", "", "", "Bytes of broadcasts on their way."}, func(r *reading) float64 { return float64(r.stats.Broadcast) }},
	{metric{"broadcast_limit_bytes", "", "", "Maximum number of bytes of broadcasts on their way."}, func(r *reading) float64 { return float64(r.options.MaxBroadcast) }},

	{metric{"topics", "", "", "Topics that somebody subscribes to."}, func(r *reading) float64 { return float64(r.stats.Topics) }},
	{metric{"topics_limit", "", "", "Maximum number of topics."}, func(r *reading) float64 { return float64(r.options.MaxTopics) }},
	{metric{"subscriptions", "", "", "Subscriptions to topics."}, func(r *reading) float64 { return float64(r.stats.Subscriptions) }},
	{metric{"largest_topic_subscribers", "", "", "Subscribers of the largest topic. It is some seconds old."}, func(r *reading) float64 { return float64(r.largestTopic()) }},

	{metric{"handler_calls", "", "", "Handler calls that wait or run."}, func(r *reading) float64 { return float64(r.stats.Calls) }},
	{metric{"workers_busy", "", "", "Workers that run a handler."}, func(r *reading) float64 { return float64(r.stats.Busy) }},
	{metric{"workers_stuck", "", "", "Workers whose handler has run for longer than CallTimeout."}, func(r *reading) float64 { return float64(r.stats.Stuck) }},
	{metric{"workers_limit", "", "", "Maximum number of handlers that run at once. 0 if handlers run on the reactors."}, func(r *reading) float64 { return float64(r.workers()) }},
	{metric{"workers_waiting_connections", "", "", "Connections that wait for a worker."}, func(r *reading) float64 { return float64(r.stats.Waiting) }},
	{metric{"drain_seconds", "", "", "Time until all connections have been asked to leave. There is none unless the server drains."}, func(r *reading) float64 {
		if !r.stats.Draining {
			return math.NaN()
		}
		return r.stats.DrainFor.Seconds()
	}},
	{metric{"processors", "", "", "Processors that the process may use."}, func(*reading) float64 { return float64(processors) }},
	{metric{"reactors", "", "", "Number of reactors."}, func(r *reading) float64 { return float64(r.options.Reactors) }},

	{metric{"connection_user_bytes", "", "", "Growth of the process's memory since the start, divided by the open connections; none while there are fewer than 5,000."}, func(r *reading) float64 { return r.user }},
	{metric{"connection_kernel_bytes", "", "", "Growth of the machine's kernel memory for objects (slab) since the start, divided by the open connections; none while there are fewer than 5,000."}, func(r *reading) float64 { return r.kernel }},
	{metric{"kernel_slab_bytes", "", "", "The machine's kernel memory for objects (slab), including sockets."}, func(r *reading) float64 { return orNaN(r.slab) }},
	{metric{"descriptors_limit", "", "", "RLIMIT_NOFILE: maximum number of descriptors in each table."}, func(r *reading) float64 { return orNaN(r.descriptors) }},
	{metric{"machine_files_open", "", "", "Files open on the whole machine, including sockets."}, func(r *reading) float64 { return orNaN(r.files) }},
	{metric{"machine_files_limit", "", "", "fs.file-max: maximum number of files open on the whole machine."}, func(r *reading) float64 { return orNaN(r.filesMax) }},
}

// orNaN is n, or NaN if it could not be read.
func orNaN(n int64) float64 {
	if n == tuning.Unknown {
		return math.NaN()
	}
	return float64(n)
}

var refused = prometheus.NewDesc("lull_handshakes_refused_total",
	"Connections and handshakes that a limit has refused, by reason. Those that were answered are among lull_handshakes_rejected_total.",
	[]string{"reason"}, nil)

var setup = prometheus.NewDesc("lull_setup_info",
	"The server's options. The value is always 1.", []string{"mode", "tables", "inbox_policy", "outbox_policy"}, nil)

var built = prometheus.NewDesc("lull_build_info",
	"What the program was built from. The value is always 1.", []string{"version", "commit", "go_version"}, nil)

// distributed are the metrics that are distributions.
//
// The last two are snapshots: how many connections have how much in their outbox
// or inbox now. The text format has no histogram that may fall, and a gauge must
// not have a bucket's label (le), so they are shown as histograms. Prometheus
// accepts that, and histogram_quantile(0.99, lull_connection_outbox_bytes_bucket)
// is right. rate() would be wrong: it would take each fall for a restart.
var distributed = []struct {
	metric
	of   func(*reading) *server.Histogram
	unit spread.Unit
}{
	{metric{"reactor_turn_seconds", "", "", "How long a reactor took for a turn of its loop."}, func(r *reading) *server.Histogram { return &r.stats.TurnTime }, spread.Times},
	{metric{"broadcast_pass_seconds", "", "", "How long a reactor took to send a broadcast to all its connections."}, func(r *reading) *server.Histogram { return &r.stats.PassTime }, spread.Times},
	{metric{"handler_wait_seconds", "", "", "How long a connection waited for a worker."}, func(r *reading) *server.Histogram { return &r.stats.WaitTime }, spread.Times},
	{metric{"handler_seconds", "", "", "How long a handler took on a worker."}, func(r *reading) *server.Histogram { return &r.stats.CallTime }, spread.Times},
	{metric{"connection_outbox_bytes", "", "", "Bytes in each outbox that is not empty now. This is a snapshot; do not use rate()."}, func(r *reading) *server.Histogram { return &r.census.Outbox }, spread.Sizes},
	{metric{"connection_inbox_calls", "", "", "Calls in each inbox that is not empty now. This is a snapshot; do not use rate()."}, func(r *reading) *server.Histogram { return &r.census.Inbox }, spread.Calls},
}

// collector reads the server once for each scrape.
type collector struct{ source }

func (c *collector) Describe(out chan<- *prometheus.Desc) {
	out <- rejected
	out <- refused
	out <- setup
	out <- built
	for i := range counted {
		out <- counted[i].desc()
	}
	for i := range measured {
		out <- measured[i].desc()
	}
	for i := range distributed {
		out <- distributed[i].desc()
	}
}

func (c *collector) Collect(out chan<- prometheus.Metric) {
	r := c.read()
	counts := maps.Collect(r.stats.All())
	for i := range counted {
		row := &counted[i]
		out <- prometheus.MustNewConstMetric(row.desc(), prometheus.CounterValue, float64(counts[row.counter]))
	}
	for status, n := range r.rejectedBy() {
		out <- prometheus.MustNewConstMetric(rejected, prometheus.CounterValue, float64(n), strconv.Itoa(status))
	}
	for reason, n := range r.stats.RefusedBy {
		out <- prometheus.MustNewConstMetric(refused, prometheus.CounterValue, float64(n), reason)
	}
	for i := range measured {
		row := &measured[i]
		if v := row.of(r); !math.IsNaN(v) {
			out <- prometheus.MustNewConstMetric(row.desc(), prometheus.GaugeValue, v)
		}
	}
	for i := range distributed {
		row := &distributed[i]
		out <- row.unit.Metric(row.desc(), row.of(r))
	}
	o := &r.options
	out <- prometheus.MustNewConstMetric(setup, prometheus.GaugeValue, 1,
		o.Mode.String(), o.Tables.String(), o.InboxPolicy.String(), o.OutboxPolicy.String())
	b := build.Read()
	out <- prometheus.MustNewConstMetric(built, prometheus.GaugeValue, 1, b.Version, b.Commit, b.Go)
}

// rejectedBy is the number of rejected handshakes by status. It has all of
// statusKnown, if need be with zero.
func (r *reading) rejectedBy() map[int]uint64 {
	all := make(map[int]uint64, len(statusKnown))
	for _, status := range statusKnown {
		all[status] = 0
	}
	for status, n := range r.stats.RejectedBy {
		all[status] = n
	}
	return all
}
