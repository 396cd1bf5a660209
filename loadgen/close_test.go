package loadgen

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/loadgen/measure"
	"github.com/seed-134acfd0/lull/netpoll"
)

func TestConnectionsEndWithTheClosingHandshake(t *testing.T) {
	const conns = closeBatch + 10 // more than one batch
	closed := make(chan string, conns)
	url := fake(t, func(p *peer) {
		p.open()
		op, payload, _ := p.next()
		closed <- fmt.Sprintf("%s %x", op, payload)
		// A message may be on its way when the peer's Close frame arrives.
		p.send(append(whole([]byte("late")), frame.Append(nil, frame.Close, payload)...))
		// RFC 6455 section 7.1.1: the server closes the TCP connection first, and
		// the client has read everything by then.
		if err := p.CloseWrite(); err != nil {
			p.Error(err)
		}
		if rest, err := io.ReadAll(p.in); err != nil || len(rest) > 0 {
			p.Errorf("after the Close frame: %q, %v", rest, err)
		}
	})
	res := mustRun(t, short(t), Config{URLs: []string{url}, Conns: conns, Workers: 1})
	expect(t, res, map[measure.Counter]int{measure.Connected: conns})
	if !res.OK() {
		t.Errorf("not OK: %v", res.Errors)
	}
	for range conns {
		if got := <-closed; got != "close 03e8" { // 1000
			t.Fatalf("ended with %q", got)
		}
	}
}

func TestEndsAreCountedByTheirCause(t *testing.T) {
	const conns = 4
	goodbye := frame.AppendClose(nil, frame.GoingAway, "restart")
	rows := []struct {
		why    string
		script func(*peer)
		want   measure.Counter
		error  string
	}{
		{"with a Close frame", func(p *peer) {
			p.open(goodbye)
			if op, payload, _ := p.next(); op != frame.Close || string(payload) != "\x03\xe9restart" {
				p.Errorf("answered with %s %q", op, payload)
			}
		}, measure.Closed, "1001 restart"},
		{"with an empty Close frame", func(p *peer) {
			p.open(frame.Append(nil, frame.Close, nil))
			if op, payload, _ := p.next(); op != frame.Close || len(payload) > 0 {
				p.Errorf("answered with %s %q", op, payload)
			}
		}, measure.Closed, "1005"},
		{"with a Close frame and a reset", func(p *peer) { p.open(goodbye); p.reset() }, measure.Closed, "1001 restart"},
		{"with a Close frame, without the end", func(p *peer) { p.open(goodbye); p.rest(); _, _ = io.Copy(io.Discard, p.in) }, measure.Closed, "1001 restart"},

		{"without a Close frame", func(p *peer) { p.open() }, measure.Dropped, errEnded.Error()},
		{"with a reset", func(p *peer) { p.open(); p.reset() }, measure.Dropped, "reset"},
		{"in the middle of a frame", func(p *peer) { p.open(goodbye[:5]) }, measure.Dropped, errEnded.Error()},
	}
	for _, r := range rows {
		t.Run(r.why, func(t *testing.T) {
			res := runUntil(t, Config{URLs: []string{fake(t, r.script)}, Conns: conns, Hold: forever}, func(s *measure.Snapshot) bool {
				return s.Failed() == conns
			})
			expect(t, res, map[measure.Counter]int{measure.Connected: conns, r.want: conns})
			expectError(t, res, r.want.String()+": ", conns)
			expectError(t, res, r.error, conns)
		})
	}
}

// leftovers counts what a run could leave behind: sockets in the descriptor tables
// of all threads, epoll sets and wakers in the process's table, and goroutines.
type leftovers struct{ sockets, polls, wakers, goroutines int }

func count(t *testing.T) leftovers {
	t.Helper()
	named := func(pattern, kind string) (names []string) {
		links, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, link := range links {
			if name, err := os.Readlink(link); err == nil && strings.HasPrefix(name, kind) { // it may be gone by now
				names = append(names, name)
			}
		}
		return names
	}
	sockets := named("/proc/self/task/*/fd/*", "socket:") // several threads share a table
	slices.Sort(sockets)
	return leftovers{
		sockets: len(slices.Compact(sockets)),
		polls:   len(named("/proc/self/fd/*", "anon_inode:[eventpoll]")),
		wakers:  len(named("/proc/self/fd/*", "anon_inode:[eventfd]")),

		goroutines: runtime.NumGoroutine(),
	}
}

