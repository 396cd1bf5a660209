package loadgen

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"time"

	hdr "github.com/HdrHistogram/hdrhistogram-go"
	"github.com/gobwas/ws"

	"github.com/seed-134acfd0/lull/loadgen/measure"
	"github.com/seed-134acfd0/lull/loadgen/plan"
)

// probeIdle is how long the probe measures the idle server, before the phase.
const probeIdle = 2 * time.Second

// probe sends Pings on a connection of its own, at fixed times, whether or not
// the answers come. It measures how quickly a busy server answers a connection
// that has no part in the load.
type probe struct {
	run   *run
	every time.Duration
	conn  net.Conn
	in    io.Reader

	mu   sync.Mutex
	hist *hdr.Histogram // round trips since the last take; guarded by mu
}

// startProbe connects as one more user of the first group.
func (r *run) startProbe(ctx context.Context, every time.Duration) (*probe, error) {
	g := r.groups[0]
	v := &plan.Values{Conn: r.config.First + r.plan.Users(), Group: g.Name, Files: r.plan.Files, Random: rand.New(rand.NewPCG(r.random, 0))}
	offer := g.offerFor(v)
	dialer := ws.Dialer{TLSConfig: r.config.TLS, Header: ws.HandshakeHeaderBytes(offer.Header)}
	if offer.Protocols != "" {
		dialer.Protocols = strings.Split(offer.Protocols, ", ")
	}
	conn, buffered, _, err := dialer.Dial(ctx, string(g.URLs[0].Append(nil, v)))
	if err != nil {
		return nil, fmt.Errorf("loadgen: probe: %w", err)
	}
	p := &probe{run: r, every: every, conn: conn, in: conn, hist: measure.NewHistogram()}
	if buffered != nil {
		p.in = buffered
	}
	go p.send(ctx)
	go p.receive()
	return p, nil
}

// send pings at fixed times.
func (p *probe) send(ctx context.Context) {
	var payload [8]byte
	for next := p.run.elapsed(); ctx.Err() == nil; next += p.every {
		time.Sleep(next - p.run.elapsed()) // returns at once if next is past
		binary.BigEndian.PutUint64(payload[:], uint64(next))
		if err := ws.WriteFrame(p.conn, ws.MaskFrame(ws.NewPingFrame(payload[:]))); err != nil {
			return
		}
	}
}

func (p *probe) receive() {
	var payload [8]byte
	for {
		h, err := ws.ReadHeader(p.in)
		if err != nil {
			return
		}
		if h.OpCode != ws.OpPong || h.Length != int64(len(payload)) {
			if _, err := io.CopyN(io.Discard, p.in, h.Length); err != nil {
				return
			}
			continue
		}
		if _, err := io.ReadFull(p.in, payload[:]); err != nil {
			return
		}
		rtt := p.run.elapsed() - time.Duration(binary.BigEndian.Uint64(payload[:]))
		p.mu.Lock()
		measure.Record(p.hist, rtt)
		p.mu.Unlock()
	}
}

// stop ends the probe and returns the round trips since the last take.
func (p *probe) stop() *hdr.Histogram {
	_ = p.conn.Close()
	return p.take()
}

// take returns the round trips since the last take.
func (p *probe) take() *hdr.Histogram {
	p.mu.Lock()
	defer p.mu.Unlock()
	h := p.hist
	p.hist = measure.NewHistogram()
	return h
}
