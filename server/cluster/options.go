package cluster

import (
	"cmp"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/seed-134acfd0/lull/frame"
)

// Options say which cluster a node joins, and how. The zero value of each is its default; URL
// or Broker must be set.
type Options struct {
	// URL is where the brokers are: nats://host:4222, or tls://host:4222; several of one
	// NATS cluster have commas in between. Broker is an embedded one, in place of URL.
	URL    string
	Broker *Broker

	// Cluster is the cluster's name, "lull" by default. Clusters of different names do not
	// meet, though they have the same broker. Name is the node's, by default the host's; no
	// two nodes of a cluster may have the same. Both are 1 to 32 letters, digits, '-' and
	// '_'; Name may have dots, too.
	Cluster, Name string

	// Token and CredsFile (a user's JWT and seed) tell the broker who the node is. TLS is
	// what it trusts, and shows; nil is without, unless URL says tls://.
	Token, CredsFile string
	TLS              *tls.Config

	// Personal are the prefixes of topics that have one member or a few, and that there are
	// many of; by default "user:" and "device:". They share 512 subjects, so that their
	// members may come and go without the broker. A message to one of them reaches each
	// node that has members of some that share its subject.
	Personal []string

	// MaxMessage is the largest message to a topic, in bytes; 64 KiB by default. The broker
	// must take that and 512 more.
	MaxMessage int
	// Queue is how many bytes may wait for the broker, 8 MiB by default: what is published
	// faster than the broker takes it, and what is published while it is away.
	Queue int

	// Present says which topics have members (Enter, Members); nil is none. It is asked
	// often, must give the same answer for a topic always, and on all nodes.
	Present func(topic string) bool
	// MemberChanged is told of members of topics that have subscribers or members here, on
	// all nodes, one change at a time. A member of a topic without subscribers here that is
	// on another node is not known.
	MemberChanged func(MemberChange)
	// History says how much is kept of a topic on each node that has subscribers to it, for
	// Resume; nil is nothing. It is asked often, must give the same answer for a topic always,
	// and on all nodes. A node that loses its last subscriber keeps the topic for Limits.Age, but
	// at most ten minutes; a minute if that is not set.
	History func(topic string) Limits
	// Stream keeps messages to topics with a history in a stream of the broker's JetStream, too, so
	// that clients can resume when all nodes were restarted; nil does not. All nodes have it, or
	// none. The stream's name is lull_CLUSTER_1.
	Stream *Stream
	// Delivered is told of each message to a topic when it was delivered to the topic's
	// subscribers on this node, in that order, for programs that pass it on to others in another
	// form: by the Publisher, under another name. ErrBackpressure of package server means that
	// it could not; the message is a Loss then. Delivered must not block beside that, nor call
	// the node.
	Delivered func(by Publisher, d Delivery) error
	// Secret is the same on all nodes and unknown to clients, so that they cannot choose
	// names of topics and members that are hard to tell apart.
	Secret string

	// Lost is told of messages to topics with members here that have not arrived. It must
	// not block, and is called for one loss at a time.
	Lost func(Loss)
	// Log is where the node says what it notices; nil is slog.Default.
	Log *slog.Logger

	pace pace // for tests
}

// Delivery is a message that was delivered. Data is valid until Options.Delivered returns.
type Delivery struct {
	Topic string
	Op    frame.Op
	Data  []byte
	// Position is the position of those who have had this message and all before it (Resume),
	// valid until Options.Delivered returns. It is empty without a history, and for a message
	// that comes late and has others behind it.
	Position func() string
}

// Loss is messages that have not arrived and will not.
type Loss struct {
	// Node is the publisher's name; its ID if its name was not heard.
	Node string
	// Topic is where they were published. It is empty where only the shard of a personal
	// topic is known, 0 to 511; Shard is -1 otherwise.
	Topic string
	Shard int
	// Messages is how many there are. Unsure says that there may be more, which nobody
	// counted: the node was away for longer than publishers remember.
	Messages uint64
	Unsure   bool
}

// pace is how fast things go. The zero value of each is what the constants say.
type pace struct {
	beat, death, linger, quiet, confirm, greeting, slack, resume time.Duration
}

