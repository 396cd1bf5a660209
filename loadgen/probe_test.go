package loadgen

import (
	"bytes"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"github.com/seed-134acfd0/lull/frame"

	"github.com/seed-134acfd0/lull/loadgen/measure"
	"github.com/seed-134acfd0/lull/loadgen/plan"
	"github.com/seed-134acfd0/lull/loadgen/result"
)

func TestARunWhoseProbeIsRefusedFails(t *testing.T) {
	const conns = 3
	var accepted atomic.Int64
	url := fake(t, func(p *peer) {
		if accepted.Add(1) > conns { // the probe comes last
			p.send([]byte("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"))
			return
		}
		p.open()
		p.rest()
	})
	res, err := Run(short(t), Config{URLs: []string{url}, Conns: conns, Broadcasts: 1, Probe: time.Millisecond})
	if err == nil || !strings.Contains(err.Error(), "loadgen: probe: ") {
		t.Errorf("got %v", err)
	}
	if res == nil || res.Open != conns || res.Probe != nil {
		t.Errorf("%+v", res)
	}
}

// The probe measures the time from its Ping to the Pong with the same payload,
// and ignores whatever else arrives.
func TestTheProbeMeasuresItsOwnPongs(t *testing.T) {
	const pings = 10
	url := fake(t, func(p *peer) {
		p.open(frame.Append(nil, frame.Text, []byte("welcome"))) // in the same read as the handshake's answer
		for range pings {
			op, payload, ok := p.next()
			if op != frame.Ping || len(payload) != 8 || !ok {
				p.Errorf("%s %q, want a ping", op, payload)
				return
			}
			p.send(frame.Append(nil, frame.Pong, []byte("other")))
			p.send(whole(payload))
			p.send(frame.Append(nil, frame.Pong, payload))
		}
		p.rest() // closing with unread Pings would send RST, and Pongs would be lost
	})
	r := &run{plan: &plan.Plan{}, groups: []*group{{Group: &plan.Group{URLs: []*plan.Text{plan.Plain(url)}}}}, begun: time.Now()}
	ctx := short(t)
	p, err := r.startProbe(ctx, time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	got := measure.NewHistogram()
	for got.TotalCount() < pings && ctx.Err() == nil {
		got.Merge(p.take())
	}
	if l := result.LatencyOf(got); l.Count != pings || l.First <= 0 {
		t.Errorf("%+v", l)
	}
	if l := p.stop(); l.TotalCount() != 0 {
		t.Errorf("after all were taken: %+v", l)
	}
	if err := ws.WriteFrame(p.conn, ws.NewPingFrame(nil)); err == nil {
		t.Error("the probe's connection is open after stop")
	}
}

// The probe allocates nothing for a frame's declared length.
func TestTheProbeSurvivesAHugeFrame(t *testing.T) {
	p := &probe{in: bytes.NewReader([]byte{0x82, 127, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 'x'})}
	p.receive() // returns when the reader is empty
}
