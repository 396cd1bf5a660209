package cluster

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// counters are what the node counts, under the names that metrics and pages have for them.
var counters = []struct {
	name, help string
	of         func(*Stats) uint64
}{
	{"published", "Messages published on this node, to all topics.", func(s *Stats) uint64 { return s.Published }},
	{"refused", "Messages refused because too much waited for the broker.", func(s *Stats) uint64 { return s.Refused }},
	{"unsent", "Messages published on this node that other nodes did not get, because the broker was away.", func(s *Stats) uint64 { return s.Unsent }},
	{"sent", "Messages to the broker, those between nodes among them.", func(s *Stats) uint64 { return s.Sent }},
	{"sent_bytes", "Bytes of the messages to the broker.", func(s *Stats) uint64 { return s.SentBytes }},
	{"received", "Messages of other nodes.", func(s *Stats) uint64 { return s.Received }},
	{"lost", "Messages of other nodes that have not arrived, or that the server did not take.", func(s *Stats) uint64 { return s.Lost }},
	{"unsure", "Times that messages of other nodes may have been lost that nobody has counted.", func(s *Stats) uint64 { return s.Unsure }},
	{"doubles", "Messages of other nodes that came twice, or after they were counted as lost. They were not delivered.", func(s *Stats) uint64 { return s.Stale }},
	{"undelivered", "Messages of other nodes that the server did not take, because it had too much to send.", func(s *Stats) uint64 { return s.Undelivered }},
	{"overruns", "Times that there was no room for what came from the broker.", func(s *Stats) uint64 { return s.Overruns }},
	{"malformed", "Messages from the broker that were not understood.", func(s *Stats) uint64 { return s.Malformed }},
	{"unconfirmed", "Subscriptions that not all nodes have confirmed in time.", func(s *Stats) uint64 { return s.Unconfirmed }},
	{"unwatched", "Topics whose members are not known here, because there are too many.", func(s *Stats) uint64 { return s.Unwatched }},
	{"unkept", "Topics whose messages are not kept, because there are too many.", func(s *Stats) uint64 { return s.Unkept }},
	{"reconnects", "Times that the broker was there again.", func(s *Stats) uint64 { return s.Reconnects }},
	{"stored", "Messages given to the stream.", func(s *Stats) uint64 { return s.Stored }},
	{"restored", "Messages that came from the stream.", func(s *Stats) uint64 { return s.Restored }},
	{"unread", "Topics that could not be read from the stream.", func(s *Stats) uint64 { return s.Unread }},
	{"stream_marks", "Times that the stream was told that it may lack messages.", func(s *Stats) uint64 { return s.StreamMarks }},
	{"nodes_died", "Other nodes that were not heard any more, and had not left.", func(s *Stats) uint64 { return s.Died }},
}

// gauges are the metrics that can rise and fall.
var gauges = []struct {
	name, help string
	of         func(*Stats) float64
}{
	{"connected", "1 while the broker is there, 0 while it is away.", func(s *Stats) float64 { return one(s.Connected) }},
	{"stream_unsure", "1 while the stream may lack messages and could not be told so, because it does not take any.", func(s *Stats) float64 { return one(s.StreamUnsure) }},
	{"away_seconds", "How long the broker has been away.", func(s *Stats) float64 { return s.Away.Seconds() }},
	{"nodes", "Living nodes that this one knows, itself among them.", func(s *Stats) float64 { return float64(len(s.Nodes) + 1) }},
	{"nodes_limit", "Maximum number of other nodes.", func(s *Stats) float64 { return float64(s.Limits.Nodes) }},
	{"silence_seconds", "For how long nothing was heard of the living node that was silent for longest. Nodes are heard every second.", func(s *Stats) float64 { return s.Silence.Seconds() }},
	{"subjects", "Subjects of the broker that this node follows.", func(s *Stats) float64 { return float64(s.Subjects) }},
	{"queue_messages", "Messages that wait for the broker.", func(s *Stats) float64 { return float64(s.Queued) }},
	{"queue_bytes", "Bytes of messages that wait for the broker.", func(s *Stats) float64 { return float64(s.QueuedBytes) }},
	{"queue_highest_bytes", "The most bytes of messages that have waited for the broker.", func(s *Stats) float64 { return float64(s.QueuedMax) }},
	{"queue_limit_bytes", "Maximum number of bytes that wait for the broker. Beyond it messages are refused.", func(s *Stats) float64 { return float64(s.Limits.QueuedBytes) }},
	{"members", "Members of topics that this node knows. Somebody on two nodes counts twice.", func(s *Stats) float64 { return float64(s.Members) }},
	{"members_own", "Of these, those of this node.", func(s *Stats) float64 { return float64(s.OwnMembers) }},
	{"members_limit", "Maximum number of members.", func(s *Stats) float64 { return float64(s.Limits.Members) }},
	{"member_bytes", "Bytes that members and their topics take.", func(s *Stats) float64 { return float64(s.MemberBytes) }},
	{"member_limit_bytes", "Maximum number of bytes that members and their topics take.", func(s *Stats) float64 { return float64(s.Limits.MemberBytes) }},
	{"history_topics", "Topics whose messages are kept.", func(s *Stats) float64 { return float64(s.KeptTopics) }},
	{"history_messages", "Messages that are kept.", func(s *Stats) float64 { return float64(s.Kept) }},
	{"history_messages_limit", "Maximum number of messages that are kept.", func(s *Stats) float64 { return float64(s.Limits.Kept) }},
	{"history_bytes", "Bytes that messages take that are kept.", func(s *Stats) float64 { return float64(s.KeptBytes) }},
	{"history_limit_bytes", "Maximum number of bytes that messages take that are kept. At it the oldest go.", func(s *Stats) float64 { return float64(s.Limits.KeptBytes) }},
}

