package server

import (
	"fmt"
	"log/slog"
	"math"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-134acfd0/lull/netpoll"
)

// Options tune a server. The zero value is the default of each. A negative
// timeout turns it off.
type Options struct {
	// Reactors is the number of reactors; by default one for each processor
	// that Go may use, and with private tables as many as MaxConns needs.
	Reactors int
	// Tables chooses the reactors' descriptor tables. Auto means Private unless
	// Handler's functions run on the reactors (Inline), where they may open
	// files; with Inline, Private is for handlers that do not.
	Tables netpoll.Tables
	// Mode says where Handler's functions run: Workers by default.
	Mode Mode
	// Workers is how many of them may run at once in mode Workers; by default
	// 16 for each processor.
	Workers int
	// QueueMessages and QueueBytes are how many messages a connection's handler
	// may have before it; by default 64 and 16 KiB, and always one.
	QueueMessages, QueueBytes int
	// MaxQueued is how many bytes of messages may wait for handlers in the
	// whole server; 64 MiB by default. Beyond it each connection may still have
	// one.
	MaxQueued int
	// WhenFull says what happens to a connection with so many: Pause by
	// default.
	WhenFull WhenFull

	// MaxConns is the most connections at once; by default what descriptors
	// allow. A request beyond it is answered 503.
	MaxConns int
	// Backlog is how many connections may wait to be accepted, in each
	// listener's queue; by default 65535, which net.core.somaxconn cuts.
	Backlog int

	// MaxMessage is the largest message accepted, in bytes; 64 KiB by default.
	// A larger one closes its connection with 1009.
	MaxMessage int64
	// MaxOutbox and MaxOutboxMessages are how much a connection may be owed,
	// beyond what its socket buffers; by default 64 KiB and 1,024 messages. A
	// single message is let through whatever its size.
	MaxOutbox, MaxOutboxMessages int
	// MaxOwed is how many bytes all connections together may be owed; by
	// default an eighth of the machine's memory. A broadcast counts once for
	// each connection, though its bytes are shared.
	MaxOwed int
	// WhenSlow says what happens to a message for which there is no room;
	// CloseSlow by default.
	WhenSlow WhenSlow
	// MaxPartial is how many bytes of incomplete messages and requests the
	// whole server holds; 256 MiB by default. A connection that needs more is
	// closed with 1013.
	MaxPartial int
	// MaxPublished is how many bytes of broadcasts may be on their way to the
	// slowest reactor before Broadcast returns ErrSlow; 8 MiB by default.
	MaxPublished int

	// HandshakeTimeout is the time for a request head to arrive; 10 s.
	HandshakeTimeout time.Duration
	// IdleTimeout is how long a peer may be silent; 10 minutes. After half of
	// it the peer is pinged.
	IdleTimeout time.Duration
	// CloseTimeout is the time for a peer to answer a Close frame and to take
	// what it is still owed; 5 s.
	CloseTimeout time.Duration
	// Grace is how long Run waits for connections to end after its context
	// has; 10 s. Handlers that still run then get as long again, and at least
	// a second.
	Grace time.Duration

	// StallAfter is how long a reactor may take for a turn before it is logged
	// and counted as a stall, with what held it; 200 ms.
	StallAfter time.Duration

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

// WhenFull says what happens to a connection that sends faster than its
// handler works. Inline has no need of it: what is not handled is not read.
type WhenFull uint8

const (
	// Pause does not read from the connection until its queue is half empty.
	// TCP makes the peer wait, nothing is lost, and nobody is closed. Its pings
	// wait too, behind its messages; so it is not closed for silence either.
	Pause WhenFull = iota + 1
	// DropMessage drops the message and counts it.
	DropMessage
	// CloseConn closes the connection with 1013.
	CloseConn
)

var (
	modeNames     = [...]string{Workers: "workers", Inline: "inline", Serial: "serial"}
	whenFullNames = [...]string{Pause: "pause", DropMessage: "drop", CloseConn: "close"}
)

func (m Mode) String() string     { return modeNames[m] }
func (w WhenFull) String() string { return whenFullNames[w] }

// MarshalText returns the name.
func (m Mode) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// UnmarshalText accepts "workers", "inline" and "serial".
func (m *Mode) UnmarshalText(text []byte) error {
	return byName(m, text, modeNames[:], "handlers run in mode")
}

// MarshalText returns the name.
func (w WhenFull) MarshalText() ([]byte, error) { return []byte(w.String()), nil }

// UnmarshalText accepts "pause", "drop" and "close".
func (w *WhenFull) UnmarshalText(text []byte) error {
	return byName(w, text, whenFullNames[:], "a full queue can")
}

// byName sets a value to the one whose name is text. Names begin at 1.
func byName[T ~uint8](value *T, text []byte, names []string, what string) error {
	i := slices.Index(names, string(text))
	if i <= 0 {
		return fmt.Errorf("server: %s %s, not %q", what, strings.Join(names[1:], ", "), text)
	}
	*value = T(i)
	return nil
}

// descriptorsKept is how many descriptors of a table are left to everything
// that is not a connection.
const descriptorsKept = 64

// slotsMax is how many connections one reactor can have: a Conn's number has
// 22 bits for the slot and 10 for the reactor.
const (
	slotsMax    = 1 << 22
	reactorsMax = 1 << 10
)

// withDefaults fills in what o leaves open and checks the rest. listeners is
// how many descriptors each table needs for them.
func (o Options) withDefaults(listeners int) (Options, error) {
	set(&o.Backlog, 65535)
	set(&o.MaxMessage, 64<<10)
	set(&o.MaxOutbox, 64<<10)
	set(&o.MaxOutboxMessages, 1<<10)
	set(&o.WhenSlow, CloseSlow)
	set(&o.MaxPartial, 256<<20)
	set(&o.MaxPublished, 8<<20)
	set(&o.Mode, Workers)
	set(&o.Workers, 16*netpoll.Processors())
	set(&o.QueueMessages, 64)
	set(&o.QueueBytes, 16<<10)
	set(&o.MaxQueued, 64<<20)
	set(&o.WhenFull, Pause)
	if o.Mode == Serial {
		o.Workers = 1
	}
	set(&o.HandshakeTimeout, 10*time.Second)
	set(&o.IdleTimeout, 10*time.Minute)
	set(&o.CloseTimeout, 5*time.Second)
	set(&o.Grace, 10*time.Second)
	set(&o.StallAfter, 200*time.Millisecond)
	if o.Log == nil {
		o.Log = slog.Default()
	}
	if o.MaxOwed == 0 {
		o.MaxOwed = memory() / 8
	}
	if o.Reactors < 0 || o.MaxConns < 0 || o.MaxMessage < 0 || o.MaxOutbox < 0 || o.MaxOutboxMessages < 0 || o.MaxOwed < 0 || o.MaxPartial < 0 || o.MaxPublished < 0 ||
		o.Workers < 0 || o.QueueMessages < 0 || o.QueueBytes < 0 || o.MaxQueued < 0 {
		return o, fmt.Errorf("server: Options: Reactors, Workers and limits must not be negative")
	}
	if o.MaxOutbox > messageBytes/2 || o.MaxOutboxMessages > debtsMessages/2 {
		return o, fmt.Errorf("server: Options: MaxOutbox can be at most %d, MaxOutboxMessages %d", messageBytes/2, debtsMessages/2)
	}
	if o.Mode > Serial || o.WhenFull > CloseConn || o.WhenSlow > Latest {
		return o, fmt.Errorf("server: Options: no such Mode, WhenFull or WhenSlow")
	}

	table, err := tableRoom(listeners)
	if err != nil {
		return o, err
	}
	o.chooseReactors(table)
	room := o.room(table)
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

// tableRoom is how many descriptors a table has for connections and reactors.
func tableRoom(listeners int) (int, error) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return 0, fmt.Errorf("server: read RLIMIT_NOFILE: %w", err)
	}
	return int(min(limit.Cur, math.MaxInt32)) - descriptorsKept - listeners, nil
}

