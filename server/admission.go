package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"strconv"
	"time"

	"github.com/seed-134acfd0/lull/server/internal/gate"
	"github.com/seed-134acfd0/lull/server/internal/pressure"
)

// admission is who may come in, beside MaxConns: the limits of addresses, and what
// memory allows. Any goroutine may use it.
type admission struct {
	gate    *gate.Gate
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
	if o.MemoryGuard {
		if a.memory, err = pressure.NewMemory("/", pressure.Limits{}); err != nil {
			return a, fmt.Errorf("server: Options.MemoryGuard: %w", err)
		}
	}
	return a, nil
}

// enter asks whether an address may begin a handshake. It returns nil and a ticket
// that leave needs, or why not.
func (a *admission) enter(from netip.Addr, now time.Duration) (gate.Ticket, *Reject) {
	if a.memory != nil && a.memory.Short() {
		return gate.Ticket{}, a.refuse(gate.Verdict{Reason: gate.MemoryPressure, Wait: 10 * time.Second})
	}
	ticket, verdict := a.limiter.Enter(from, now)
	if !verdict.OK() {
		return gate.Ticket{}, a.refuse(verdict)
	}
	return ticket, nil
}

func (a *admission) leave(t gate.Ticket) { a.limiter.Leave(t) }

// refuse counts a refusal and is its answer.
func (a *admission) refuse(v gate.Verdict) *Reject {
	a.gate.Refuse(v.Reason)
	r := &Reject{Status: v.Reason.Status(), Reason: v.Reason.Text()}
	if wait := v.RetryAfter(); wait > 0 {
		r.Header = http.Header{"Retry-After": {strconv.Itoa(wait)}}
	}
	return r
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
