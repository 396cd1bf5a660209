package loadgen

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/seed-134acfd0/lull/internal/record"
	"github.com/seed-134acfd0/lull/netpoll"
)

// Config says what to do to which server. Zero values are defaults.
type Config struct {
	URLs    []string     // ws://host:port/path or wss://…, one or several; connections spread over them
	Conns   int          // connections to open
	Rate    float64      // connections a second; 0 is as fast as the server takes them
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

	// Compress offers permessage-deflate (RFC 7692), which the server has to agree to.
	Compress bool

	Tables         netpoll.Tables // descriptor tables; Auto means Private
	ConnectTimeout time.Duration  // for TCP's, TLS's and WebSocket's handshakes together; 30 s
	Hold           time.Duration  // how long the connections stay idle after the last was opened

	// Reconnect opens a connection again when the server has ended it: when the
	// Close frame's reason tells to ("retry=12.5s"), otherwise after half to one and
	// a half seconds, and twice as long after each try that fails, up to 48 seconds.
	Reconnect bool

	Broadcasts int           // messages that one connection sends and all receive
	Burst      int           // how many of them are sent back to back; 1
	Size       int           // payload bytes of a message; 32
	Patience   time.Duration // how long to wait when nothing more is received; 60 s
	Deaf       int           // connections that do not read during the broadcasts, but after them

	Active    int           // connections that send and wait for the echo, one message each at a time
	Pace      float64       // messages a second that these send together; 0 is as fast as the answers come
	Flood     int           // connections that send without waiting for the echoes
	FloodRate float64       // messages a second that these send together; 0 is as fast as the server takes them
	Echo      time.Duration // how long the active and the flooding connections send

	// Probe is the interval of pings on one more connection during the broadcasts,
	// or during the echoes if there are no broadcasts; 0 is no pings.
	Probe time.Duration

	// Floor speaks to the floor program: the sample key, a masking key of
	// zeros, and no closing handshake.
	Floor bool

	// Phase is called when a phase begins, and the phase waits until it returns.
	// It may be nil.
	Phase func(name string)
	// Progress is called every tenth of a second. It may be nil.
	Progress func(Progress)
}

// The limits of a message's payload, in bytes. It holds at least the time, the
// number and the kind, and fits into a socket's buffer.
const (
	sizeMin = 16
	sizeMax = 64 << 10
)

// target is a resolved URL.
type target struct {
	addr netip.AddrPort
	host string         // the Host header
	path string         // the request target
	tls  *record.Config // of wss://, otherwise nil
}

func (c Config) withDefaults() (Config, error) {
	set(&c.ConnectTimeout, 30*time.Second)
	set(&c.Burst, 1)
	set(&c.Size, 32)
	set(&c.Patience, time.Minute)
	if c.Tables == netpoll.Auto {
		if c.Tables = netpoll.Private; netpoll.PrivateTables() != nil {
			c.Tables = netpoll.Shared // containers' default profiles filter unshare
		}
	}
	switch {
	case len(c.URLs) == 0:
		return c, errors.New("loadgen: a URL is needed")
	case c.Conns < 1:
		return c, errors.New("loadgen: at least one connection is needed")
	case c.Size < sizeMin || c.Size > sizeMax:
		return c, fmt.Errorf("loadgen: a message has %d to %d bytes, not %d", sizeMin, sizeMax, c.Size)
	case c.Rate < 0 || c.Workers < 0 || c.Broadcasts < 0 || c.Burst < 0 || c.Active < 0 || c.Deaf < 0 || c.Flood < 0 || c.Pace < 0 || c.Segment < 0 || c.FloodRate < 0 ||
		min(c.ConnectTimeout, c.Hold, c.Patience, c.Echo, c.Probe) < 0:
		return c, errors.New("loadgen: numbers and times must not be negative")
	case c.Floor && c.Size > 125:
		return c, errors.New("loadgen: the floor program takes messages of at most 125 bytes")
	case c.Active+c.Flood > c.Conns:
		return c, fmt.Errorf("loadgen: %d active and %d flooding connections are more than the %d connections", c.Active, c.Flood, c.Conns)
	case c.Flood > floodersMost:
		return c, fmt.Errorf("loadgen: at most %d connections can flood", floodersMost)
	case c.Deaf >= c.Conns && c.Deaf > 0:
		return c, fmt.Errorf("loadgen: at least one of the %d connections must not be deaf", c.Conns)
	case c.Reconnect && c.Deaf > 0:
		return c, errors.New("loadgen: deaf connections cannot be opened again")
	case c.Floor && slices.ContainsFunc(c.URLs, func(raw string) bool { return strings.HasPrefix(raw, "wss:") }):
		return c, errors.New("loadgen: the floor program does not speak TLS")
	case c.Floor && c.Compress:
		return c, errors.New("loadgen: the floor program does not compress")
	case c.Floor && c.Deaf+c.Flood > 0:
		return c, errors.New("loadgen: the floor program cannot take deaf or flooding connections")
	}
	return c, nil
}

// resolve looks up a URL's address. If a name has several addresses, it takes
// the first IPv4 address, or the first of all if there is none.
func (c *Config) resolve(ctx context.Context, raw string) (target, error) {
	u, err := url.Parse(raw)
	if err != nil {
		return target{}, fmt.Errorf("loadgen: %w", err)
	}
	t, port := target{host: u.Host, path: u.RequestURI()}, "80"
	switch u.Scheme {
	case "ws":
	case "wss":
		t.tls, port = clientTLS(c.TLS, u.Hostname(), c.Resume), "443"
	default:
		return target{}, fmt.Errorf("loadgen: %s: the URL must begin with ws:// or wss://", raw)
	}
	port = cmp.Or(u.Port(), port)
	number, err := net.DefaultResolver.LookupPort(ctx, "tcp", port)
	if err != nil {
		return target{}, fmt.Errorf("loadgen: %s: %w", raw, err)
	}
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", u.Hostname())
	if err != nil {
		return target{}, fmt.Errorf("loadgen: %s: %w", raw, err)
	}
	ip := ips[max(0, slices.IndexFunc(ips, netip.Addr.Is4))]
	t.addr = netip.AddrPortFrom(ip.Unmap(), uint16(number))
	return t, nil
}

func set[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}
