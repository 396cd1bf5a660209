package agent

import (
	"encoding/json"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/seed-134acfd0/lull/loadgen/measure"
	"github.com/seed-134acfd0/lull/loadgen/plan"
	"github.com/seed-134acfd0/lull/loadgen/result"
)

var noon = time.Date(2030, 1, 1, 12, 0, 0, 0, time.UTC)

// twoMembers is a run of two machines with 10 users each.
func twoMembers(t testing.TB) *run {
	t.Helper()
	p := load(20)
	machines := []plan.Machine{{Cores: 1, Users: 100}, {Cores: 1, Users: 100}}
	shares, err := plan.Split(p, machines)
	if err != nil {
		t.Fatal(err)
	}
	r := newRun("r", p, nil)
	for i, id := range []string{"a", "b"} {
		m := newMember(Machine{ID: id, Name: id, Machine: machines[i]}, noon)
		m.share = shares[i]
		r.members = append(r.members, m)
	}
	label(r.members)
	r.start(noon)
	return r
}

// connected is a snapshot of n connections, with as many times.
func connected(n int) *measure.Snapshot {
	s := &measure.Snapshot{Open: n}
	s.Counts[measure.Connected] = uint64(n)
	for range n {
		s.Times.Record(measure.Handshake, time.Millisecond)
	}
	return s
}

func TestPhasesBeginWhenAllWait(t *testing.T) {
	r := twoMembers(t)
	a, b := r.members[0], r.members[1]
	b.clock = Clock{Offset: time.Hour, Trip: time.Second}
	if err := a.take(&report{Number: 1, Waiting: 0}, noon); err != nil || r.ready() {
		t.Fatal(err, "one is missing")
	}
	if err := b.take(&report{Number: 1, Waiting: 0}, noon); err != nil || !r.ready() {
		t.Fatal(err, "all wait")
	}
	r.advance(noon)
	if r.ready() {
		t.Error("the next phase may begin at once")
	}
	first, second := r.orders(a), r.orders(b)
	if first.Go != 0 || time.Duration(second.At-first.At) != time.Hour || first.At < noon.Add(b.clock.Trip).UnixNano() {
		t.Errorf("orders %+v and %+v", first, second)
	}
	// A lost one is not waited for.
	if err := a.take(&report{Number: 2, Waiting: 1}, noon); err != nil || r.ready() {
		t.Fatal(err, "one is missing")
	}
	if silent := r.silent(noon.Add(agentPatience)); len(silent) != 0 {
		t.Errorf("%d are silent too early", len(silent))
	}
	a.heard = noon.Add(time.Second)
	if silent := r.silent(noon.Add(agentPatience + 1)); !slices.Equal(silent, []*member{b}) {
		t.Errorf("%d are silent", len(silent))
	}
	r.lose(b, "gone")
	if !r.ready() || !strings.Contains(r.orders(b).Over, "gone") {
		t.Error("it is waited for")
	}
}

func TestReportsCountOnce(t *testing.T) {
	r := twoMembers(t)
	a := r.members[0]
	take := func(in report) {
		t.Helper()
		if err := a.take(&in, noon); err != nil {
			t.Fatal(err)
		}
	}
	take(report{Number: 1, Batch: 1, Waiting: -1, Snapshot: connected(3)})
	take(report{Number: 2, Batch: 1, Waiting: -1, Snapshot: connected(3)}) // its answer was lost
	take(report{Number: 4, Batch: 2, Waiting: 1, Snapshot: connected(5)})
	take(report{Number: 3, Batch: 1, Waiting: -1, Snapshot: connected(3)}) // it comes late
	if a.waiting != 1 || a.latest.Open != 5 {
		t.Errorf("waiting %d, %d open", a.waiting, a.latest.Open)
	}
	r.advance(noon)
	s := r.snapshot(noon)
	if n := s.Times.Of(measure.Handshake).TotalCount(); n != 8 || s.Counts[measure.Connected] != 5 || s.Open != 5 || s.Users != 20 {
		t.Errorf("%d times, %+v", n, s)
	}
	if n := r.snapshot(noon).Times.Of(measure.Handshake).TotalCount(); n != 0 {
		t.Errorf("%d times are there again", n)
	}
}

