package cluster

import (
	"context"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/seed-134acfd0/lull/internal/natsd"
)

// link is one connection to the broker. When it ends it stays ended, and the node makes
// another one, so that what the node follows is followed again at the node's pace.
type link struct {
	nats    *nats.Conn
	streams jetstream.JetStream
	socket  *socket
	ended   chan struct{} // closed when nothing more arrives
}

// dial connects to the broker. inbox is the beginning of subjects on which answers come.
func (o *Options) dial(in *intake, inbox string, failed func(error)) (*link, error) {
	l := &link{ended: make(chan struct{})}
	options := []nats.Option{
		nats.Name("lull " + o.Cluster + " " + o.Name),
		nats.NoReconnect(), nats.NoEcho(), nats.SkipSubjectValidation(), nats.CustomInboxPrefix(inbox),
		nats.Timeout(dialTimeout), nats.PingInterval(dialTimeout), nats.MaxPingsOutstanding(2),
		nats.ClosedHandler(func(*nats.Conn) { close(l.ended) }),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { failed(err) }),
	}
	wrap := func(c net.Conn, err error) (net.Conn, error) {
		if err != nil {
			return nil, err
		}
		l.socket = &socket{Conn: c, in: in}
		return l.socket, nil
	}
	if o.Broker != nil {
		options = append(options, nats.Token(o.Broker.token),
			nats.InProcessServer(inProcess(func() (net.Conn, error) { return wrap(o.Broker.conn()) })))
	} else {
		options = append(options, nats.SetCustomDialer(dialer(func(network, address string) (net.Conn, error) {
			return wrap(dialTCP(network, address))
		})))
	}
	conn, err := nats.Connect(o.URL, append(options, natsd.Login(o.Token, o.CredsFile, o.TLS)...)...)
	if err != nil {
		return nil, fmt.Errorf("cluster: NATS at %s: %w", o.where(), err)
	}
	l.nats = conn
	if l.streams, err = jetstream.New(conn); err == nil {
		err = o.suits(conn)
	}
	if err != nil {
		l.close()
		return nil, err
	}
	return l, nil
}

// suits refuses a broker that cannot do what is needed.
func (o *Options) suits(conn *nats.Conn) error {
	if v := conn.ConnectedServerVersion(); !atLeast(v, brokerVersion) {
		return fmt.Errorf("cluster: NATS at %s is of version %.40s, and at least %s is needed", o.where(), v, brokerVersion)
	}
	if most, need := conn.MaxPayload(), int64(o.MaxMessage+envelopeMax); most < need {
		return fmt.Errorf("cluster: NATS at %s takes messages of %d bytes, and %d are needed: raise its max_payload, or lower Options.MaxMessage", o.where(), most, need)
	}
	return nil
}

// atLeast compares versions such as 2.10.1-beta.
func atLeast(version, least string) bool {
	var a, b [3]int
	_, errA := fmt.Sscanf(version, "%d.%d.%d", &a[0], &a[1], &a[2])
	_, errB := fmt.Sscanf(least, "%d.%d.%d", &b[0], &b[1], &b[2])
	if errA != nil || errB != nil {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return a[i] > b[i]
		}
	}
	return true
}

// where names the broker, without passwords.
func (o *Options) where() string {
	if o.Broker != nil {
		return "the embedded broker"
	}
	return natsd.Redacted(o.URL)
}

// flush waits until the broker has taken all that was sent.
func (l *link) flush(wait time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), wait)
	defer cancel()
	return l.nats.FlushWithContext(ctx)
}

// cut ends the connection at once. Nothing waits for the broker then.
func (l *link) cut() { _ = l.socket.Close() }

// close ends the connection and waits until nothing more arrives.
func (l *link) close() {
	l.cut()
	l.nats.Close()
	<-l.ended
}

// dialTCP connects with a small send buffer, so that little waits unseen behind a slow way.
func dialTCP(network, address string) (net.Conn, error) {
	c, err := (&net.Dialer{Timeout: dialTimeout}).Dial(network, address)
	if tcp, ok := c.(*net.TCPConn); ok && err == nil {
		err = tcp.SetWriteBuffer(sndbufBytes)
	}
	return c, err
}

type dialer func(network, address string) (net.Conn, error)

func (d dialer) Dial(network, address string) (net.Conn, error) { return d(network, address) }

type inProcess func() (net.Conn, error)

func (p inProcess) InProcessConn() (net.Conn, error) { return p() }

// socket is the connection beneath. It is not read while the node has enough to handle, so
// that TCP makes the broker wait; and it ends if the broker takes nothing for long.
type socket struct {
	net.Conn
	in *intake
}

func (s *socket) Read(b []byte) (int, error) {
	s.in.wait()
	n, err := s.Conn.Read(b)
	s.in.read(n)
	return n, err
}

func (s *socket) Write(b []byte) (int, error) {
	_ = s.SetWriteDeadline(time.Now().Add(writeTimeout)) // it fails only where the connection has ended
	return s.Conn.Write(b)
}

// intake is what was read from the broker and is not handled yet. What was read since it was
// empty last is at most intakeBytes and what one read brings.
type intake struct {
	messages chan *nats.Msg // of intakeMax: they never fill it, because each has at least 35 bytes

	mu    sync.Mutex
	empty sync.Cond
	bytes int  // that were read since messages was empty
	ended bool // nobody handles anything any more
}

func newIntake() *intake {
	in := &intake{messages: make(chan *nats.Msg, intakeMax)}
	in.empty.L = &in.mu
	return in
}

// wait waits while there is enough.
func (in *intake) wait() {
	in.mu.Lock()
	defer in.mu.Unlock()
	for in.bytes > intakeBytes && len(in.messages) > 0 && !in.ended {
		in.empty.Wait()
	}
}

func (in *intake) read(n int) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.bytes += n
}

// taken notes that a message was taken from messages.
func (in *intake) taken() {
	if len(in.messages) > 0 {
		return
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	in.bytes = 0
	in.empty.Broadcast()
}

// close says that nobody handles anything any more.
func (in *intake) close() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.ended = true
	in.empty.Broadcast()
}
