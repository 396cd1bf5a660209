package server

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/seed-134acfd0/lull/netpoll"
	"github.com/seed-134acfd0/lull/server/internal/outbox"
	"github.com/seed-134acfd0/lull/server/internal/topics"
	"github.com/seed-134acfd0/lull/tuning/cgroup"
)

// Options tune a server. The zero value of each is its default. A negative
// timeout turns it off.
type Options struct {
	// Reactors is the number of reactors; by default one for each processor that
	// Go may use, and with private tables as many as MaxConns needs.
	Reactors int
	// Tables chooses the reactors' descriptor tables. Auto means Private, unless
	// Handler's functions run on the reactors (Inline), where they may open
	// files, or the system does not allow it. With Inline, Private is for
	// handlers that open nothing.
	Tables netpoll.Tables
	// Mode says where Handler's functions run: Workers by default.
	Mode Mode
	// Workers is how many of them may run at once in mode Workers; by default
	// 16 for each processor.
	Workers int

	// MaxConns is the most connections at once; by default what descriptors
	// allow. A request beyond it is answered 503.
	MaxConns int
	// Backlog is how many connections may wait to be accepted, in each
	// listener's queue; by default 65535, which net.core.somaxconn cuts.
	Backlog int

	// MaxMessage is the largest message accepted, in bytes; 64 KiB by default.
	// A larger one closes its connection with 1009.
	MaxMessage int64
	// MaxPartial is how many bytes of incomplete messages the whole server
	// holds, and eight times how many of incomplete requests; 256 MiB by
	// default. Beyond it, the connection that holds most is closed with 1013.
	MaxPartial int

	// MaxInbox and MaxInboxMessages are how much may wait for a connection's
	// handler, in bytes and messages; by default 16 KiB and 64, and always one.
	MaxInbox, MaxInboxMessages int
	// MaxInboxTotal is how many bytes may wait for the handlers of all
	// connections; 64 MiB by default. The less of it is left, the less may one
	// connection have: a sixteenth of it. Beyond it no messages are read.
	MaxInboxTotal int
	// InboxPolicy says what happens to a connection whose inbox is full;
	// InboxPause by default.
	InboxPolicy InboxPolicy

	// MaxOutbox and MaxOutboxMessages are how much may wait for a peer, in bytes
	// and messages, beyond what its socket buffers; by default 64 KiB and 1,024.
	// While at most half of that waits, a message is let through whatever its size.
	MaxOutbox, MaxOutboxMessages int
	// MaxOutboxTotal is how many bytes may wait for all peers; by default an
	// eighth of the memory that the machine and its control groups allow. A
	// broadcast counts once for each connection, though its bytes are shared.
	MaxOutboxTotal int
	// OutboxPolicy says what happens to a message for which there is no room;
	// OutboxClose by default.
	OutboxPolicy OutboxPolicy

	// MaxBroadcast is how many bytes of broadcasts, and 512 for each, may be on
	// their way to the slowest reactor before Broadcast returns ErrBackpressure;
	// 8 MiB by default, at most 2 GiB. Connections that broadcast (Conn.Broadcast) are slowed
	// down at a quarter of MaxOutbox.
	MaxBroadcast int

	// MaxTopics is how many topics there may be at once; 1,048,576 by default, at most
	// 16,777,215. One takes 60 bytes, or more if its name is longer than 28, and 16 for
	// each reactor with subscribers.
	MaxTopics int
	// MaxSubscriptions is how many topics one connection may subscribe to; 100 by
	// default. Each takes 18 bytes, and each that comes or goes is looked for among all
	// of its connection, so thousands are possible and a million is not.
	MaxSubscriptions int
	// TopicChanged is called when somebody subscribes to a topic to which nobody did,
	// with true, and when nobody does any more, with false. It is called on a goroutine of
	// the server's own, one call at a time, after the fact: if a topic comes and goes while
	// it runs it may not hear of that, but what it hears last of a topic is true. It may
	// block; topics that it was not told of count for MaxTopics.
	TopicChanged func(topic string, live bool)

	// MessageRate and ByteRate are how fast one connection may send: messages a second,
	// of which each fragment, Ping and Pong is one, and bytes as they come from the
	// socket. MessageBurst and ByteBurst may come at once after a rest; by default what
	// comes in a second. Zero is no limit. A connection over its rate is not read until
	// it is within it again, to a quarter of a second, so that TCP makes its peer wait
	// and nothing is lost; with CloseOverRate it is closed with 1008. A rate costs
	// nothing for connections that are silent.
	MessageRate, ByteRate   float64
	MessageBurst, ByteBurst int
	CloseOverRate           bool

	// HandshakeTimeout is the time for a request head to arrive, and for
	// Handler.Upgrade; 10 s.
	HandshakeTimeout time.Duration
	// MessageTimeout is the time for a message to arrive, from its first byte to
	// its last; one minute. A connection that takes longer is closed with 1008.
	MessageTimeout time.Duration
	// WriteTimeout is how long a peer may take nothing of what waits for it; one
	// minute.
	WriteTimeout time.Duration
	// IdleTimeout is how long a peer may be silent; 10 minutes. After half of it
	// the peer is pinged.
	IdleTimeout time.Duration
	// CloseTimeout is the time for a peer to answer a Close frame and to take
	// what still waits for it; 5 s.
	CloseTimeout time.Duration
	// Grace is how long Run waits for connections to end after its context has;
	// 10 s. Handlers that still run then get as long again, and at least a
	// second.
	Grace time.Duration

	// What Server.Drain does: for DrainDelay the server goes on and is not ready, then
	// the connections are asked to leave, spread over DrainTime, those first that were
	// accepted first, or last with DrainNewestFirst. Each client is told to come back
	// after a random part of DrainReturn, 30 s by default; at once if that is negative.
	DrainDelay, DrainTime, DrainReturn time.Duration
	DrainNewestFirst                   bool

	// StallAfter is how long a reactor may take for a turn of its loop before it
	// is logged and counted as a stall, with what held it; 200 ms.
	StallAfter time.Duration
	// CallTimeout is how long a call of a handler on a worker may take before it
	// is logged and counted (Stats.Stuck); 10 s.
	CallTimeout time.Duration

	// Compress offers permessage-deflate (RFC 7692), without context takeover: nothing
	// is kept of a connection between two messages. Messages of CompressFrom bytes or
	// more, 256 by default, are sent compressed to those who have agreed; a broadcast
	// is compressed once.
	Compress     bool
	CompressFrom int

	// Limits of each address, and of each network, which is all addresses that have
	// their first PrefixBits4 (24 by default) or PrefixBits6 (64) bits in common: open
	// connections, and handshakes a second, of which as many may come at once after a
	// rest. HandshakeRate is for all together. Zero is no limit. Who is beyond is
	// refused with 429, or 503 for HandshakeRate, and a Retry-After; with TLS the
	// socket is closed. Behind a proxy that is not in Trust the address is the proxy's.
	MaxConnsPerAddress, MaxConnsPerPrefix                          int
	HandshakeRate, HandshakeRatePerAddress, HandshakeRatePerPrefix float64
	PrefixBits4, PrefixBits6                                       int

	// Trust are the proxies in front, as addresses or prefixes, whose word about the
	// client counts: with ProxyProtocol their connections begin with a PROXY head
	// (version 1 or 2, before TLS), and end if it is missing or malformed; with
	// ClientHeader, "X-Forwarded-For" or "Forwarded" (RFC 7239), their requests name
	// the client, of whom the last that no trusted proxy has named counts. Limits,
	// Request.RemoteAddr, logs and the Census then speak of the client.
	Trust         []string
	ProxyProtocol bool
	ClientHeader  string

	// MemoryGuard refuses new connections with 503 while memory is short: less than
	// a twentieth of what the machine or the control group allows is left, or tasks
	// stall for lack of it (pressure stall information).
	MemoryGuard bool

	// MaxAge is how long a connection may be open, at random up to a tenth less. Then
	// it is closed with 1008. Zero is for ever; Request.Expires may be sooner.
	MaxAge time.Duration

	// PingAfter is how long a peer is silent before it is pinged; by default half of
	// IdleTimeout.
	PingAfter time.Duration

	// Origins are the sites whose pages may connect, beside the server's own (an
	// Origin header that names the Host): "https://chat.example.com", "*.example.com"
	// for all its subdomains, or "any". Others are rejected with 403 before
	// Handler.Upgrade. Programs that are no browsers send no Origin, and may connect
	// (RFC 6455 section 10.2).
	Origins []string

	// TLS makes all connections wss://: TLS 1.3 by crypto/tls, with its certificates,
	// client authentication and session tickets, and http/1.1 as the protocol. An
	// idle connection then takes 108 bytes more. Certificates that change come from
	// its GetConfigForClient or GetCertificate, which are called on a goroutine of
	// the handshake's own.
	TLS *tls.Config

	// HTTP serves the requests on the server's own port that are no WebSocket
	// handshake: health checks, a page, an API. Their connections become net/http's,
	// at most MaxHTTP at a time (1000 by default); others get 503. Without HTTP
	// such a request is answered with 426. They count as handshakes and connections of
	// their address; behind a proxy that names the client in a header each request
	// counts, while it is served.
	HTTP    http.Handler
	MaxHTTP int

	// Log receives what an operator should know; by default slog.Default().
	Log *slog.Logger
}

