package loadgen

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/seed-134acfd0/lull/loadgen/measure"
	"github.com/seed-134acfd0/lull/loadgen/plan"
	"github.com/seed-134acfd0/lull/netpoll"
)

// Config says what to do to which server. Zero values are defaults.
type Config struct {
	// Plan says what to do. If it is nil, a plan is made of the fields below: connections
	// open, are idle, one sends broadcasts, and then some send and receive echoes.
	Plan *plan.Plan

	URLs  []string // ws://host:port/path or wss://…, one or several; connections spread over them
	Conns int      // connections to open
	Rate  float64  // connections a second; 0 is as fast as the server takes them

	// Compress offers permessage-deflate (RFC 7692), which the server has to agree to.
	Compress bool
	// Reconnect opens a connection again when the server has ended it: when the
	// Close frame's reason tells to ("retry=12.5s"), otherwise after half to one and
	// a half seconds, and twice as long after each try that fails, up to 48 seconds.
	Reconnect bool

	Hold       time.Duration // how long the connections stay idle after the last was opened
	Rooms      int           // rooms that the connections are in, which {{.Room}} in a URL names; 0 is none
	Broadcasts int           // messages that one connection sends and all receive, in each room if there are some
	Burst      int           // how many of them are sent back to back; 1
	Size       int           // payload bytes of a message; 32
	Deaf       int           // connections that do not read during the broadcasts, but after them

	Active    int           // connections that send and wait for the echo, one message each at a time
	Pace      float64       // messages a second that these send together; 0 is as fast as the answers come
	Flood     int           // connections that send without waiting for the echoes
	FloodRate float64       // messages a second that these send together; 0 is as fast as the server takes them
	Echo      time.Duration // how long the active and the flooding connections send

	// Probe is the interval of pings on one more connection during the broadcasts,
	// or during the echoes if there are no broadcasts; 0 is no pings.
	Probe time.Duration

	Sources []netip.Addr // source addresses; if empty, Run finds as many as it needs
	Workers int          // reactors; 0 is one for each processor, or more if the descriptor limit demands it

	// Segment is the longest TCP segment, in bytes; 0 is the kernel's choice.
	// Over loopback the kernel chooses 64 KiB. It then takes more than a
	// megabyte for a peer that does not read, before the server notices. 1,460
	// is what a network has.
	Segment int

	// TLS is for wss:// URLs: TLS 1.3, with RootCAs, InsecureSkipVerify, ServerName
	// and Certificates as in crypto/tls. If it is nil, the system's authorities count.
	TLS *tls.Config
	// Resume makes TLS handshakes use a session ticket, if the server sends one
	// with its handshake. All connections to a URL share the latest.
	Resume bool

	Tables         netpoll.Tables // descriptor tables; Auto means Private
	ConnectTimeout time.Duration  // for TCP's, TLS's and WebSocket's handshakes together; 30 s
	Patience       time.Duration  // how long to wait when nothing more comes; 60 s

	// Floor speaks to the floor program: the sample key, a masking key of
	// zeros, and no closing handshake.
	Floor bool

	// Reply is called with each message that is neither an answer nor published, and appends
	// to dst what its user sends back, as a text. It runs on all workers. nil sends nothing.
	Reply func(user int, dst, message []byte) []byte

	// Sinks are told what the run does, which waits until they return.
	Sinks []measure.Sink
	// Control lets another goroutine pause the run and change its rates. It may be nil.
	Control *Control

	// What several machines that carry out one load have to agree on.
	First int       // the number of this machine's first user
	RunID uint16    // of the run, in each message; 0 is a random one
	Begin time.Time // when the run begins, by this machine's clock; zero is now. Messages' times count from then.
	// Barrier is called before each phase begins, with its index, and the run goes on
	// when it returns. The run ends with its error. It may be nil.
	Barrier func(ctx context.Context, phase int) error
}

// sizeDefault is the size of a message that the generator makes, in bytes.
const sizeDefault = 32

