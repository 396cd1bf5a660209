package loadgen

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/loadgen/measure"
	"github.com/seed-134acfd0/lull/loadgen/plan"
	"github.com/seed-134acfd0/lull/loadgen/wire"
)

// anothers is what the server would have answered to another user.
func anothers(op frame.Op, payload []byte) []byte {
	if m, ok := wire.Decode(payload); ok {
		m.Sender++
		other := bytes.Clone(payload)
		m.Encode(other)
		return frame.Append(nil, op, other)
	}
	return frame.Append(nil, op, bytes.Replace(payload, []byte("user"), []byte("another"), 1))
}

// ofAnotherRun is a message that another generator has published.
func ofAnotherRun() []byte {
	other := make([]byte, 32)
	wire.Message{Run: 1, Kind: wire.Published, Number: 1000}.Encode(other)
	return whole(other)
}

// A server answers wrongly now and then, and each time is counted: as one of some
// counters, and as lost if the right answer did not come in its turn.
func TestWrongAnswersAreCounted(t *testing.T) {
	const every, at = 10, 3                              // of each ten messages of a connection one
	type server = func(lost, wrong *atomic.Int64) answer // of a connection; it counts what it does
	now := func(n int) bool { return n%every == at }
	inPlace := func(is func(op frame.Op, payload []byte) []byte) server {
		return func(lost, wrong *atomic.Int64) answer {
			return func(n int, op frame.Op, payload []byte) ([]byte, bool) {
				if !now(n) {
					return frame.Append(nil, op, payload), true
				}
				lost.Add(1)
				wrong.Add(1)
				return is(op, payload), true
			}
		}
	}
	besides := func(is func(op frame.Op, payload []byte) []byte) server {
		return func(_, wrong *atomic.Int64) answer {
			return func(n int, op frame.Op, payload []byte) ([]byte, bool) {
				right := frame.Append(nil, op, payload)
				if !now(n) {
					return right, true
				}
				wrong.Add(1)
				return append(is(op, payload), right...), true
			}
		}
	}
	ends := func(with func(op frame.Op, payload []byte) []byte) server {
		return func(_, wrong *atomic.Int64) answer {
			return func(n int, op frame.Op, payload []byte) ([]byte, bool) {
				if !now(n) {
					return frame.Append(nil, op, payload), true
				}
				wrong.Add(1)
				return with(op, payload), false
			}
		}
	}
	for _, f := range []struct {
		fault           string
		windows         []int
		server          server
		generated, text [][]measure.Counter // each group of counters is as often as the fault
	}{
		{"drops", []int{1, 8, 0}, inPlace(func(frame.Op, []byte) []byte { return nil }), nil, nil},
		{"answers twice", []int{1, 8, 0}, besides(func(op frame.Op, payload []byte) []byte { return frame.Append(nil, op, payload) }),
			[][]measure.Counter{{measure.Repeated}}, [][]measure.Counter{{measure.Repeated}}},
		{"swaps", []int{8, 0}, func(lost, wrong *atomic.Int64) answer {
			var held []byte
			return func(n int, op frame.Op, payload []byte) ([]byte, bool) {
				answer := append(frame.Append(nil, op, payload), held...)
				if held != nil {
					wrong.Add(1)
					held = nil
				} else if now(n) {
					lost.Add(1)
					held = answer
					return nil, true
				}
				return answer, true
			}
		}, [][]measure.Counter{{measure.Missed}, {measure.Repeated}}, [][]measure.Counter{{measure.Missed}, {measure.Repeated}}},
		{"answers with another's message too", []int{1, 8, 0}, besides(anothers), [][]measure.Counter{{measure.Strayed}}, [][]measure.Counter{{measure.Mismatched}}},
		{"answers with another's message", []int{1, 8, 0}, inPlace(anothers), [][]measure.Counter{{measure.Strayed}}, [][]measure.Counter{{measure.Mismatched}}},
		{"sends another run's message", []int{1, 8, 0}, besides(func(frame.Op, []byte) []byte { return ofAnotherRun() }),
			[][]measure.Counter{{measure.Strayed}}, [][]measure.Counter{{measure.Strayed}}},
		{"changes a byte", []int{1, 8, 0}, inPlace(func(op frame.Op, payload []byte) []byte {
			payload[len(payload)-1]++
			return frame.Append(nil, op, payload)
		}), [][]measure.Counter{{measure.Foreign}}, [][]measure.Counter{{measure.Mismatched}}},
		{"answers a text in a binary frame", []int{1, 8, 0}, inPlace(func(_ frame.Op, payload []byte) []byte { return whole(payload) }),
			nil, [][]measure.Counter{{measure.Mismatched}}},
		{"masks", []int{1, 8, 0}, ends(masked), [][]measure.Counter{{measure.Broken}}, [][]measure.Counter{{measure.Broken}}},
		{"cuts a frame in two", []int{1, 8, 0}, ends(func(op frame.Op, payload []byte) []byte {
			return frame.Append(nil, op, payload)[:len(payload)]
		}), [][]measure.Counter{{measure.Dropped}}, [][]measure.Counter{{measure.Dropped}}},
	} {
		for _, window := range f.windows {
			for kind, want := range map[string][][]measure.Counter{"generated": f.generated, "text": f.text} {
				m := plan.Message{Answer: plan.Answer{Kind: plan.AnswerEcho}}
				if kind == "text" {
					m.Text = text("user {{.Conn}}, message {{.Seq}}.")
				}
				if strings.HasPrefix(f.fault, "answers a text") && kind != "text" {
					continue // a text must be UTF-8, so the parser may refuse it
				}
				t.Run(fmt.Sprintf("%s, %s, window %d", f.fault, kind, window), func(t *testing.T) {
					t.Parallel()
					var lost, wrong atomic.Int64
					url := answers(t, func() answer { return f.server(&lost, &wrong) })
					var res *Result
					n, missing := 0, 0
					// While this machine is busy little may be sent, and then it has to last longer.
					for length := 150 * time.Millisecond; n+missing == 0 && length < 10*time.Second; length *= 4 {
						res = runPlan(t, Config{Patience: 2 * time.Second, Plan: planOf(groupOf(2, url), plan.Phase{
							Name: "talk", Kind: plan.Talk, For: length,
							Streams: []plan.Stream{{Rate: 600, Window: window, Message: m}},
						})})
						n, missing = int(wrong.Load()), int(lost.Load())
					}
					greets := kind == "text" && strings.HasSuffix(f.fault, "another's message too") // a server may send texts of its own
					if n+missing == 0 || res.OK() != greets || res.Lost != missing {
						t.Errorf("OK is %v, %d lost of %d, counts %v", res.OK(), res.Lost, missing, res.Counts)
					}
					for _, counters := range want {
						if got := counted(res, counters...); got != n {
							t.Errorf("%d of %v, want %d; counts %v", got, counters, n, res.Counts)
						}
					}
					sent := counted(res, measure.Asked, measure.Flooded)
					became := counted(res, measure.Echoes, measure.Answered, measure.Abandoned) + res.Lost
					if sent == 0 || sent != became {
						t.Errorf("%d were sent, and %d are accounted for; counts %v", sent, became, res.Counts)
					}
				})
			}
		}
	}
}

