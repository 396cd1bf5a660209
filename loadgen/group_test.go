package loadgen

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/loadgen/measure"
	"github.com/seed-134acfd0/lull/loadgen/plan"
)

// Half-open users count as such, and not as missing. Those that the server ends are counted,
// and come back if their group does.
func TestHalfOpenUsersAreCounted(t *testing.T) {
	for name, row := range map[string]struct {
		reconnect bool
		ends      int // connections that the server ends
		want      map[measure.Counter]int
	}{
		"they stay":     {false, 0, map[measure.Counter]int{measure.HalfOpen: 4}},
		"two end":       {false, 2, map[measure.Counter]int{measure.HalfOpen: 4, measure.HalfEnded: 2}},
		"two come back": {true, 2, map[measure.Counter]int{measure.HalfOpen: 6, measure.HalfEnded: 2, measure.Returned: 2}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var n, requests atomic.Int64
			half := groupOf(4, fake(t, func(p *peer) {
				if n.Add(1) <= int64(row.ends) {
					return
				}
				if _, err := p.in.ReadByte(); err == nil {
					requests.Add(1)
				}
			}))
			half.Name, half.HalfOpen, half.Reconnect = "half", true, row.reconnect
			p := planOf(half, plan.Phase{Name: "hold", Kind: plan.Hold, For: 100 * time.Millisecond})
			p.Groups = append(p.Groups, groupOf(3, echoes(t)))
			res := runPlan(t, Config{Workers: 2, Plan: p})
			row.want[measure.Connected] = 3
			expectCounts(t, res, row.want)
			if ok := row.want[measure.HalfOpen]-row.want[measure.HalfEnded] == 4; res.OK() != ok || requests.Load() != 0 {
				t.Errorf("OK is %v, %d requests", res.OK(), requests.Load())
			}
		})
	}
}

// A mute group leaves Pings unanswered, and another one beside it does not.
func TestMuteUsersLeavePingsUnanswered(t *testing.T) {
	t.Parallel()
	pongs := map[string]*atomic.Int64{"mute": {}, "users": {}}
	server := func(name string) string {
		return fake(t, func(p *peer) {
			p.open(frame.Append(nil, frame.Ping, []byte("x")))
			for {
				op, payload, ok := p.next()
				if !ok || op == frame.Close {
					p.send(frame.Append(nil, frame.Close, payload))
					return
				}
				if op == frame.Pong {
					pongs[name].Add(1)
				}
			}
		})
	}
	mute, others := groupOf(3, server("mute")), groupOf(3, server("users"))
	mute.Name, mute.Mute = "mute", true
	p := planOf(mute)
	p.Groups = append(p.Groups, others)
	res := runPlan(t, Config{Plan: p})
	if a, b := pongs["mute"].Load(), pongs["users"].Load(); a != 0 || b != 3 || !res.OK() {
		t.Errorf("OK is %v, %d Pongs of mute users, %d of others", res.OK(), a, b)
	}
}

// All Pings are answered and timed. A group that has nobody for a while does not ping more often
// later to make up for that.
func TestPingsComeAtTheirInterval(t *testing.T) {
	t.Parallel()
	const users, every = 4, 100 * time.Millisecond
	late, now := groupOf(users, echoes(t)), groupOf(1, echoes(t))
	late.Name, late.Ping = "late", every
	p := &plan.Plan{Groups: []plan.Group{now, late}, Phases: []plan.Phase{
		{Name: "first", Kind: plan.Ramp, Groups: []string{"users"}},
		{Name: "wait", Kind: plan.Hold, For: 700 * time.Millisecond},
		{Name: "second", Kind: plan.Ramp, Groups: []string{"late"}},
		{Name: "hold", Kind: plan.Hold, For: 450 * time.Millisecond},
	}}
	res := runPlan(t, Config{Workers: 1, Plan: p})
	pinged, ponged := counted(res, measure.Pinged), counted(res, measure.Ponged)
	most := users * (int(time.Duration(res.Seconds*float64(time.Second))-700*time.Millisecond)/int(every) + 2)
	if pinged < users || pinged > most || ponged+counted(res, measure.Unponged) != pinged || int(res.Histograms.Of(measure.Pong).TotalCount()) != ponged {
		t.Errorf("%d pings of at most %d, %d Pongs, %d timed", pinged, most, ponged, res.Histograms.Of(measure.Pong).TotalCount())
	}
}

