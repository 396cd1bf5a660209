package hooks

import (
	"cmp"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/server"
)

// Options tune Hooks. The zero value of each but Backends is its default.
type Options struct {
	// Backends are told of the connections, each of those whose path begins with its
	// Path: the one with the longest. At most 256.
	Backends []Backend
	// Concurrency is how many calls a backend has at once; 16 by default. It should be the
	// number of its workers.
	Concurrency int
	// Secret signs the calls; without one they are not signed.
	Secret []byte
	// Headers are the names of the request headers that a backend is told as a connection
	// opens; by default Cookie, Authorization, Origin and User-Agent.
	Headers []string

	// Timeout is how long a backend may take for a message or a disconnect, and for its
	// answer to arrive; 10 s by default. ConnectTimeout is the same for a handshake, with
	// its retries; 5 s by default. It should be less than server.Options.HandshakeTimeout.
	Timeout, ConnectTimeout time.Duration
	// Retries is how often a message is sent again of which nobody knows whether the
	// backend has seen it: it has not answered in time, or not to the end. By default it
	// is not: each message is handled at most once. With retries it may be handled more
	// than once, and Lull-Id is the same.
	Retries int
	// Batch is how many messages a call has at most, of as many connections; 1 by default:
	// then the body is the message. With more, messages that wait for their turn go
	// together, as JSON (docs/hooks.md).
	Batch int
	// MaxAnswer is how many bytes an answer may have; 64 KiB by default. What is larger
	// is not read to its end and counts as a failure.
	MaxAnswer int
	// Failures is how many calls in a row have to fail until a backend counts as down; 5 by
	// default. While it is down, handshakes are answered 503 and messages wait.
	Failures int

	// Node is what begins the IDs of this node's connections, before "." and a random part;
	// nothing by default. Letters, digits, "_", "-" and "." are allowed, 64 at most.
	Node string
	// Publisher publishes to the connections of other nodes too, as a cluster.Node does; by
	// default messages reach the connections of the server.
	Publisher Publisher

	// Roots are the authorities of backends with TLS; the system's by default.
	Roots *x509.CertPool
	// Log receives what an operator should know; by default slog.Default().
	Log *slog.Logger
}

// Publisher publishes messages to topics, as the methods of server.Server and server.Conn
// of these names do, but on all nodes of a cluster.
type Publisher interface {
	Publish(topic string, op frame.Op, data []byte) error
	PublishFrom(c server.Conn, topic string, op frame.Op, data []byte) error
}

// Backend is an HTTP application.
type Backend struct {
	// Path is what the paths of its connections begin with, as "/chat": it is for /chat
	// and /chat/room, and not for /chats. An empty one is for all paths.
	Path string
	// URL is http://host[:port]/path, https:// for TLS, h2c:// and h2:// for HTTP/2 without
	// and with TLS, or unix:/path/of/socket, perhaps followed by :/path.
	URL string
}

// Bounds of the options.
const (
	backendsMost    = 256
	concurrencyMost = 10_000
	nodeMost        = 64
	batchMost       = 1000
)

func (o Options) withDefaults() (Options, error) {
	o.Concurrency = cmp.Or(o.Concurrency, 16)
	o.Batch = cmp.Or(o.Batch, 1)
	o.Timeout = cmp.Or(o.Timeout, 10*time.Second)
	o.ConnectTimeout = cmp.Or(o.ConnectTimeout, 5*time.Second)
	o.MaxAnswer = cmp.Or(o.MaxAnswer, 64<<10)
	o.Failures = cmp.Or(o.Failures, 5)
	if o.Headers == nil {
		o.Headers = []string{"Cookie", "Authorization", "Origin", "User-Agent"}
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	switch {
	case len(o.Backends) == 0:
		return o, errors.New("hooks: Options.Backends: there is none")
	case len(o.Backends) > backendsMost:
		return o, fmt.Errorf("hooks: Options.Backends: there are more than %d", backendsMost)
	case o.Concurrency < 0 || o.Concurrency > concurrencyMost:
		return o, fmt.Errorf("hooks: Options.Concurrency is from 1 to %d", concurrencyMost)
	case o.Batch < 0 || o.Batch > batchMost:
		return o, fmt.Errorf("hooks: Options.Batch is from 1 to %d", batchMost)
	case o.Timeout < 0 || o.ConnectTimeout < 0 || o.Retries < 0 || o.MaxAnswer < 0 || o.Failures < 0:
		return o, errors.New("hooks: Options: times and numbers must not be negative")
	case len(o.Node) > nodeMost || strings.ContainsFunc(o.Node, notInNode):
		return o, fmt.Errorf("hooks: Options.Node has letters, digits, _, - and ., at most %d", nodeMost)
	}
	o.Headers = slices.Clone(o.Headers)
	for i, name := range o.Headers {
		name = http.CanonicalHeaderKey(name)
		if name == "" || strings.ContainsFunc(name, notInHeader) || slices.Contains(ownHeaders, name) || strings.HasPrefix(name, "Lull-") || strings.HasPrefix(name, "Sec-Websocket-") {
			return o, fmt.Errorf("hooks: Options.Headers: %q cannot be passed on", name)
		}
		o.Headers[i] = name
	}
	return o, nil
}

// ownHeaders belong to the client's connection, or to the call.
var ownHeaders = []string{
	"Connection", "Upgrade", "Keep-Alive", "Te", "Trailer", "Transfer-Encoding", "Proxy-Connection",
	"Content-Length", "Content-Type", "Content-Encoding", "Accept-Encoding", "Expect", "Host",
}

// notInHeader reports whether a sign cannot be in a header's name (RFC 9110 section
// 5.6.2).
func notInHeader(r rune) bool {
	return r <= ' ' || r >= 0x7f || strings.ContainsRune(`"(),/:;<=>?@[\]{}`, r)
}

func notInNode(r rune) bool {
	return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_' || r == '-' || r == '.')
}