// Mode says where a Handler's functions run.
type Mode uint8

const (
	// Workers runs them on a bounded pool of goroutines, each connection's one
	// at a time and in order. They may block.
	Workers Mode = iota + 1
	// Inline runs them on the connection's reactor. That is the fastest, and
	// they must not block: everybody else's connections would wait.
	Inline
	// Serial runs them one at a time for the whole server, on a goroutine of
	// their own. They may block, and need not be safe for concurrent use.
	Serial
)

// InboxPolicy says what happens to a connection that sends faster than its
// handler works. Inline has no need of it: what is not handled is not read.
type InboxPolicy uint8

const (
	// InboxPause does not read from the connection until its inbox is half
	// empty. TCP makes the peer wait, nothing is lost, and nobody is closed. Its
	// pings wait too, behind its messages, and it is not closed for silence.
	InboxPause InboxPolicy = iota + 1
	// InboxDrop drops the message and counts it.
	InboxDrop
	// InboxClose closes the connection with 1013.
	InboxClose
)

var (
	modes         = [...]string{Workers: "workers", Inline: "inline", Serial: "serial"}
	inboxPolicies = [...]string{InboxPause: "pause", InboxDrop: "drop", InboxClose: "close"}
)

func (m Mode) String() string        { return nameOf(m, modes[:]) }
func (p InboxPolicy) String() string { return nameOf(p, inboxPolicies[:]) }