// Slow readers read as many bytes a second as they are told, and miss nothing.
func TestSlowReadersReadAtTheirRate(t *testing.T) {
	t.Parallel()
	const users, rate, size = 3, 40_000, 20_000
	url := answers(t, func() func(int, frame.Op, []byte) ([]byte, bool) {
		return func(int, frame.Op, []byte) ([]byte, bool) { return whole(make([]byte, size)), true }
	})
	slow := groupOf(users, url)
	slow.Name, slow.ReadRate = "slow", rate
	quick := groupOf(users, url)
	script := []plan.Step{send(plan.Message{Text: text("go"), Answer: answered(plan.AnswerAny)})}
	slow.Script, quick.Script = script, script
	p := planOf(slow, finish)
	p.Groups = append(p.Groups, quick)
	res := runPlan(t, Config{Workers: 1, Plan: p})
	if n := counted(res, measure.Echoes); n != 2*users || !res.OK() {
		t.Errorf("OK is %v, %d answers", res.OK(), n)
	}
	// A tenth of a second's bytes come at once.
	if least, got := time.Duration(size-rate/5)*time.Second/rate, time.Duration(res.Histograms.Of(measure.Echo).Max())*time.Microsecond; got < least {
		t.Errorf("%d bytes took %s at %d a second, want %s", size, got, rate, least)
	}
	slower := int64(0)
	for _, bar := range res.Histograms.Of(measure.Echo).Distribution() {
		if bar.To > 300_000 {
			slower += bar.Count
		}
	}
	if slower < users {
		t.Errorf("%d readers are slow, want %d", slower, users)
	}
}

// Messages may be in fragments and of the largest size, and one group of two may compress. A
// server that parses them sends the same bytes back.
func TestFragmentsOfTheLargestMessagesAreAnswered(t *testing.T) {
	t.Parallel()
	var frames atomic.Int64
	url := fake(t, func(p *peer) {
		p.open()
		parser, s := frame.NewServerParser(plan.SizeMax), frame.Stream{}
		buf, held := make([]byte, 200<<10), 0
		for {
			n, err := p.in.Read(buf[held:])
			if err != nil {
				return
			}
			in := buf[:held+n]
			for {
				ev, n, err := parser.Message(&s, in)
				if err != nil {
					p.Errorf("the generator breaks the protocol: %v", err)
					return
				}
				if ev.Head {
					frames.Add(1)
				}
				if in = in[n:]; n == 0 {
					break
				}
				if ev.Op != 0 {
					p.send(frame.Append(nil, ev.Op, ev.Payload))
				}
				if ev.Op == frame.Close {
					return
				}
			}
			held = copy(buf, in)
		}
	})
	const users, fragment = 2, 1000
	g := groupOf(users, url)
	g.Fragment = fragment
	g.Script = []plan.Step{
		send(plan.Message{Size: plan.SizeMax, Answer: answered(plan.AnswerEcho)}),
		send(plan.Message{Text: plan.Plain(strings.Repeat("ä", plan.SizeMax/2)), Answer: answered(plan.AnswerEcho)}), // fragments cut runes
		send(plan.Message{Size: fragment, Answer: answered(plan.AnswerEcho)}),
		send(plan.Message{Size: fragment + 1, Answer: answered(plan.AnswerEcho)}),
	}
	res := runPlan(t, Config{Plan: planOf(g, finish)})
	expectCounts(t, res, map[measure.Counter]int{measure.Connected: users, measure.Finished: users, measure.Asked: 4 * users, measure.Echoes: 4 * users})
	if want := int64(users * (66 + 66 + 1 + 2 + 1)); frames.Load() != want || !res.OK() { // and a Close frame
		t.Errorf("OK is %v, %d frames, want %d", res.OK(), frames.Load(), want)
	}
}

