package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-134acfd0/lull/netpoll"
)

// Server accepts connections and serves them. Listen makes one, Run runs it;
// its other methods may be called from any goroutine between the two and
// after.
type Server struct {
	// constant after Listen
	handler   Handler
	options   Options
	slots     int // each reactor's
	listeners []netpoll.Listener
	reactors  []*reactor
	acceptor  *netpoll.Acceptor
	pool      *pool // nil if handlers run on the reactors
	threads   *netpoll.Threads
	clock     netpoll.Clock
	journal   *journal
	bound     owed // of one connection
	brake     brake
	endings   endings

	// atomic
	open      atomic.Int64 // connections that are open
	published atomic.Int64 // bytes of broadcasts on their way
	refusals  atomic.Uint64
	refused   [600]atomic.Uint64 // by HTTP status
	rests     atomic.Uint64
	stalls    atomic.Uint64
}

// Listen opens the listening sockets and checks what the server needs. address
// is "host:port", or several of them separated by commas; port 0 is a free
// port, an empty host all addresses.
func Listen(address string, h Handler, o Options) (*Server, error) {
	addresses := strings.Split(address, ",")
	o, err := o.withDefaults(len(addresses))
	if err != nil {
		return nil, err
	}
	s := &Server{handler: h, options: o, clock: netpoll.NewClock(), journal: newJournal(o.Log)}
	s.bound = owing(o.MaxOutboxMessages, o.MaxOutbox)
	s.brake.free.L = &s.brake.mu
	s.pool = newPool(s)
	if err := s.listen(addresses); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

func (s *Server) listen(addresses []string) error {
	keep := make([]int, 0, len(addresses))
	for _, a := range addresses {
		l, err := netpoll.Listen(strings.TrimSpace(a), s.options.Backlog)
		if err != nil {
			return fmt.Errorf("server: %w", err)
		}
		s.listeners = append(s.listeners, l)
		keep = append(keep, l.FD)
	}
	table, err := tableRoom(len(addresses))
	if err != nil {
		return err
	}
	s.slots = s.options.slots(table)
	accepting := make([]netpoll.Accepting, s.options.Reactors)
	for i := range accepting {
		r, err := newReactor(s, i)
		if err != nil {
			return fmt.Errorf("server: %w", err)
		}
		s.reactors = append(s.reactors, r)
		accepting[i] = r
	}
	if s.acceptor, err = netpoll.NewAcceptor(s.listeners, accepting, s.resting); err != nil {
		return fmt.Errorf("server: %w", err)
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

// Run serves until ctx ends. Then it stops accepting, sends every connection a
// Close frame with 1001, waits up to Options.Grace for them to leave, and
// returns nil. It can be called once.
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
			ended <- r.run()
		})
		if err != nil {
			running.Done()
			return fmt.Errorf("server: start reactor %d: %w", i, err)
		}
	}

	if s.options.StallAfter > 0 {
		watched, unwatch := context.WithCancel(context.WithoutCancel(ctx))
		defer unwatch()
		go s.watch(watched)
	}
	if err := s.acceptor.Start(); err != nil {
		return fmt.Errorf("server: %w", err)
	}

	select {
	case err := <-ended: // none ends by itself
		return fmt.Errorf("server: a reactor has failed: %w", err)
	case <-ctx.Done():
	}
	_ = s.acceptor.Close()
	for _, l := range s.listeners {
		_ = unix.Shutdown(l.FD, unix.SHUT_RD) // in all descriptor tables at once
	}
	s.tell(opDrain)
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

// endPool waits for the calls of handlers that are left, the last of which are
// those of Close.
func (s *Server) endPool() {
	if s.pool != nil && !s.pool.end(max(s.options.Grace, time.Second)) {
		s.journal.add(slog.LevelError, "the server ends before its handlers", "running", s.pool.busy.Load(),
			"never_called", s.pool.calls.Load()-s.pool.busy.Load())
	}
}

// tell posts an op to all reactors. Those that have ended do not mind.
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
}

// resting reports that a reactor cannot accept for now.
func (s *Server) resting(reactor int, err error) {
	s.rests.Add(1)
	advice := "free memory, or accept fewer connections"
	switch {
	case errors.Is(err, unix.EMFILE):
		advice = "raise RLIMIT_NOFILE, or use private tables and more reactors"
	case errors.Is(err, unix.ENFILE):
		advice = "raise fs.file-max"
	case errors.Is(err, unix.ENOSPC):
		advice = "raise fs.epoll.max_user_watches"
	}
	s.journal.add(slog.LevelError, "cannot accept, trying again", "reactor", reactor, "error", err, "do", advice)
}

// panicked counts and logs a handler's panic.
func (s *Server) panicked(p any) {
	s.journal.add(slog.LevelError, "handler panicked", "panic", p, "stack", string(debug.Stack()))
}
