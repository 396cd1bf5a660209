package server

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"net/netip"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/seed-134acfd0/lull/internal/record"
	"github.com/seed-134acfd0/lull/netpoll"
	"github.com/seed-134acfd0/lull/server/internal/fanout"
	"github.com/seed-134acfd0/lull/server/internal/gate"
	"github.com/seed-134acfd0/lull/server/internal/inbox"
	"github.com/seed-134acfd0/lull/server/internal/outbox"
	"github.com/seed-134acfd0/lull/server/internal/topics"
)

// Server accepts connections and serves them. Listen makes one, Run runs it; its
// other methods may be called from any goroutine between the two and after.
type Server struct {
	// constant after Listen
	handler   Handler
	options   Options
	slots     int // each reactor's
	listeners []netpoll.Listener
	reactors  []*reactor
	acceptor  *netpoll.Acceptor
	threads   *netpoll.Threads
	clock     netpoll.Clock
	bound     outbox.Size // of one connection's messages
	high, low outbox.Size // its watermarks

	// for any goroutine
	gate      *gate.Gate
	admission admission
	expiring  atomic.Bool          // connections may have an expiry
	pool      *inbox.Pool[*caller] // nil if handlers run on the reactors
	throttle  *fanout.Throttle
	directory *topics.Directory
	everybody []topics.Branch // constant: what a broadcast is for
	orders    orders
	journal   *journal
	endings   endings
	leaving   leaving
	values    values

	tls                  *record.Config // nil without Options.TLS
	origins              *gate.Origins
	httpd                *httpd // nil without Options.HTTP
	compress             compression
	strays               atomic.Uint64
	refusals             atomic.Uint64
	published            atomic.Uint64
	subscriptionsRefused atomic.Uint64
	rejected             atomic.Uint64 // handshakes, by ServeHTTP
	pauses               atomic.Uint64
	stalls               atomic.Uint64
	stuck                atomic.Uint64
}