// Templates are filled in for each connection, and the same when it comes back.
func TestHeadsAreFilledInForEachConnection(t *testing.T) {
	t.Parallel()
	const users = 6
	var mu sync.Mutex
	var got []*http.Request
	url := fake(t, func(p *peer) {
		r := p.request()
		mu.Lock()
		got = append(got, r)
		mu.Unlock()
		first, _, _ := strings.Cut(r.Header.Get("Sec-WebSocket-Protocol"), ",")
		p.send([]byte(strings.Replace(accept(r), "Upgrade: websocket", "Sec-WebSocket-Protocol: "+first+"\r\nUpgrade: websocket", 1)))
		p.rest()
	})
	g := groupOf(users, url+`room/{{.Conn}}?name={{line "names"}}`)
	g.Headers = []plan.Header{
		{Name: "Authorization", Value: text(`Basic {{base64 "user{{.Conn}}:secret"}}`)}, {Name: "Cookie", Value: text("group={{.Group}}; id={{uuid}}")},
	}
	g.Subprotocols = []*plan.Text{text("v{{.Conn}}"), text("chat")}
	p := planOf(g)
	p.Files = map[string][]string{"names": {"ada", "bob", "eve"}}
	res := runPlan(t, Config{Workers: 2, Plan: p, First: 100})
	if !res.OK() || len(got) != users {
		t.Fatalf("OK is %v, %d requests, errors %v", res.OK(), len(got), res.Errors)
	}
	cookies := map[string]bool{}
	for _, r := range got {
		user, password, _ := r.BasicAuth()
		var n int
		_, _ = fmt.Sscanf(user, "user%d", &n)
		cookie := r.Header.Get("Cookie")
		cookies[cookie] = true
		if n < 100 || n >= 100+users || password != "secret" || r.RequestURI != fmt.Sprintf("/room/%d?name=%s", n, p.Files["names"][n%3]) ||
			r.Header.Get("Sec-WebSocket-Protocol") != fmt.Sprintf("v%d, chat", n) || !strings.HasPrefix(cookie, "group=users; id=") || len(cookie) != len("group=users; id=")+36 {
			t.Errorf("%s of %s:%s, %v", r.RequestURI, user, password, r.Header)
		}
	}
	if len(cookies) != users {
		t.Errorf("%d cookies of %d users", len(cookies), users)
	}
}

// A group's time for handshakes is its own.
func TestEachGroupHasItsTimeout(t *testing.T) {
	t.Parallel()
	silent := fake(t, func(p *peer) { _, _ = io.Copy(io.Discard, p.in) })
	late := fake(t, func(p *peer) {
		r := p.request()
		time.Sleep(time.Second) // the server is late on purpose
		p.send([]byte(accept(r)))
		p.rest()
	})
	hasty, patient := groupOf(3, silent), groupOf(2, late)
	hasty.Name, hasty.Timeout = "hasty", 100*time.Millisecond
	p := planOf(hasty)
	p.Groups = append(p.Groups, patient)
	res := runPlan(t, Config{Workers: 1, Plan: p})
	expectCounts(t, res, map[measure.Counter]int{measure.Connected: 2, measure.TimedOut: 3})
}

// Users of several groups connect in several ramps, at rates that all workers have together.
func TestUsersConnectInParts(t *testing.T) {
	t.Parallel()
	var arrived [2]atomic.Int64
	server := func(i int) string {
		return fake(t, func(p *peer) { arrived[i].Add(1); p.open(); p.rest() })
	}
	one, two := groupOf(60, server(0)), groupOf(30, server(1))
	one.Name = "one"
	after := map[string][2]int64{}
	p := &plan.Plan{Groups: []plan.Group{one, two}, Phases: []plan.Phase{
		{Name: "ten", Kind: plan.Ramp, Users: 10, Rate: 100, Groups: []string{"one"}},
		{Name: "half", Kind: plan.Ramp, Users: 35, Rate: 500},
		{Name: "rest", Kind: plan.Ramp, Rate: 500},
		{Name: "hold", Kind: plan.Hold, For: time.Millisecond},
	}}
	res := runPlan(t, Config{Workers: 4, Plan: p, Sinks: []measure.Sink{measure.Funcs{
		OnPhase: func(name string) { after[name] = [2]int64{arrived[0].Load(), arrived[1].Load()} },
	}}})
	expectCounts(t, res, map[measure.Counter]int{measure.Connected: 90})
	if got := after["half"]; got != [2]int64{10, 0} {
		t.Errorf("after ten: %v", got)
	}
	if got := after["rest"]; got[0]+got[1] != 45 || got[1] < 8 {
		t.Errorf("after half: %v", got)
	}
	if got := after["hold"]; got != [2]int64{60, 30} || !res.OK() {
		t.Errorf("OK is %v, in the end %v", res.OK(), got)
	}
	for i, least := range []float64{0.06, 0.05, 0.07} { // each worker's last is due somewhat earlier
		if s := res.Phases[i].Seconds; s < least {
			t.Errorf("%s took %v s", res.Phases[i].Name, s)
		}
	}
}