// What was timed arrives once, whatever reports and answers are lost.
func TestWhatWasTimedArrivesOnce(t *testing.T) {
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 1))
		d := newDuty(&agent{}, "r")
		m := newMember(Machine{}, noon)
		recorded := int64(0)
		step := func(lost func() bool) {
			r := d.next()
			if lost() {
				return
			}
			if r.Snapshot != nil {
				s := *r.Snapshot
				r.Snapshot = &s
			}
			if err := m.take(&r, noon); err != nil {
				t.Fatal(err)
			}
			if !lost() {
				d.confirm(r)
			}
		}
		for range 50 {
			if rng.IntN(2) == 0 {
				s := connected(rng.IntN(4))
				recorded += s.Times.Of(measure.Handshake).TotalCount()
				sink{d}.Snapshot(s)
			}
			step(func() bool { return rng.IntN(3) == 0 })
		}
		for range 2 {
			step(func() bool { return false })
		}
		if got := m.all.Of(measure.Handshake).TotalCount(); got != recorded {
			t.Fatalf("seed %d: %d of %d arrived", seed, got, recorded)
		}
	}
}

// Nobody hears that an engine waits or has ended before what it timed until then.
func TestTheEndComesAfterWhatWasTimed(t *testing.T) {
	d := newDuty(&agent{}, "r")
	sink{d}.Snapshot(connected(1))
	d.next() // is lost
	sink{d}.Snapshot(connected(2))
	d.waiting, d.result, d.failure = 1, cut([]byte("x")), "failed"
	if r := d.next(); r.Waiting != -1 || r.Part != nil || r.Error != "" {
		t.Errorf("it says %+v", r)
	} else {
		d.confirm(r)
	}
	if !d.unsaid() {
		t.Error("nothing remains to be said")
	}
	r := d.next()
	if r.Waiting != 1 || r.Part == nil || r.Error == "" || r.Snapshot.Times.Of(measure.Handshake).TotalCount() != 2 {
		t.Errorf("it says %+v", r)
	}
	if d.confirm(r); d.unsaid() {
		t.Error("something remains to be said")
	}
}

func TestOldOrdersDoNotCount(t *testing.T) {
	d := newDuty(&agent{}, "r")
	d.obey(orders{Run: "r", Number: 2, Paused: true})
	d.obey(orders{Run: "r", Number: 1})
	d.obey(orders{Run: "other", Number: 3})
	if !d.orders.Paused {
		t.Error("older orders, or those of another run, were obeyed")
	}
}

func TestAMembersRateIsItsPartOfThePhase(t *testing.T) {
	r := twoMembers(t)
	r.rate, r.rates = 100, 1
	for i, want := range []float64{0: 50, 1: 50, 3: 50} {
		r.phase = i
		if i == 2 {
			continue
		}
		if got := r.orders(r.members[0]).Rate; got != want {
			t.Errorf("in phase %d the rate is %g, not %g", i, got, want)
		}
	}
	r.phase = 2 // one publishes
	if a, b := r.orders(r.members[0]).Rate, r.orders(r.members[1]).Rate; a != 100 || b != rateOfOthers {
		t.Errorf("rates %g and %g", a, b)
	}
}

// Messages that a lost machine should have received are lost.
func TestWhatALostMachineShouldReceiveIsLost(t *testing.T) {
	r := twoMembers(t)
	a := r.members[0]
	if err := a.take(&report{Number: 1, Batch: 1, Snapshot: connected(10)}, noon); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		r.advance(noon) // the third one publishes 7 messages
	}
	s := connected(10)
	s.Counts[measure.Received] = 30
	if err := a.take(&report{Number: 2, Batch: 2, Snapshot: s}, noon); err != nil {
		t.Fatal(err)
	}
	if got := a.missing(); got != 40 {
		t.Errorf("%d are missing, not 40", got)
	}
	r.advance(noon)
	if got := a.missing(); got != 40 {
		t.Errorf("then %d are missing", got)
	}
}

func TestWhatAMemberSaysIsFitForATerminal(t *testing.T) {
	r := twoMembers(t)
	a := r.members[0]
	s := connected(1)
	s.Limited = []string{"\x1b[2Jclear"}
	s.Errors = []measure.Found{{Error: measure.Error{Text: "a\rb"}, Count: 1}}
	if err := a.take(&report{Number: 1, Snapshot: s}, noon); err != nil {
		t.Fatal(err)
	}
	if a.latest.Limited[0] != "a: [2Jclear" || a.latest.Errors[0].Text != "ab" {
		t.Errorf("%q %v", a.latest.Limited, a.latest.Errors)
	}
	if err := a.take(&report{Number: 2, Error: "no\x1b route"}, noon); err == nil || !strings.HasSuffix(err.Error(), "no route") {
		t.Errorf("%v", err)
	}
}