// memory is the machine's, in bytes.
func memory() int {
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) != nil {
		return 1 << 30
	}
	return int(info.Totalram) * int(info.Unit)
}

// chooseReactors settles how many reactors there are and, with it, what Auto
// tables mean.
func (o *Options) chooseReactors(table int) {
	if o.Tables == netpoll.Auto {
		if o.Tables = netpoll.Private; o.Mode == Inline {
			o.Tables = netpoll.Shared
		}
	}
	if o.Reactors != 0 {
		return
	}
	o.Reactors = netpoll.Processors()
	for o.Tables == netpoll.Private && o.room(table) < o.MaxConns && o.Reactors < reactorsMax {
		o.Reactors++
	}
}

// room is how many connections the reactors can have. Each table holds an
// eventfd for every reactor, and an epoll set for each that uses it.
func (o *Options) room(table int) int {
	if o.Tables == netpoll.Private {
		return o.Reactors * min(table-o.Reactors-1, slotsMax)
	}
	return min(table-2*o.Reactors, o.Reactors*slotsMax)
}

// slots is how many slots one reactor gets: its table's share, or all, because
// connections spread evenly while they come and not while they leave. Some
// more than MaxConns let those beyond it be told so.
func (o *Options) slots(table int) int {
	const beyond = 256
	return min(o.MaxConns+beyond, table, slotsMax)
}

func set[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}