// MarshalText returns the name.
func (m Mode) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// UnmarshalText accepts "workers", "inline" and "serial".
func (m *Mode) UnmarshalText(text []byte) error { return byName(m, text, modes[:], "a mode") }

// MarshalText returns the name.
func (p InboxPolicy) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText accepts "pause", "drop" and "close".
func (p *InboxPolicy) UnmarshalText(text []byte) error {
	return byName(p, text, inboxPolicies[:], "an inbox policy")
}

// nameOf is the name of a value, empty for zero and for what does not exist.
func nameOf[T ~uint8](value T, names []string) string {
	if int(value) < len(names) {
		return names[value]
	}
	return ""
}

// byName sets a value to the one whose name is text. Names begin at 1.
func byName[T ~uint8](value *T, text []byte, names []string, what string) error {
	i := slices.Index(names, string(text))
	if i <= 0 {
		return fmt.Errorf("server: %s is one of %s, not %q", what, strings.Join(names[1:], ", "), text)
	}
	*value = T(i)
	return nil
}

// slotsMax is how many connections one reactor can have, and reactorsMax how
// many reactors there can be: a Conn's number has 22 bits for the slot and 10 for
// the reactor.
const (
	slotsMax    = 1 << 22
	reactorsMax = 1 << 10
)

// broadcastMost keeps fewer than 2^24 publications on their way to a topic, which is as far
// as its subscribers count: each takes 512 bytes, and there may be twice as much.
const broadcastMost = 1 << 31

// withDefaults fills in what o leaves open and checks the rest. listeners is how
// many descriptors each table needs for them.
func (o Options) withDefaults(listeners int) (Options, error) {
	set(&o.CompressFrom, 256)
	set(&o.MaxHTTP, 1000)
	set(&o.Backlog, 65535)
	set(&o.MaxMessage, 64<<10)
	set(&o.MaxPartial, 256<<20)
	set(&o.MaxInbox, 16<<10)
	set(&o.MaxInboxMessages, 64)
	set(&o.MaxInboxTotal, 64<<20)
	set(&o.InboxPolicy, InboxPause)
	set(&o.MaxOutbox, 64<<10)
	set(&o.MaxOutboxMessages, 1<<10)
	set(&o.OutboxPolicy, OutboxClose)
	set(&o.MaxBroadcast, 8<<20)
	set(&o.MaxTopics, 1<<20)
	set(&o.MaxSubscriptions, 100)
	set(&o.Mode, Workers)
	set(&o.Workers, 16*netpoll.Processors())
	if o.Mode == Serial {
		o.Workers = 1
	}
	set(&o.HandshakeTimeout, 10*time.Second)
	set(&o.MessageTimeout, time.Minute)
	set(&o.WriteTimeout, time.Minute)
	set(&o.IdleTimeout, 10*time.Minute)
	set(&o.CloseTimeout, 5*time.Second)
	set(&o.Grace, 10*time.Second)
	set(&o.DrainReturn, 30*time.Second)
	set(&o.StallAfter, 200*time.Millisecond)
	set(&o.CallTimeout, 10*time.Second)
	if o.Log == nil {
		o.Log = slog.Default()
	}
	if o.MaxOutboxTotal == 0 {
		o.MaxOutboxTotal = memory() / 8
	}
	if t := o.TLS; t != nil && len(t.Certificates) == 0 && t.GetCertificate == nil && t.GetConfigForClient == nil {
		return o, errors.New("server: Options: TLS has no certificate")
	}
	for name, n := range o.limits() {
		if n < 0 {
			return o, fmt.Errorf("server: Options: %s must not be negative", name)
		}
	}
	if err := o.rateLimit().Check(); err != nil {
		return o, fmt.Errorf("server: Options: MessageRate and ByteRate: %w", err)
	}
	if o.MaxOutbox > outbox.BytesMax/2 || o.MaxOutboxMessages > outbox.MessagesMax/2 {
		return o, fmt.Errorf("server: Options: MaxOutbox can be at most %d, MaxOutboxMessages %d", outbox.BytesMax/2, outbox.MessagesMax/2)
	}
	if o.MaxTopics > topics.Most || int64(o.MaxBroadcast) > broadcastMost {
		return o, fmt.Errorf("server: Options: MaxTopics can be at most %d, MaxBroadcast %d", topics.Most, int64(broadcastMost))
	}
	if o.Mode > Serial || o.InboxPolicy > InboxClose || o.OutboxPolicy > OutboxLatest {
		return o, fmt.Errorf("server: Options: no such Mode, InboxPolicy or OutboxPolicy")
	}
	return o.withReactors(listeners)
}