// A server that relays published messages wrongly to one of its connections.
func TestWrongDeliveriesAreCounted(t *testing.T) {
	const conns, messages, victim, at = 6, 40, 3, 10
	frameOf := func(op frame.Op, payload []byte) []byte { return frame.Append(nil, op, payload) }
	type counts = map[measure.Counter]int
	for _, f := range []struct {
		fault    string
		victim   func(n int, op frame.Op, payload, before []byte) ([]byte, bool) // before is the message before
		want     counts
		constant counts // of texts that are all the same; nil is like want
		text     counts // of others; nil is like want
	}{
		{"drops three", func(n int, op frame.Op, payload, _ []byte) ([]byte, bool) {
			if n%at == 5 && n < 30 {
				return nil, true
			}
			return frameOf(op, payload), true
		}, counts{measure.Received: conns*messages - 3, measure.Missed: 3}, counts{measure.Received: conns*messages - 3}, nil},
		{"sends three twice", func(n int, op frame.Op, payload, _ []byte) ([]byte, bool) {
			f := frameOf(op, payload)
			if n%at == 5 && n < 30 {
				f = append(f, f...)
			}
			return f, true
		}, counts{measure.Received: conns * messages, measure.Repeated: 3}, nil, nil},
		{"swaps two", func(n int, op frame.Op, payload, before []byte) ([]byte, bool) {
			f := frameOf(op, payload)
			switch n {
			case at:
				return nil, true
			case at + 1:
				return append(f, frameOf(op, before)...), true
			}
			return f, true
		}, counts{measure.Received: conns*messages - 1, measure.Missed: 1, measure.Repeated: 1}, counts{measure.Received: conns * messages}, nil},
		{"sends another run's too", func(n int, op frame.Op, payload, _ []byte) ([]byte, bool) {
			f := frameOf(op, payload)
			if n == at {
				f = append(f, ofAnotherRun()...)
			}
			return f, true
		}, counts{measure.Received: conns * messages, measure.Strayed: 1}, nil, nil},
		{"changes one", func(n int, op frame.Op, payload, _ []byte) ([]byte, bool) {
			if n == at {
				payload = bytes.Clone(payload)
				payload[len(payload)-1]++
			}
			return frameOf(op, payload), true
		}, counts{measure.Received: conns*messages - 1, measure.Missed: 1, measure.Foreign: 1}, counts{measure.Received: conns*messages - 1, measure.Foreign: 1}, nil},
		{"masks one", func(n int, op frame.Op, payload, _ []byte) ([]byte, bool) {
			if n == at {
				return masked(op, payload), true
			}
			return frameOf(op, payload), true
		}, counts{measure.Received: (conns-1)*messages + at, measure.Broken: 1}, nil, nil},
		{"cuts one in two", func(n int, op frame.Op, payload, _ []byte) ([]byte, bool) {
			if n >= at {
				return frameOf(op, payload)[:max(0, len(payload)*(at+1-n))], false
			}
			return frameOf(op, payload), true
		}, counts{measure.Received: (conns-1)*messages + at, measure.Dropped: 1}, nil, nil},
	} {
		for kind, want := range map[string]counts{"generated": f.want, "text": f.text, "the same text": f.constant} {
			m := plan.Message{}
			switch kind {
			case "text":
				m.Text = text("message {{.Seq}}.")
			case "the same text":
				m.Text = text("hello.")
			}
			if want == nil {
				want = f.want
			}
			t.Run(f.fault+", "+kind, func(t *testing.T) {
				t.Parallel()
				var before []byte
				url := hubOf(t, func(to, n int, op frame.Op, payload []byte) ([]byte, bool) {
					if to == victim {
						defer func() { before = payload }()
						return f.victim(n, op, payload, before)
					}
					return frameOf(op, payload), true
				})
				config := Config{Patience: 2 * time.Second, Workers: 2, Plan: planOf(groupOf(conns, url), plan.Phase{
					Name: "publish", Kind: plan.Publish, Count: messages, Rate: 400, Message: m,
				})}
				res := runPlan(t, config)
				all := counts{measure.Connected: conns, measure.Sent: messages}
				for c, n := range want {
					all[c] = n
				}
				expect(t, res, all)
				if missing := conns*messages - want[measure.Received]; res.Lost != missing || res.OK() && len(want) > 1 {
					t.Errorf("OK is %v, %d lost, want %d", res.OK(), res.Lost, missing)
				}
			})
		}
	}
}

