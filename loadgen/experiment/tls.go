package experiment

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"

	"github.com/seed-134acfd0/lull/loadgen"
)

// tlsCosts is the processor time that a server takes over TLS, in µs.
type tlsCosts struct{ full, resumed, echo float64 }

// overTLS compares lull with net/http and gws over crypto/tls. The clients are on
// crypto/tls too, so that they have nothing in common with lull's record layer.
func overTLS() scenario {
	return scenario{
		name: "tls", named: true, mode: "echo", peer: true, tls: true,
		load: loadgen.Config{Conns: 3_000, Active: 500, Echo: 5 * time.Second, Size: 32},
		figures: []figure{
			{"server CPU per full handshake, and of net/http and crypto/tls", "µs", ratioAtMost(1, 0.8), func(o outcome) float64 { return o.tls.full }},
			{"server CPU per resumed handshake, and of net/http and crypto/tls", "µs", ratioAtMost(1, 0.8), func(o outcome) float64 { return o.tls.resumed }},
			{"server CPU per message echoed over TLS, and by gws over crypto/tls", "µs", ratioAtMost(0.8, 0.8), func(o outcome) float64 { return o.tls.echo }},
		},
	}
}

// tlsAtATime is how many handshakes the clients begin at a time.
const tlsAtATime = 32

// measureTLS makes connections with a full handshake, then as many with a ticket,
// and lets some of the first echo.
func (s scenario) measureTLS(ctx context.Context, server *process) (costs tlsCosts, err error) {
	full, err := s.connectTLS(ctx, server, nil, &costs.full)
	defer closeAll(full)
	if err != nil {
		return costs, err
	}
	tickets := tls.NewLRUClientSessionCache(1)
	first, err := s.dialTLS(ctx, server, tickets) // brings the first ticket
	if err != nil {
		return costs, err
	}
	defer first.Close()
	resumed, err := s.connectTLS(ctx, server, tickets, &costs.resumed)
	defer closeAll(resumed)
	if err != nil {
		return costs, err
	}
	for _, c := range resumed {
		if !c.ConnectionState().DidResume {
			return costs, errors.New("a handshake was not resumed")
		}
	}
	return costs, s.echoTLS(server, full[:s.load.Active], &costs.echo)
}

func closeAll(conns []*tls.Conn) {
	for _, c := range conns {
		if c != nil {
			_ = c.NetConn().Close()
		}
	}
}

// dialTLS opens one connection. Without tickets its handshake is a full one.
func (s scenario) dialTLS(ctx context.Context, server *process, tickets tls.ClientSessionCache) (*tls.Conn, error) {
	config := s.trust.Clone()
	config.ClientSessionCache = tickets
	c, _, _, err := ws.Dialer{TLSConfig: config, Timeout: startTimeout}.Dial(ctx, "wss://"+server.addr+"/")
	if err != nil {
		return nil, fmt.Errorf("a client over TLS: %w", err)
	}
	return c.(*tls.Conn), nil
}

// connectTLS opens the connections, and stores what one costs the server.
func (s scenario) connectTLS(ctx context.Context, server *process, tickets tls.ClientSessionCache, cost *float64) ([]*tls.Conn, error) {
	conns, failed := make([]*tls.Conn, s.load.Conns), make([]error, tlsAtATime)
	var next atomic.Int64
	err := s.cost(server, "handshakes", cost, func() (int, error) {
		together(tlsAtATime, func(worker int) {
			for i := next.Add(1) - 1; int(i) < len(conns) && failed[worker] == nil; i = next.Add(1) - 1 {
				conns[i], failed[worker] = s.dialTLS(ctx, server, tickets)
			}
		})
		return len(conns), errors.Join(failed...)
	})
	return conns, err
}

// echoTLS lets connections send and wait for the echo, again and again, and stores
// what a message costs the server.
func (s scenario) echoTLS(server *process, conns []*tls.Conn, cost *float64) error {
	until := time.Now().Add(s.load.Echo)
	messages, failed := make([]int, len(conns)), make([]error, len(conns))
	return s.cost(server, "echo", cost, func() (n int, err error) {
		together(len(conns), func(i int) { messages[i], failed[i] = echoUntil(conns[i], s.load.Size, until) })
		for _, m := range messages {
			n += m
		}
		return n, errors.Join(failed...)
	})
}

// echoUntil counts the messages that come back.
func echoUntil(c net.Conn, size int, until time.Time) (n int, err error) {
	_ = c.SetDeadline(until.Add(startTimeout))
	payload := make([]byte, size)
	for ; time.Now().Before(until); n++ {
		if err := wsutil.WriteClientBinary(c, payload); err != nil {
			return n, err
		}
		if got, err := wsutil.ReadServerBinary(c); err != nil || len(got) != size {
			return n, fmt.Errorf("an echo of %d bytes: %w", len(got), err)
		}
	}
	return n, nil
}

// together calls f on n goroutines and waits for them.
func together(n int, f func(i int)) {
	var running sync.WaitGroup
	for i := range n {
		running.Go(func() { f(i) })
	}
	running.Wait()
}

// cost stores the server's processor time for each of the things that do has done,
// in µs. It says what share of the processors the clients took, because where they
// take all that the server leaves, the server is measured at their pace.
func (s scenario) cost(server *process, what string, cost *float64, do func() (n int, err error)) error {
	begun, ours, theirs := time.Now(), cpu(os.Getpid()), cpu(server.cmd.Process.Pid)
	n, err := do()
	if err != nil {
		return err
	}
	took := time.Since(begun)
	ours, theirs = cpu(os.Getpid())-ours, cpu(server.cmd.Process.Pid)-theirs
	*cost = theirs.Seconds() / float64(n) * micro
	all := took.Seconds() * float64(runtime.NumCPU())
	s.say("  %s: %d in %.1f s, %.1f µs each; the server took %.0f %% of the processors, the clients %.0f %%",
		what, n, took.Seconds(), *cost, 100*theirs.Seconds()/all, 100*ours.Seconds()/all)
	return nil
}
