package loadgen

import (
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/loadgen/measure"
	"github.com/seed-134acfd0/lull/loadgen/plan"
	"github.com/seed-134acfd0/lull/loadgen/wire"
)

func TestTheReasonTellsWhenToComeBack(t *testing.T) {
	for _, r := range []struct {
		reason string
		want   time.Duration
		ok     bool
	}{
		{"retry=12.5s", 12500 * time.Millisecond, true},
		{"retry=0s", 0, true},
		{"retry=1000h", retryMost, true},
		{"retry=-1s", 0, false},
		{"retry=soon", 0, false},
		{"retry=", 0, false},
		{"", 0, false},
		{"please retry=1s", 0, false},
	} {
		got, ok := retryAfter(frame.AppendClosePayload(nil, frame.ServiceRestart, r.reason))
		if ok != r.ok || ok && got != r.want {
			t.Errorf("%q: %s, %v, want %s, %v", r.reason, got, ok, r.want, r.ok)
		}
	}
	if _, ok := retryAfter(nil); ok {
		t.Error("a Close frame without a payload tells a time")
	}
}

func TestTheBackoffDoublesUpToABound(t *testing.T) {
	for tries, middle := range map[int]time.Duration{0: time.Second, 1: 2 * time.Second, 4: 16 * time.Second, 5: backoffMost, 6: backoffMost, 200: backoffMost} {
		for range 100 {
			if got := backoff(tries); got < middle/2 || got >= middle*3/2 {
				t.Fatalf("after %d failed tries: %s", tries, got)
			}
		}
	}
}

// comings has a script for each time that a client comes, and when it came.
type comings struct {
	mu    sync.Mutex
	times map[string][]time.Time // by the handshake's key, which is a client's own
}

func (c *comings) note(key string) (before int, since time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.times == nil {
		c.times = map[string][]time.Time{}
	}
	times, now := c.times[key], time.Now()
	if len(times) > 0 {
		since = now.Sub(times[len(times)-1])
	}
	c.times[key] = append(times, now)
	return len(times), since
}

// A connection that the server ends is opened again, not before the time that it was
// told, and receives broadcasts again. What was sent while it was away counts as
// nothing.
func TestConnectionsComeBack(t *testing.T) {
	const conns, told = 5, 300 * time.Millisecond
	message7 := make([]byte, 32)
	wire.Message{Number: 7, Kind: wire.Published}.Encode(message7)
	closing := frame.AppendClose(nil, frame.ServiceRestart, "retry="+told.String())
	for why, end := range map[string]func(*peer){
		"told when":           func(p *peer) { p.send(closing); _, _, _ = p.next() },
		"told by end of file": func(*peer) {},
		"told by a reset":     func(p *peer) { p.reset() },
	} {
		t.Run(why, func(t *testing.T) {
			t.Parallel()
			var c comings
			url := fake(t, func(p *peer) {
				r := p.request()
				before, since := c.note(r.Header.Get("Sec-WebSocket-Key"))
				p.send([]byte(accept(r)))
				if before == 0 {
					end(p)
					return
				}
				if since < told {
					p.Errorf("a client is back after %s", since)
				}
				p.send(whole(message7))
				p.rest()
			})
			res := runUntil(t, Config{URLs: []string{url}, Conns: conns, Reconnect: true, Hold: time.Minute}, func(s *measure.Snapshot) bool { return received(s) == conns })
			if b := res.Returns; res.Open != conns || b == nil || b.Count != conns || b.Failed != 0 || b.Away.Count != conns {
				t.Errorf("%+v, %d open", b, res.Open)
			}
			if n := res.Counts[measure.Missed.String()] + res.Counts[measure.Repeated.String()]; n != 0 {
				t.Errorf("%d messages count as missed or repeated", n)
			}
		})
	}
}

// A try that fails is counted, and there is another. The hold lasts until all are back.
func TestConnectionsTryAgain(t *testing.T) {
	t.Parallel()
	const conns = 3
	var c comings
	url := fake(t, func(p *peer) {
		r := p.request()
		switch before, _ := c.note(r.Header.Get("Sec-WebSocket-Key")); before {
		case 0:
			p.send([]byte(accept(r)))
		case 1:
			p.send([]byte("HTTP/1.1 503 Busy\r\n\r\n"))
			_, _ = io.Copy(io.Discard, p.in)
		default:
			p.send([]byte(accept(r)))
			p.rest()
		}
	})
	res := mustRun(t, short(t), Config{URLs: []string{url}, Conns: conns, Reconnect: true, Hold: time.Millisecond})
	expect(t, res, map[measure.Counter]int{measure.Connected: 2 * conns, measure.Dropped: conns, measure.Returned: conns, measure.RetryFailed: conns})
	expectError(t, res, "503", conns)
	if !res.OK() {
		t.Errorf("%+v", res)
	}
}

// Who was never open is not opened again, and the ramp ends without it.
func TestWhoWasNeverOpenDoesNotComeBack(t *testing.T) {
	url := fake(t, func(p *peer) { p.request(); p.send([]byte("HTTP/1.1 503 Busy\r\n\r\n")) })
	res := mustRun(t, short(t), Config{URLs: []string{url}, Conns: 3, Reconnect: true, Hold: time.Millisecond})
	expect(t, res, map[measure.Counter]int{measure.Rejected: 3})
}

// Who comes back in a talk takes part in it again, in the stream that it had.
func TestWhoComesBackTalksAgain(t *testing.T) {
	const users = 4
	for name, s := range map[string]plan.Stream{
		"at a rate":  {Rate: 200, Window: 4},
		"one by one": {Window: 1},
		"a flood":    {Window: 0, Rate: 200},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var c comings
			var again atomic.Int64
			url := fake(t, func(p *peer) {
				r := p.request()
				before, _ := c.note(r.Header.Get("Sec-WebSocket-Key"))
				p.send([]byte(accept(r)))
				p.answer(func(n int, op frame.Op, payload []byte) ([]byte, bool) {
					if before == 0 && n == 5 {
						return frame.AppendClose(nil, frame.ServiceRestart, "retry=10ms"), false
					}
					if before > 0 && n == 5 {
						again.Add(1)
					}
					return same(n, op, payload)
				})
			})
			g := groupOf(users, url)
			g.Reconnect = true
			s.Message = plan.Message{Answer: answered(plan.AnswerEcho)}
			res := runUntil(t, Config{Workers: 2, Plan: planOf(g, plan.Phase{Name: "talk", Kind: plan.Talk, For: time.Minute, Streams: []plan.Stream{s}})}, func(*measure.Snapshot) bool {
				return again.Load() == users
			})
			if n := counted(res, measure.Returned); n != users || again.Load() != users || counted(res, measure.Repeated, measure.Strayed, measure.Missed) != 0 {
				t.Errorf("%d came back, %d of them talk; counts %v", n, again.Load(), res.Counts)
			}
		})
	}
}