// If the machine that was to publish is lost, another one does.
func TestAnotherMachinePublishes(t *testing.T) {
	r := twoMembers(t)
	publisher := 0
	if r.members[0].part(2).Listen {
		publisher = 1
	}
	r.phase = 1
	r.lose(r.members[publisher], "gone")
	r.advance(noon)
	other := r.members[1-publisher]
	o := r.orders(other)
	if o.Publisher != other.ID {
		t.Fatalf("%q publishes", o.Publisher)
	}
	// The other one learns of it at the barrier.
	d := newDuty(&agent{Config: Config{Machine: Machine{ID: other.ID}, Clock: time.Now}}, "r")
	d.ready, d.share = &job{Plan: r.plan}, plan.Share{Plan: &plan.Plan{Phases: slices.Clone(other.share.Plan.Phases)}}
	d.share.Plan.Phases[2].Listen = true
	o.At = 0
	d.obey(o)
	if err := d.barrier(t.Context(), 2); err != nil || d.share.Plan.Phases[2].Listen {
		t.Errorf("it listens: %v", err)
	}
}

// publishing are two members of a run, one of which publishes while the other one listens.
func publishing(t *testing.T) (r *run, publisher, listener *member) {
	t.Helper()
	r = twoMembers(t)
	for range 3 {
		r.advance(noon)
	}
	publisher, listener = r.find(r.publisher), r.members[0]
	if listener == publisher {
		listener = r.members[1]
	}
	return r, publisher, listener
}

// Those who listen are told that the publisher is lost, in its phase and in no other.
func TestALostPublisherIsTold(t *testing.T) {
	r, publisher, listener := publishing(t)
	if r.orders(listener).Orphaned {
		t.Error("it is lost already")
	}
	r.lose(publisher, "gone")
	if o := r.orders(listener); !o.Orphaned || o.Go != 2 {
		t.Errorf("orders %+v", o)
	}
	r.advance(noon)
	if o := r.orders(listener); o.Orphaned {
		t.Errorf("then orders %+v", o)
	}
}

// Where the publisher ends early, nobody expects what it did not publish.
func TestWhatWasNotPublishedIsNotLost(t *testing.T) {
	r, publisher, listener := publishing(t)
	// Of 7 messages 3 were published, to 10 users each, and one receiver missed one.
	var sent measure.Counts
	sent[measure.Sent] = 3
	publisher.result = &result.Result{Phases: []result.Phase{{Name: "publish", Counts: sent}}, Broadcasts: []result.Broadcast{{Phase: "publish", Messages: 3, Expected: 30, Received: 30}}}
	listener.result = &result.Result{Broadcasts: []result.Broadcast{{Phase: "publish", Messages: 7, Expected: 70, Received: 29}}, Lost: 41}
	all := r.merge(&result.Result{})
	if b := all.Broadcasts; len(b) != 1 || b[0].Messages != 3 || b[0].Expected != 60 || b[0].Received != 59 || all.Lost != 1 {
		t.Errorf("%d lost, %+v", all.Lost, b)
	}
}

// Whatever an agent reports, the coordinator goes on.
func FuzzReports(f *testing.F) {
	s := connected(3)
	s.Limited, s.Errors = []string{"a"}, []measure.Found{{Error: measure.Error{Counter: "reset", Text: "b"}, Count: 2}}
	b := result.NewBuilder(result.Run{})
	b.Phase("ramp")
	b.Snapshot(s)
	b.Burst(result.Burst{Messages: 7, Expected: 3, Received: 2, Took: time.Second})
	b.Talk(result.Talk{Active: 1, Flooding: 1, Messages: 3, Took: time.Second})
	text, err := json.Marshal(b.Result(result.End{}))
	if err != nil {
		f.Fatal(err)
	}
	for _, r := range []report{{Number: 1, Batch: 1, Waiting: 0, Snapshot: s}, {Number: 1, Error: "x"}, {Number: 1, Part: &cut(text)[0]}} {
		seed, err := encode(r)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r := twoMembers(t)
		var in report
		if decode(b, &in) != nil {
			return
		}
		m := r.members[0]
		if err := m.take(&in, noon); err != nil {
			r.lose(m, err.Error())
		}
		r.advance(noon)
		if _, err := encode(r.orders(m)); err != nil {
			t.Error(err)
		}
		all := result.NewBuilder(r.about())
		all.Phase(r.phaseName())
		all.Snapshot(r.snapshot(noon.Add(time.Second)))
		r.lose(r.members[1], "gone")
		if _, err := json.Marshal(r.merge(all.Result(result.End{}))); err != nil {
			t.Error(err)
		}
	})
}