// Answers that are late are late in the figures, whatever the window, and are no fault.
func TestDelayedAnswersAreSlow(t *testing.T) {
	const delay, slow = 60 * time.Millisecond, 5
	for _, window := range []int{1, 8, 0} {
		t.Run(fmt.Sprint("window ", window), func(t *testing.T) {
			t.Parallel()
			var delayed atomic.Int64
			url := answers(t, func() answer {
				return func(n int, op frame.Op, payload []byte) ([]byte, bool) {
					if n%20 == 10 {
						time.Sleep(delay) // the server is slow on purpose
						delayed.Add(1)
					}
					return frame.Append(nil, op, payload), true
				}
			})
			res := runPlan(t, Config{Plan: planOf(groupOf(2, url), plan.Phase{
				Name: "talk", Kind: plan.Talk, For: 300 * time.Millisecond,
				Streams: []plan.Stream{{Rate: 400, Window: window, Message: plan.Message{Answer: plan.Answer{Kind: plan.AnswerEcho}}}},
			})})
			if !res.OK() || delayed.Load() == 0 || counted(res, measure.Echoes, measure.Answered) != counted(res, measure.Asked, measure.Flooded) {
				t.Errorf("OK is %v, counts %v", res.OK(), res.Counts)
			}
			h := res.Histograms.Of(measure.Echo)
			if window == 0 {
				h = res.Histograms.Of(measure.Flood)
			}
			var above int64
			for _, bar := range h.Distribution() {
				if time.Duration(bar.To)*time.Microsecond >= delay {
					above += bar.Count
				}
			}
			if above < delayed.Load() {
				t.Errorf("%d answers took %s, of %d that were delayed", above, delay, delayed.Load())
			}
		})
	}
}