func one(is bool) float64 {
	if is {
		return 1
	}
	return 0
}

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("lull_cluster_"+name, help, labels, nil)
}

var (
	counterDescs = func() (all []*prometheus.Desc) {
		for _, c := range counters {
			all = append(all, desc(c.name+"_total", c.help))
		}
		return all
	}()
	gaugeDescs = func() (all []*prometheus.Desc) {
		for _, g := range gauges {
			all = append(all, desc(g.name, g.help))
		}
		return all
	}()
	infoDesc = desc("info", "The node's name and its cluster's. The value is always 1.", "cluster", "node")
)

// Describe is for Prometheus, whose Collector a Node is.
func (n *Node) Describe(out chan<- *prometheus.Desc) {
	out <- infoDesc
	for _, d := range counterDescs {
		out <- d
	}
	for _, d := range gaugeDescs {
		out <- d
	}
}

// Collect is for Prometheus. However many nodes and topics there are, it has as many series.
func (n *Node) Collect(out chan<- prometheus.Metric) {
	s := n.Stats()
	out <- prometheus.MustNewConstMetric(infoDesc, prometheus.GaugeValue, 1, n.options.Cluster, n.options.Name)
	for i, d := range counterDescs {
		out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(counters[i].of(&s)))
	}
	for i, d := range gaugeDescs {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, gauges[i].of(&s))
	}
}

// Status is how a node is, for a page.
type Status struct {
	Cluster  string  `json:"cluster"`
	Node     string  `json:"node"`
	Broker   string  `json:"broker"`       // its URL, without passwords
	NotReady string  `json:"not_ready"`    // why the node takes no part in its cluster; empty while it does
	Away     float64 `json:"away_seconds"` // how long the broker has been away

	Nodes    int          `json:"nodes"` // that live, this one among them
	Silent   []NodeStatus `json:"silent"`
	Subjects int          `json:"subjects"`

	Queue    Level `json:"queue"`
	Waiting  int   `json:"queue_messages"`
	Members  int   `json:"members"`
	Own      int   `json:"members_own"`
	Presence Level `json:"presence"`
	Topics   int   `json:"history_topics"`
	Kept     int   `json:"history_messages"`
	History  Level `json:"history"`

	Counters map[string]uint64 `json:"counters"` // since the node has joined
}

// Level is how full something is. The limit is 0 where there is no such thing.
type Level struct {
	Bytes int `json:"bytes"`
	Limit int `json:"limit_bytes"`
}

// NodeStatus is another node: one that lives, or has died in the last minutes.
type NodeStatus struct {
	Name    string  `json:"name"`
	Alive   bool    `json:"alive"`
	Silence float64 `json:"silence_seconds"` // since its last hello
	Age     float64 `json:"age_seconds"`     // since it began
}

// silentShown is how many nodes a page shows: those that were silent for longest.
const silentShown = 10

// Status is how the node is, as JSON for a page.
func (n *Node) Status() any {
	s := n.Stats()
	status := Status{
		Cluster: n.options.Cluster, Node: n.options.Name, Broker: n.options.where(), Away: s.Away.Seconds(),
		Nodes: len(s.Nodes) + 1, Silent: n.silent(), Subjects: s.Subjects,
		Queue: Level{s.QueuedBytes, s.Limits.QueuedBytes}, Waiting: s.Queued,
		Members: s.Members, Own: s.OwnMembers, Presence: Level{s.MemberBytes, s.Limits.MemberBytes},
		Topics: s.KeptTopics, Kept: s.Kept, History: Level{s.KeptBytes, s.Limits.KeptBytes},
		Counters: make(map[string]uint64, len(counters)),
	}
	if err := n.Ready(); err != nil {
		status.NotReady = strings.ReplaceAll(err.Error(), "cluster: ", "") // the page says what it is about
	}
	for _, c := range counters {
		status.Counters[c.name] = c.of(&s)
	}
	return status
}

// silent are the nodes that were silent for longest.
func (n *Node) silent() []NodeStatus {
	n.mu.Lock()
	defer n.mu.Unlock()
	now := n.now()
	all := make([]NodeStatus, 0, len(n.peers.byID))
	for _, p := range n.peers.byID {
		all = append(all, NodeStatus{p.name, p.alive, (now - p.heard).Round(time.Millisecond).Seconds(), (now - p.begun).Round(time.Millisecond).Seconds()})
	}
	slices.SortFunc(all, func(a, b NodeStatus) int {
		return cmp.Or(cmp.Compare(b.Silence, a.Silence), cmp.Compare(a.Name, b.Name))
	})
	return all[:min(silentShown, len(all))]
}