// MakePlan makes a plan of the fields, with one group. An error names what cannot be.
func (c *Config) MakePlan() (*plan.Plan, error) {
	switch {
	case len(c.URLs) == 0:
		return nil, errors.New("loadgen: a URL is needed")
	case c.Conns < 1:
		return nil, errors.New("loadgen: at least one connection is needed")
	case c.Rate < 0 || c.Broadcasts < 0 || c.Burst < 0 || c.Active < 0 || c.Deaf < 0 || c.Flood < 0 || c.Pace < 0 || c.FloodRate < 0 || c.Size < 0 || c.Rooms < 0 || min(c.Hold, c.Echo, c.Probe) < 0:
		return nil, errors.New("loadgen: numbers and times must not be negative")
	case c.Active+c.Flood > c.Conns:
		return nil, fmt.Errorf("loadgen: %d active and %d flooding connections are more than the %d connections", c.Active, c.Flood, c.Conns)
	case c.Deaf >= c.Conns:
		return nil, fmt.Errorf("loadgen: at least one of the %d connections must not be deaf", c.Conns)
	case c.Reconnect && c.Deaf > 0:
		return nil, errors.New("loadgen: deaf connections cannot be opened again")
	}
	group := plan.Group{Name: "users", Users: c.Conns, Rooms: c.Rooms, Compress: c.Compress, Reconnect: c.Reconnect}
	for _, raw := range c.URLs {
		url, err := plan.ParseText(raw)
		if err != nil {
			return nil, fmt.Errorf("loadgen: %s: %w", raw, err)
		}
		group.URLs = append(group.URLs, url)
	}
	p := &plan.Plan{Groups: []plan.Group{group}, Phases: []plan.Phase{{Name: "ramp", Kind: plan.Ramp, Rate: c.Rate}}}
	if c.Hold > 0 {
		p.Phases = append(p.Phases, plan.Phase{Name: "hold", Kind: plan.Hold, For: c.Hold})
	}
	if c.Broadcasts > 0 {
		p.Phases = append(p.Phases, plan.Phase{
			Name: "broadcast", Kind: plan.Publish, Count: c.Broadcasts, Burst: c.Burst, Deaf: c.Deaf, Probe: c.Probe, Message: plan.Message{Size: c.Size},
		})
	}
	if talk := c.talk(); len(talk.Streams) > 0 && c.Echo > 0 {
		p.Phases = append(p.Phases, talk)
	}
	return p, nil
}

// talk is the phase of echoes.
func (c *Config) talk() plan.Phase {
	echo := plan.Message{Size: c.Size, Answer: plan.Answer{Kind: plan.AnswerEcho}}
	talk := plan.Phase{Name: "echo", Kind: plan.Talk, For: c.Echo}
	if c.Broadcasts == 0 {
		talk.Probe = c.Probe
	}
	if c.Active > 0 {
		talk.Streams = append(talk.Streams, plan.Stream{Users: c.Active, Rate: c.Pace, Message: echo, Window: 1})
	}
	if c.Flood > 0 {
		talk.Streams = append(talk.Streams, plan.Stream{Users: c.Flood, Rate: c.FloodRate, Message: echo})
	}
	return talk
}

func (c Config) withDefaults() (Config, error) {
	c.ConnectTimeout = cmp.Or(c.ConnectTimeout, 30*time.Second)
	c.Patience = cmp.Or(c.Patience, time.Minute)
	c.Control = cmp.Or(c.Control, &Control{})
	if c.Tables == netpoll.Auto {
		if c.Tables = netpoll.Private; netpoll.PrivateTables() != nil {
			c.Tables = netpoll.Shared // containers' default profiles filter unshare
		}
	}
	if c.Workers < 0 || c.Segment < 0 || c.First < 0 || min(c.ConnectTimeout, c.Patience) < 0 {
		return c, errors.New("loadgen: numbers and times must not be negative")
	}
	if c.Plan == nil {
		var err error
		if c.Plan, err = c.MakePlan(); err != nil {
			return c, err
		}
	}
	if c.Barrier == nil { // a share of a plan need not be valid by itself
		if err := c.Plan.Validate(); err != nil {
			return c, fmt.Errorf("loadgen: %w", err)
		}
	}
	if c.Floor {
		return c, floorTakes(c.Plan)
	}
	return c, nil
}

// floorTakes refuses what the floor program cannot do.
func floorTakes(p *plan.Plan) error {
	for i := range p.Groups {
		g := &p.Groups[i]
		switch {
		case g.Compress:
			return errors.New("loadgen: the floor program does not compress")
		case slices.ContainsFunc(g.URLs, func(t *plan.Text) bool { return strings.HasPrefix(t.String(), "wss:") }):
			return errors.New("loadgen: the floor program does not speak TLS")
		}
	}
	const largest = 125
	for i := range p.Phases {
		ph := &p.Phases[i]
		sizes := []int{ph.Message.Size}
		for _, s := range ph.Streams {
			sizes = append(sizes, s.Message.Size)
			if s.Window == 0 {
				return errors.New("loadgen: the floor program cannot take flooding connections")
			}
		}
		switch {
		case ph.Deaf > 0:
			return errors.New("loadgen: the floor program cannot take deaf connections")
		case slices.Max(sizes) > largest:
			return fmt.Errorf("loadgen: the floor program takes messages of at most %d bytes", largest)
		}
	}
	return nil
}