// limits are the numbers that must not be negative.
func (o *Options) limits() map[string]int64 {
	return map[string]int64{
		"Reactors": int64(o.Reactors), "Workers": int64(o.Workers), "MaxConns": int64(o.MaxConns), "MaxHTTP": int64(o.MaxHTTP), "CompressFrom": int64(o.CompressFrom), "MaxAge": int64(o.MaxAge), "DrainDelay": int64(o.DrainDelay), "DrainTime": int64(o.DrainTime), "Backlog": int64(o.Backlog),
		"MaxMessage": o.MaxMessage, "MaxPartial": int64(o.MaxPartial),
		"MaxInbox": int64(o.MaxInbox), "MaxInboxMessages": int64(o.MaxInboxMessages), "MaxInboxTotal": int64(o.MaxInboxTotal),
		"MaxOutbox": int64(o.MaxOutbox), "MaxOutboxMessages": int64(o.MaxOutboxMessages), "MaxOutboxTotal": int64(o.MaxOutboxTotal),
		"MaxBroadcast": int64(o.MaxBroadcast), "MaxTopics": int64(o.MaxTopics), "MaxSubscriptions": int64(o.MaxSubscriptions),
	}
}

// withReactors settles how many reactors there are, what Auto tables mean, and
// how many connections they have room for.
func (o Options) withReactors(listeners int) (Options, error) {
	table, err := netpoll.DescriptorLimit()
	if err != nil {
		return o, fmt.Errorf("server: %w", err)
	}
	if o.Tables == netpoll.Auto {
		o.Tables = netpoll.Private
		if err := netpoll.PrivateTables(); o.Mode == Inline {
			o.Tables = netpoll.Shared
		} else if err != nil {
			o.Tables = netpoll.Shared
			o.Log.Warn("reactors share one descriptor table, because the system does not allow private ones", "error", err)
		}
	}
	if o.Reactors == 0 {
		o.Reactors = min(reactorsMax, netpoll.ReactorsFor(o.Tables, table, o.MaxConns, listeners, netpoll.Processors()))
	}
	room := min(netpoll.Room(o.Tables, table, o.Reactors, listeners), o.Reactors*slotsMax)
	set(&o.MaxConns, room)
	switch {
	case o.Reactors > reactorsMax || room <= 0:
		return o, fmt.Errorf("server: %d reactors with %s descriptor tables have no room for connections under this RLIMIT_NOFILE", o.Reactors, o.Tables)
	case o.MaxConns > room:
		return o, fmt.Errorf("server: RLIMIT_NOFILE allows %d reactors with %s descriptor tables %d connections, not %d: raise it, or use private tables and more reactors",
			o.Reactors, o.Tables, room, o.MaxConns)
	}
	return o, nil
}

// memory is how much the machine and its control groups allow, in bytes.
func memory() int {
	if n, ok := cgroup.MemoryLimit("/"); ok {
		return int(n)
	}
	return 1 << 30
}

// slots is how many slots one reactor gets: its table's share, or all, because
// connections spread evenly while they come and not while they leave. There are
// more than MaxConns, so that connections beyond it can be told.
func (o *Options) slots(listeners int) (int, error) {
	const beyond, kept = 256, 32
	table, err := netpoll.DescriptorLimit()
	if err != nil {
		return 0, fmt.Errorf("server: %w", err)
	}
	room := netpoll.Room(o.Tables, table, o.Reactors, listeners)
	if o.Tables == netpoll.Private {
		room /= o.Reactors
	}
	// Half of the descriptors that Room keeps for other things will do.
	return min(o.MaxConns+beyond, room+kept, slotsMax), nil
}

func set[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}
