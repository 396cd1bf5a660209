package loadgen

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	hdr "github.com/HdrHistogram/hdrhistogram-go"
	"github.com/gobwas/ws"
)

// probeIdle is how long the probe measures the idle server, before the phase.
const probeIdle = 2 * time.Second

// probe sends Pings on a connection of its own, at fixed times, whether or not
// the answers come. It measures how quickly a busy server answers a connection
// that has no part in the load.
type probe struct {
	run  *run
	conn net.Conn
	in   io.Reader

	mu   sync.Mutex
	hist *hdr.Histogram // round trips since the last take; guarded by mu
}

func (r *run) startProbe(ctx context.Context) (*probe, error) {
	conn, buffered, _, err := ws.Dialer{TLSConfig: r.config.TLS}.Dial(ctx, r.config.URLs[0])
	if err != nil {
		return nil, fmt.Errorf("loadgen: probe: %w", err)
	}
	p := &probe{run: r, conn: conn, in: conn, hist: newHistogram()}
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
	for next := p.run.elapsed(); ctx.Err() == nil; next += p.run.config.Probe {
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
		measure(p.hist, rtt)
		p.mu.Unlock()
	}
}

// stop ends the probe and returns the round trips since the last take.
func (p *probe) stop() Latency {
	_ = p.conn.Close()
	return latency(p.take())
}

// take returns the round trips since the last take.
func (p *probe) take() *hdr.Histogram {
	p.mu.Lock()
	defer p.mu.Unlock()
	h := p.hist
	p.hist = newHistogram()
	return h
}