// Streams of one user each find users that have none, though workers have few, and keep to their rates.
func TestEachStreamFindsFreeUsers(t *testing.T) {
	t.Parallel()
	var talking atomic.Int64
	url := fake(t, func(p *peer) {
		p.open()
		if n := len(p.rest()); n > 0 {
			talking.Add(1)
		}
	})
	var streams []plan.Stream
	for range 4 {
		streams = append(streams, plan.Stream{Users: 1, Rate: 100, Message: plan.Message{Text: text("x")}})
	}
	res := runPlan(t, Config{Workers: 2, Plan: planOf(groupOf(4, url), plan.Phase{Name: "talk", Kind: plan.Talk, For: 400 * time.Millisecond, Streams: streams})})
	if n := counted(res, measure.Told); n > 4*41 || n < 100 || talking.Load() != 4 || !res.OK() {
		t.Errorf("%d messages of %d users, of 160 by 4; OK is %v", n, talking.Load(), res.OK())
	}
}

// All users may churn again and again. Each comes back, from its own port.
func TestChurnLosesNobody(t *testing.T) {
	t.Parallel()
	const users = 20
	g := groupOf(users, echoes(t))
	g.Reconnect = true
	p := planOf(g,
		plan.Phase{Name: "churn", Kind: plan.Churn, Rate: 200, For: 700 * time.Millisecond},
		plan.Phase{Name: "storm", Kind: plan.Storm, Rate: 200},
		plan.Phase{Name: "half", Kind: plan.Storm, Users: users / 2},
		plan.Phase{Name: "leave", Kind: plan.Drain, Users: users / 4, Rate: 100},
		plan.Phase{Name: "hold", Kind: plan.Hold, For: 200 * time.Millisecond},
	)
	res := runPlan(t, Config{Workers: 3, Plan: p})
	left, recalled, returned := counted(res, measure.Left), counted(res, measure.Recalled), counted(res, measure.Returned)
	if recalled < users+users/2+50 || returned != recalled || left != recalled+users/4 || res.Open != users-users/4 || res.Gone != users/4 || !res.OK() {
		t.Errorf("OK is %v, %d open, %d left, %d recalled, %d returned, errors %v", res.OK(), res.Open, left, recalled, returned, res.Errors)
	}
	storm := res.Phases[2]
	if storm.Counts[measure.Recalled] != users || storm.Seconds < 0.09 {
		t.Errorf("a storm of %d at 200 a second took %v s", storm.Counts[measure.Recalled], storm.Seconds)
	}
	if res.Phases[4].Counts[measure.Left] != users/4 || res.Phases[5].Counts[measure.Connected] != 0 {
		t.Errorf("drained users came back: %v", res.Phases[5].Counts)
	}
}

// A publish that has a time ends with it, and misses nothing that was sent.
func TestAPublishEndsInTime(t *testing.T) {
	t.Parallel()
	const users = 3
	url := chats(t)
	res := runPlan(t, Config{Workers: 2, Plan: planOf(groupOf(users, url),
		plan.Phase{Name: "publish", Kind: plan.Publish, Rate: 50, Count: 1_000_000, For: 300 * time.Millisecond},
		plan.Phase{Name: "again", Kind: plan.Publish, Count: 2},
	)})
	sent := counted(res, measure.Sent)
	if !res.OK() || sent < 5 || sent > 1000 || counted(res, measure.Received) != users*sent {
		t.Errorf("OK is %v, %d lost, counts %v", res.OK(), res.Lost, res.Counts)
	}
}
