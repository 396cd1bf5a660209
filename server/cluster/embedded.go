package cluster

import (
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"syscall"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/seed-134acfd0/lull/internal/natsd"
)

// Broker is a NATS server within the process, for this node alone: nobody else knows the
// token that its clients need. It listens for them on loopback nevertheless. Brokers of several nodes connect to each other, so that no NATS is needed beside them. It
// is for small set-ups: each broker talks to each.
type Broker struct {
	nats  *server.Server
	token string
	lock  *os.File // of BrokerOptions.Store; nil without
}

// BrokerOptions say how an embedded broker finds the others.
type BrokerOptions struct {
	// Listen is where it accepts the brokers of other nodes, as host:port; port 0 is a free
	// one. Empty is nowhere.
	Listen string
	// Routes are where some of the others do so. They tell of the rest.
	Routes []string
	// Secret is what all brokers of the cluster know. It must be set where Listen is not a
	// loopback address, unless TLS asks for certificates.
	Secret string
	// TLS is for connections between brokers; nil is without.
	TLS *tls.Config
	// MaxMessage is the largest message, as in Options; 64 KiB by default.
	MaxMessage int
	// Store is the directory of the broker's JetStream, for Options.Stream; empty is without. Only a
	// broker that is alone can have one.
	Store string
	// Log is where the broker says whom it cannot reach, and who may not come; nil is
	// slog.Default.
	Log *slog.Logger
}

// brokerName is the name of the NATS cluster that embedded brokers are, and of their user.
const brokerName = "lull"

// Embed starts a broker.
func Embed(o BrokerOptions) (*Broker, error) {
	if o.MaxMessage == 0 {
		o.MaxMessage = messageMax
	}
	token := rand.Text()
	options := &server.Options{
		ServerName: brokerName + "-" + hex(randomID()), Host: "127.0.0.1", Port: server.RANDOM_PORT, Authorization: token,
		MaxPayload: int32(o.MaxMessage + envelopeMax), WriteDeadline: writeTimeout,
		ConnectErrorReports: 1, // brokerLog says when it has heard enough
		JetStream:           o.Store != "", StoreDir: o.Store, DisableJetStreamBanner: true,
	}
	if o.Listen != "" && o.Store != "" {
		return nil, errors.New("cluster: a broker that others may join has no store")
	}
	if o.Listen != "" {
		if err := o.join(options); err != nil {
			return nil, err
		}
	} else if len(o.Routes) > 0 {
		return nil, errors.New("cluster: a broker that knows others must listen, too")
	}
	lock, err := lockStore(o.Store)
	if err != nil {
		return nil, err
	}
	b, err := natsd.Start(options)
	if err != nil {
		_ = lock.Close()
		return nil, fmt.Errorf("cluster: the embedded broker: %w", err)
	}
	b.SetLogger(newBrokerLog(o.Log), false, false)
	return &Broker{b, token, lock}, nil
}

// lockStore makes the directory of a store, and sees to it that no other broker uses it until
// the file is closed. Without a directory there is no file.
func lockStore(dir string) (*os.File, error) {
	if dir == "" {
		return nil, nil
	}
	err := os.MkdirAll(dir, 0o700)
	if err != nil {
		return nil, fmt.Errorf("cluster: the store: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("cluster: the store: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("cluster: the store %s is in use by another server: %w", dir, err)
	}
	return f, nil
}

// join sets how the broker meets others.
func (o *BrokerOptions) join(options *server.Options) error {
	host, _, err := net.SplitHostPort(o.Listen)
	if err != nil {
		return fmt.Errorf("cluster: %w", err)
	}
	if asks := o.TLS != nil && o.TLS.ClientAuth == tls.RequireAndVerifyClientCert; o.Secret == "" && !asks && !natsd.Loopback(host) {
		return fmt.Errorf("cluster: %s: anybody could join, so the brokers need a secret or certificates; or listen on 127.0.0.1", o.Listen)
	}
	port, err := natsd.FreePort(o.Listen)
	if err != nil {
		return fmt.Errorf("cluster: %w", err)
	}
	options.Cluster = server.ClusterOpts{
		Name: brokerName, Host: host, Port: port, TLSConfig: o.TLS, TLSTimeout: natsd.StartTimeout.Seconds(), ConnectRetries: routeRetries,
	}
	if o.Secret != "" {
		options.Cluster.Username, options.Cluster.Password = brokerName, o.Secret
		options.Cluster.AuthTimeout = natsd.StartTimeout.Seconds()
	}
	for _, r := range o.Routes {
		if _, _, err := net.SplitHostPort(r); err != nil {
			return fmt.Errorf("cluster: %w", err)
		}
		u := &url.URL{Scheme: "nats-route", Host: r}
		if o.Secret != "" {
			u.User = url.UserPassword(brokerName, o.Secret)
		}
		options.Routes = append(options.Routes, u)
	}
	return nil
}

// routeRetries is how often a broker tries to reach one that another broker has told of.
// Those of Routes it tries to reach for ever.
const routeRetries = 120

// Addr is where the broker accepts others, as host:port; empty if it accepts none.
func (b *Broker) Addr() string {
	if a := b.nats.ClusterAddr(); a != nil {
		return a.String()
	}
	return ""
}

// Routes is the number of other brokers that it is connected to.
func (b *Broker) Routes() int { return b.nats.NumRemotes() }

// conn connects to the broker within the process.
func (b *Broker) conn() (net.Conn, error) { return b.nats.InProcessConn() }

// Close ends the broker, after its node has left.
func (b *Broker) Close() {
	natsd.Stop(b.nats)
	_ = b.lock.Close() // nil has an error, too
}
