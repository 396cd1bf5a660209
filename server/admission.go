package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/server/internal/gate"
	"github.com/seed-134acfd0/lull/server/internal/pressure"
	"github.com/seed-134acfd0/lull/server/internal/proxy"
)

// admission is who may come in, beside MaxConns: the limits of addresses, and what
// memory allows. Any goroutine may use it.
type admission struct {
	gate    *gate.Gate
	trust   proxy.Trust      // whose word about the client counts
	heads   bool             // they begin with a PROXY head
	header  string           // of requests, that tells the client; empty for none
	field   proxy.Field      // header's form
	limiter *gate.Limiter    // nil without limits
	memory  *pressure.Memory // nil without Options.MemoryGuard
}

func (o *Options) addressLimits() gate.Limits {
	return gate.Limits{
		Address:     gate.Bound{Conns: o.MaxConnsPerAddress, Handshakes: gate.Pace{PerSecond: o.HandshakeRatePerAddress}},
		Prefix:      gate.Bound{Conns: o.MaxConnsPerPrefix, Handshakes: gate.Pace{PerSecond: o.HandshakeRatePerPrefix}},
		Total:       gate.Pace{PerSecond: o.HandshakeRate},
		PrefixBits4: o.PrefixBits4, PrefixBits6: o.PrefixBits6,
	}
}

func newAdmission(g *gate.Gate, o *Options) (a admission, err error) {
	a.gate = g
	if l := o.addressLimits(); l != (gate.Limits{PrefixBits4: l.PrefixBits4, PrefixBits6: l.PrefixBits6}) {
		if a.limiter, err = gate.NewLimiter(l); err != nil {
			return a, fmt.Errorf("server: Options: %w", err)
		}
	}
	if a.trust, err = proxy.ParseTrust(o.Trust); err != nil {
		return a, fmt.Errorf("server: Options.Trust: %w", err)
	}
	a.heads = o.ProxyProtocol
	switch a.header = http.CanonicalHeaderKey(o.ClientHeader); a.header {
	case "", "X-Forwarded-For":
		a.field = proxy.XForwardedFor
	case "Forwarded":
		a.field = proxy.Forwarded
	default:
		return a, fmt.Errorf("server: Options.ClientHeader is X-Forwarded-For or Forwarded, not %q", o.ClientHeader)
	}
	if (a.heads || a.header != "") && len(a.trust) == 0 {
		return a, errors.New("server: Options: ProxyProtocol and ClientHeader need Trust, the proxies' addresses")
	}
	if o.MemoryGuard {
		if a.memory, err = pressure.NewMemory("/", pressure.Limits{}); err != nil {
			return a, fmt.Errorf("server: Options.MemoryGuard: %w", err)
		}
	}
	return a, nil
}

// counts reports whether it matters to enter which address it is.
func (a *admission) counts() bool { return a.limiter != nil }

// enter asks whether an address may begin a handshake. It returns nil and a ticket
// that leave needs, or why not.
func (a *admission) enter(from netip.Addr, now time.Duration) (gate.Ticket, *Reject) {
	if a.short() {
		return gate.Ticket{}, a.refuse(gate.Verdict{Reason: gate.MemoryPressure, Wait: 10 * time.Second})
	}
	ticket, verdict := a.limiter.Enter(from, now)
	if !verdict.OK() {
		return gate.Ticket{}, a.refuse(verdict)
	}
	return ticket, nil
}

// short reports whether memory is too short to let anybody in.
func (a *admission) short() bool { return a.memory != nil && a.memory.Short() }

func (a *admission) leave(t gate.Ticket) { a.limiter.Leave(t) }

// refuse counts a refusal and is its answer.
func (a *admission) refuse(v gate.Verdict) *Reject {
	a.gate.Refuse(v.Reason)
	return &Reject{Status: v.Reason.Status(), Reason: v.Reason.Text(), Header: retryAfter(v.Wait)}
}

// retryAfter is the header that tells somebody to come back after about so long, nil
// for never.
func retryAfter(wait time.Duration) http.Header {
	if seconds := (gate.Verdict{Wait: wait}).RetryAfter(); seconds > 0 {
		return http.Header{"Retry-After": {strconv.Itoa(seconds)}}
	}
	return nil
}

// proxied reports whether a peer is a proxy that tells who its client is.
func (a *admission) proxied(peer netip.Addr) bool {
	return (a.heads || a.header != "") && a.trust.Has(peer)
}

// named reports whether a peer is a proxy that names the client in each request's
// header.
func (a *admission) named(peer netip.Addr) bool { return a.header != "" && a.trust.Has(peer) }

// client is the address that a request comes from, by its header if its peer is a
// proxy that is trusted; ok is false if there is no such header to look at.
func (a *admission) client(peer netip.Addr, head *frame.Request) (client netip.Addr, ok bool) {
	if !a.named(peer) {
		return peer, false
	}
	var lines [][]byte
	for name, value := range head.Headers() {
		if strings.EqualFold(name, a.header) {
			lines = append(lines, []byte(value))
		}
	}
	return a.trust.Client(peer, a.field, lines...), true
}

// enterRequest is enter for a request of net/http that is no handshake, where a proxy
// has named its client. Others are counted as the connections that they come on.
func (a *admission) enterRequest(r *http.Request, now time.Duration) (gate.Ticket, *Reject) {
	peer, _ := netip.ParseAddrPort(r.RemoteAddr)
	if !a.asked() || !a.named(peer.Addr()) {
		return gate.Ticket{}, nil
	}
	var lines [][]byte
	for _, value := range r.Header.Values(a.header) {
		lines = append(lines, []byte(value))
	}
	return a.enter(a.trust.Client(peer.Addr(), a.field, lines...), now)
}

// asked reports whether enter has anything to ask.
func (a *admission) asked() bool { return a.limiter != nil || a.memory != nil }

// watch looks at memory once a second, until ctx ends.
func (a *admission) watch(ctx context.Context, j *journal) {
	if a.memory == nil {
		return
	}
	second := time.NewTicker(time.Second)
	defer second.Stop()
	for {
		was := a.memory.Short()
		now, err := a.memory.Poll()
		switch short := a.memory.Short(); {
		case err != nil:
			j.add(slog.LevelWarn, "memory cannot be watched, so nobody is refused for lack of it", "error", err)
			return
		case short && !was:
			j.add(slog.LevelError, "memory is short: new connections are refused", "memory", now.String(), "do", "add memory, or lower --max-conns")
		case was && !short:
			j.add(slog.LevelInfo, "memory suffices again", "memory", now.String())
		}
		select {
		case <-ctx.Done():
			return
		case <-second.C:
		}
	}
}

// ErrExpired is the cause of an end by Request.Expires or Options.MaxAge.
var ErrExpired = errors.New("server: expired")