// Listen opens the listening sockets and checks what the server needs. An address
// is "host:port"; port 0 is a free port, an empty host all addresses. The package
// compiles on all systems; where they are not Linux, Listen returns an error.
func Listen(addresses []string, h Handler, o Options) (*Server, error) {
	if err := netpoll.Available(); err != nil {
		return nil, fmt.Errorf("server: %w", err)
	}
	o, err := o.withDefaults(len(addresses))
	if err != nil {
		return nil, err
	}
	if h.Deliver != nil && o.Mode != Workers {
		return nil, errors.New("server: Handler.Deliver needs mode Workers")
	}
	s, err := newServer(h, o)
	if err != nil {
		return nil, err
	}
	if err := s.listen(addresses); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

func newServer(h Handler, o Options) (*Server, error) {
	s := &Server{handler: h, options: o, clock: netpoll.NewClock(), journal: newJournal(o.Log)}
	s.bound = outbox.SizeOf(o.MaxOutboxMessages, o.MaxOutbox)
	s.high, s.low = s.bound.Part(highPart), s.bound.Part(lowPart)
	s.orders.seed = maphash.MakeSeed()
	s.leaving.asked = make(chan struct{})
	var err error
	if s.origins, err = gate.ParseOrigins(o.Origins); err != nil {
		return nil, fmt.Errorf("server: Options.Origins: %w", err)
	}
	if o.TLS != nil {
		s.tls = record.ServerConfig(o.TLS)
	}
	s.gate = gate.New(o.MaxConns, o.MaxInboxTotal/4)
	if s.admission, err = newAdmission(s.gate, &o); err != nil {
		return nil, err
	}
	s.expiring.Store(o.MaxAge > 0)
	s.throttle = fanout.NewThrottle(int64(o.MaxBroadcast), int64(o.MaxOutbox)/4, func() { s.tell(opRoom) })
	if s.directory, err = topics.NewDirectory(o.MaxTopics, o.Reactors, o.TopicChanged != nil); err != nil {
		return nil, fmt.Errorf("server: %w", err)
	}
	for i := range o.Reactors {
		s.everybody = append(s.everybody, topics.NewBranch(i, 0))
	}
	if o.Mode != Inline {
		limits := inbox.Limits{Messages: o.MaxInboxMessages, Bytes: o.MaxInbox, Total: int64(o.MaxInboxTotal)}
		s.pool = inbox.NewPool(o.Workers, limits, s.hooks())
	}
	return s, nil
}

func (s *Server) listen(addresses []string) (err error) {
	if len(addresses) == 0 {
		return errors.New("server: an address to listen on is needed")
	}
	keep := make([]int, 0, len(addresses))
	for _, a := range addresses {
		l, err := netpoll.Listen(a, s.options.Backlog)
		if err != nil {
			return fmt.Errorf("server: %w", err)
		}
		s.listeners = append(s.listeners, l)
		keep = append(keep, l.FD)
	}
	if s.slots, err = s.options.slots(len(addresses)); err != nil {
		return err
	}
	accepting := make([]netpoll.Accepting, s.options.Reactors)
	for i := range accepting {
		r, err := newReactor(s, i)
		if err != nil {
			return fmt.Errorf("server: %w", err)
		}
		s.reactors = append(s.reactors, r)
		accepting[i] = r
	}
	if s.acceptor, err = netpoll.NewAcceptor(s.listeners, accepting, s.pausing); err != nil {
		return fmt.Errorf("server: %w", err)
	}
	if s.options.HTTP != nil {
		s.httpd = newHTTPD(s)
	}
	if s.threads, err = netpoll.NewThreads(s.options.Tables, s.options.Reactors, keep...); err != nil {
		return fmt.Errorf("server: %w", err)
	}
	if !s.threads.Private() {
		netpoll.Reserve(s.options.MaxConns)
	}
	return nil
}

// Addrs returns the addresses that the server listens on, with real ports.
func (s *Server) Addrs() []netip.AddrPort {
	addrs := make([]netip.AddrPort, len(s.listeners))
	for i, l := range s.listeners {
		addrs[i] = l.Addr
	}
	return addrs
}

// Options returns the options with all defaults filled in.
func (s *Server) Options() Options { return s.options }

// Run serves until ctx ends or a Drain is over. Then it stops accepting, sends every
// connection that is left a Close frame, with 1001 if there was no Drain, waits up to
// Options.Grace for them to leave, and returns nil. It can be called once.
func (s *Server) Run(ctx context.Context) error {
	defer s.close()
	go s.journal.run()
	defer s.journal.close()

	defer s.endPool()
	ended := make(chan error, len(s.reactors))
	var running sync.WaitGroup
	defer running.Wait()
	defer s.tell(opEnd)
	for i, r := range s.reactors {
		running.Add(1)
		err := s.threads.Start(func() {
			defer running.Done()
			err := errGoexit
			defer func() { ended <- err }()
			err = r.run()
		}, r.door.Inside())
		if err != nil {
			running.Done()
			return fmt.Errorf("server: start reactor %d: %w", i, err)
		}
	}

	if s.httpd != nil {
		go s.httpd.run()
		defer s.httpd.end(s.options.Grace)
	}
	watched, unwatch := context.WithCancel(context.WithoutCancel(ctx))
	defer unwatch()
	go s.watch(watched)
	go s.admission.watch(watched, s.journal)
	if s.options.TopicChanged != nil {
		go s.directory.Tell(watched.Done(), s.options.TopicChanged)
	}
	if err := s.acceptor.Start(); err != nil {
		return fmt.Errorf("server: %w", err)
	}

	drained, stop := context.WithCancel(ctx)
	defer stop()
	go func() {
		defer stop()
		s.drain(drained)
	}()
	select {
	case err := <-ended: // none ends by itself
		return fmt.Errorf("server: a reactor has failed: %w", err)
	case <-drained.Done():
	}
	_ = s.acceptor.Close()
	for _, l := range s.listeners {
		netpoll.StopListening(l.FD)
	}
	s.tell(opHurry)
	grace := time.After(s.options.Grace)
	for range s.reactors {
		select {
		case err := <-ended:
			if err != nil {
				return fmt.Errorf("server: a reactor has failed: %w", err)
			}
		case <-grace:
			return nil // opEnd cuts the rest off
		}
	}
	return nil
}

// errGoexit is why a reactor ends that a handler has ended.
var errGoexit = errors.New("a handler called runtime.Goexit on the reactor")

// endPool waits for the calls of handlers that are left, the last of which are
// those of Close.
func (s *Server) endPool() {
	if s.pool != nil && !s.pool.End(max(s.options.Grace, time.Second)) {
		left := s.pool.Stats()
		s.journal.add(slog.LevelError, "the server ends before its handlers", "running", left.Busy, "waiting", left.Calls-int64(left.Busy))
	}
}

// tell posts an op to all reactors. Those that have ended do not need it.
func (s *Server) tell(kind opKind) {
	for _, r := range s.reactors {
		_ = r.mail.Force(op{kind: kind}, nil)
	}
}

// close ends accepting for good.
func (s *Server) close() {
	if s.acceptor != nil {
		_ = s.acceptor.Close()
	}
	for _, l := range s.listeners {
		netpoll.Close(l.FD)
	}
	for _, r := range s.reactors {
		r.door.Close()
	}
}

// pausing reports that a reactor cannot accept for now.
func (s *Server) pausing(reactor int, err error) {
	s.pauses.Add(1)
	advice := "free memory, or accept fewer connections"
	switch {
	case errors.Is(err, syscall.EMFILE):
		advice = "raise RLIMIT_NOFILE, or use private tables and more reactors"
	case errors.Is(err, syscall.ENFILE):
		advice = "raise fs.file-max"
	case errors.Is(err, syscall.ENOSPC):
		advice = "raise fs.epoll.max_user_watches"
	}
	s.journal.add(slog.LevelError, "cannot accept, trying again", "reactor", reactor, "error", err, "do", advice)
}

// panicked logs a handler's panic.
func (s *Server) panicked(p any) {
	s.journal.add(slog.LevelError, "handler panicked", "panic", p, "stack", string(debug.Stack()))
}