// exceeds reports whether there is more of anything.
func (l leftovers) exceeds(m leftovers) bool {
	return l.sockets > m.sockets || l.polls > m.polls || l.wakers > m.wakers || l.goroutines > m.goroutines
}

func TestAnInterruptedRunLeavesNothingBehind(t *testing.T) {
	const conns = 10
	talk := Config{Active: 5, Echo: forever}
	rows := []struct {
		why    string
		config Config
		script func(*peer)
		when   func(*measure.Snapshot) bool
		open   int
	}{
		{
			"while it opens", Config{}, func(p *peer) { p.request(); _, _ = io.Copy(io.Discard, p.in) },
			func(s *measure.Snapshot) bool { return s.Opening == conns }, 0,
		},
		{
			"while it holds", Config{Hold: forever}, func(p *peer) { p.open(); p.rest() },
			func(s *measure.Snapshot) bool { return s.Phase == "hold" }, conns,
		},
		{
			"while it waits for a broadcast", Config{Broadcasts: 1, Patience: forever}, func(p *peer) { p.open(); p.rest() },
			func(s *measure.Snapshot) bool { return s.Phase == "broadcast" }, conns,
		},
		{
			"while it talks", talk, func(p *peer) { p.open(); p.answer(same) },
			func(s *measure.Snapshot) bool { return received(s) > 10 }, conns,
		},
	}
	for _, tables := range []netpoll.Tables{netpoll.Shared, netpoll.Private} {
		for _, r := range rows {
			t.Run(r.why+", "+tables.String(), func(t *testing.T) {
				before := count(t)
				t.Run("run", func(t *testing.T) { // a subtest, so that its server has ended after it
					c := r.config
					c.URLs, c.Conns, c.Tables, c.Workers = []string{fake(t, r.script)}, conns, tables, 2
					res := runUntil(t, c, r.when)
					if res.Open != r.open || res.OK() || len(res.Phases) == 0 || res.Phases[len(res.Phases)-1].Name != "close" {
						t.Errorf("%d open, OK is %v, phases %v", res.Open, res.OK(), res.Phases)
					}
				})
				// The garbage collector closes wakers, and the kernel closes the
				// tables of ended threads. Neither happens at once.
				gone := time.After(20 * time.Second)
				for after := count(t); after.exceeds(before); after = count(t) {
					select {
					case <-gone:
						t.Fatalf("before %+v, after %+v", before, after)
					default:
						runtime.GC()
					}
				}
			})
		}
	}
}

func TestAnInterruptedBroadcastIsAccountedFor(t *testing.T) {
	const conns, reached = 6, 4
	url := hub(t, func(to, _ int, payload []byte) []byte {
		if to < reached {
			return whole(payload)
		}
		return nil
	})
	res := runUntil(t, Config{URLs: []string{url}, Conns: conns, Broadcasts: 3, Patience: forever}, func(s *measure.Snapshot) bool {
		return received(s) == reached
	})
	expect(t, res, map[measure.Counter]int{measure.Connected: conns, measure.Sent: 1, measure.Received: reached})
	if len(res.Broadcasts) != 1 || res.Lost != conns-reached || res.OK() {
		t.Errorf("OK is %v, %d lost, broadcasts %+v", res.OK(), res.Lost, res.Broadcasts)
	}
}

// A ramp that is interrupted opens no more connections.
func TestAnInterruptedRampStops(t *testing.T) {
	const conns, soon = 15_000, 20
	url := fake(t, func(p *peer) { p.open(); p.rest() })
	c := Config{URLs: []string{url}, Conns: conns, Rate: 200, Workers: 1}
	atStop := 0
	res := runUntil(t, c, func(s *measure.Snapshot) bool {
		if s.Phase == "ramp" {
			atStop = s.Open
		}
		return s.Open >= soon
	})
	last := res.Timeline[len(res.Timeline)-1]
	if last.Open > atStop+1000 { // a ramp that goes on opens 4000 more within closeTimeout
		t.Errorf("%d were open when it was interrupted, %d at the end", atStop, last.Open)
	}
}