// Some servers accept wrongly, and those that do are as many as are rejected.
func TestWrongAcceptKeysAreCounted(t *testing.T) {
	var n atomic.Int64
	url := fake(t, func(p *peer) {
		r := p.request()
		if n.Add(1)%3 == 0 {
			r.Header.Set("Sec-WebSocket-Key", "another")
		}
		p.send([]byte(accept(r)))
		p.rest()
	})
	res := runPlan(t, Config{Plan: planOf(groupOf(30, url))})
	expect(t, res, map[measure.Counter]int{measure.Connected: 20, measure.Rejected: 10})
	expectError(t, res, "Sec-WebSocket-Accept", 10)
}

// A server that never reads, never answers or ends everybody does not make a run hang.
func TestNoServerMakesARunHang(t *testing.T) {
	talk := func(window, size int) plan.Phase {
		return plan.Phase{Name: "talk", Kind: plan.Talk, For: 100 * time.Millisecond, Streams: []plan.Stream{
			{Rate: 500, Window: window, Message: plan.Message{Size: size, Answer: plan.Answer{Kind: plan.AnswerEcho}}}}}
	}
	publish := plan.Phase{Name: "publish", Kind: plan.Publish, Count: 10, Burst: 10}
	finish := plan.Phase{Name: "finish", Kind: plan.Finish}
	ask := []plan.Step{{Do: plan.Send, Message: plan.Message{Answer: plan.Answer{Kind: plan.AnswerAny}}}}
	silent := func(p *peer) { p.open(); _ = p.rest() }
	deaf := func(p *peer) { p.open(); <-p.Context().Done() }
	for why, row := range map[string]struct {
		server    func(*peer)
		script    []plan.Step
		reconnect bool
		phases    []plan.Phase
	}{
		"no answers to window 1":                        {silent, nil, false, []plan.Phase{talk(1, 32)}},
		"no answers to window 8":                        {silent, nil, false, []plan.Phase{talk(8, 32)}},
		"no answers to a flood":                         {silent, nil, false, []plan.Phase{talk(0, plan.SizeMax)}},
		"no deliveries":                                 {silent, nil, false, []plan.Phase{publish}},
		"no answers to scripts":                         {silent, ask, false, []plan.Phase{finish}},
		"nothing is read, and streams":                  {deaf, nil, false, []plan.Phase{talk(0, plan.SizeMax)}},
		"everybody is ended, and does not get in again": {nil, ask, true, []plan.Phase{finish}},
	} {
		t.Run(why, func(t *testing.T) {
			t.Parallel()
			var n atomic.Int64
			server := row.server
			if row.reconnect { // open once, end, and accept without an answer from then on
				server = func(p *peer) {
					if n.Add(1) > 4 {
						_, _ = io.Copy(io.Discard, p.in)
						return
					}
					p.open()
				}
			}
			g := groupOf(4, fake(t, server))
			g.Script, g.Reconnect = row.script, row.reconnect
			res := runPlan(t, Config{Patience: 300 * time.Millisecond, Plan: planOf(g, row.phases...)})
			if res.OK() || res.Counts[measure.Connected.String()] != 4 {
				t.Errorf("OK is %v, counts %v", res.OK(), res.Counts)
			}
		})
	}
}