// How fast things go.
const (
	beatEvery    = time.Second            // a hello of each node
	deathAfter   = 6 * time.Second        // without a hello, a node is dead
	lingerFor    = 10 * time.Second       // a subject is followed after its last member has left
	quietFor     = time.Second            // silence on a subject until its tail is told
	confirmFor   = 100 * time.Millisecond // until a subscription is unconfirmed
	greetingFor  = 200 * time.Millisecond // for the nodes that are there to answer one that comes
	seriesLife   = 10 * time.Minute       // silence on a subject until its publisher forgets it
	tickEvery    = 250 * time.Millisecond
	dialTimeout  = 2 * time.Second // to connect to the broker
	writeTimeout = 5 * time.Second // for the broker to take something
	retryMin     = 100 * time.Millisecond
	retryMax     = 5 * time.Second
)

// Limits.
const (
	messageMax    = 64 << 10 // Options.MaxMessage's default, in bytes
	queueBytes    = 8 << 20  // Options.Queue's default
	envelopeMax   = 512      // bytes of a message that are not its data
	controlBytes  = 4 << 20  // that may wait for the broker beyond Options.Queue: answers and tails
	publishedMax  = 1 << 17  // subjects that a publisher remembers, about 250 bytes each
	intakeBytes   = 2 << 20  // read from the broker and not handled yet
	intakeMax     = 1 << 16  // messages of these, by far
	nodesMax      = 1000     // of a cluster
	helloMax      = 1 << 10  // bytes of a hello
	askBytes      = 48 << 10 // of the subjects in one question
	askMax        = 1000     // subjects in one question
	roundsMax     = 16       // questions without all answers
	tailsPerTick  = 1000
	personalBytes = 100 // of all Options.Personal; a hello has them
	nameMax       = 32  // bytes of a node's and a cluster's name
	deliverTries  = 10  // to a server that has too much to send: a second in all
	sndbufBytes   = 256 << 10
	brokerVersion = "2.0.0" // the oldest broker that is known to work
)

// Check returns what is wrong with the options by themselves, as Join would, or nil.
func (o Options) Check() error {
	_, err := o.withDefaults()
	return err
}

func (o Options) withDefaults() (Options, error) {
	o.Cluster = cmp.Or(o.Cluster, "lull")
	if o.Name == "" {
		o.Name, _ = os.Hostname()
		o.Name = o.Name[:min(len(o.Name), nameMax)]
	}
	if o.Personal == nil {
		o.Personal = []string{"user:", "device:"}
	}
	o.MaxMessage = cmp.Or(o.MaxMessage, messageMax)
	o.Queue = cmp.Or(o.Queue, queueBytes)
	if o.Stream != nil {
		s := *o.Stream
		s.Bytes = cmp.Or(s.Bytes, streamBytes)
		o.Stream = &s
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	p := &o.pace
	p.beat = cmp.Or(p.beat, beatEvery)
	p.death = cmp.Or(p.death, deathAfter)
	p.linger = cmp.Or(p.linger, lingerFor)
	p.quiet = cmp.Or(p.quiet, quietFor)
	p.confirm = cmp.Or(p.confirm, confirmFor)
	p.greeting = cmp.Or(p.greeting, greetingFor)
	p.resume = cmp.Or(p.resume, resumeFor)
	switch {
	case (o.URL == "") == (o.Broker == nil):
		return o, errors.New("cluster: either Options.URL or Options.Broker must be set")
	case !isName(o.Cluster, false):
		return o, fmt.Errorf("cluster: the cluster's name %.100q must be 1 to %d letters, digits, '-' and '_'", o.Cluster, nameMax)
	case !isName(o.Name, true):
		return o, fmt.Errorf("cluster: the node's name %.100q must be 1 to %d letters, digits, '-', '_' and '.'", o.Name, nameMax)
	case o.Stream != nil && (o.History == nil || o.Stream.Messages < 1 || o.Stream.Age < 0 || o.Stream.Bytes < 0):
		return o, errors.New("cluster: Options.Stream is for what Options.History keeps, of at least one message of each topic")
	case o.MaxMessage < 1 || o.Queue < o.MaxMessage+envelopeMax:
		return o, fmt.Errorf("cluster: Options.MaxMessage is %d and Options.Queue %d, and a message must fit into the queue", o.MaxMessage, o.Queue)
	}
	bytes := 0
	for _, p := range o.Personal {
		if bytes += len(p); p == "" || bytes > personalBytes {
			return o, fmt.Errorf("cluster: a prefix of personal topics must have 1 byte or more, and all together at most %d", personalBytes)
		}
	}
	return o, nil
}

// isName reports whether a text is the name of a cluster or, with dots, of a node.
func isName(name string, dots bool) bool {
	return name != "" && len(name) <= nameMax && !strings.ContainsFunc(name, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_' || dots && r == '.')
	})
}
