package plan

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// groupsOf are groups of so many users each, called a, b, c, with a remote server.
func groupsOf(users ...int) (groups []Group) {
	for i, n := range users {
		groups = append(groups, Group{Name: string(rune('a' + i)), Users: n, URLs: []*Text{Plain("ws://10.0.0.1:8080/")}})
	}
	return groups
}

func TestUsersGoWhereProcessorsAreAndRoomIs(t *testing.T) {
	const many = 1 << 30
	for _, test := range []struct {
		name     string
		users    []int // of groups
		machines []Machine
		want     []int
	}{
		{"alike", []int{10}, []Machine{{Cores: 1, Users: many}, {Cores: 1, Users: many}}, []int{5, 5}},
		{"by processors", []int{90}, []Machine{{Cores: 8, Users: many}, {Cores: 1, Users: many}}, []int{80, 10}},
		{"a small memory", []int{100}, []Machine{{Cores: 4, Users: 10}, {Cores: 4, Users: many}}, []int{10, 90}},
		{"few ports", []int{100}, []Machine{{Cores: 4, Users: many, Ports: 20}, {Cores: 4, Users: many}}, []int{20, 80}},
		{"just enough", []int{7, 8}, []Machine{{Cores: 1, Users: 5}, {Cores: 9, Users: 10}}, []int{5, 10}},
		{"more machines than users", []int{1, 1}, []Machine{{Cores: 1, Users: many}, {Cores: 1, Users: many}, {Cores: 1, Users: many}}, []int{0, 1, 1}},
		{"one", []int{3, 4}, []Machine{{Cores: 1, Users: many}}, []int{7}},
	} {
		t.Run(test.name, func(t *testing.T) {
			shares, err := Split(&Plan{Groups: groupsOf(test.users...)}, test.machines)
			if err != nil {
				t.Fatal(err)
			}
			var got []int
			for _, s := range shares {
				got = append(got, s.Users)
			}
			if !slices.Equal(got, test.want) {
				t.Errorf("%v, not %v", got, test.want)
			}
		})
	}
}

func TestTooManyUsersAreRefused(t *testing.T) {
	p := &Plan{Groups: groupsOf(101)}
	machines := []Machine{{Cores: 1, Users: 50}, {Cores: 64, Users: 1000, Ports: 50}}
	if _, err := Split(p, machines); err == nil || !strings.Contains(err.Error(), "100 users together, and there are 101") {
		t.Errorf("%v", err)
	}
	if _, err := Split(p, nil); err == nil {
		t.Error("no machine holds all")
	}
	// A second target doubles what ports allow; on the loopback interface they do not count.
	p.Groups[0].URLs = append(p.Groups[0].URLs, Plain("ws://10.0.0.1:8081/"))
	if _, err := Split(p, machines); err != nil {
		t.Error(err)
	}
	p.Groups[0].URLs = []*Text{Plain("ws://127.0.0.1:8080/"), Plain("ws://localhost/x"), Plain("ws://[::1]:80/")}
	if _, err := Split(p, machines); err != nil {
		t.Error(err)
	}
}

// Who is in a room with whom is not divided.
func TestRoomsAreNotDivided(t *testing.T) {
	p := &Plan{Groups: groupsOf(10)}
	p.Groups[0].Rooms = 2
	for machines, want := range map[int]bool{1: true, 2: false} {
		if _, err := Split(p, slices.Repeat([]Machine{{Cores: 1, Users: 100}}, machines)); (err == nil) != want {
			t.Errorf("%d machines: %v", machines, err)
		}
	}
}

func TestPhasesAreDivided(t *testing.T) {
	p := &Plan{
		Groups: groupsOf(40, 20),
		Expect: []Threshold{{Figure: "lost"}},
		Phases: []Phase{
			{Name: "some", Kind: Ramp, Users: 30, Rate: 3},
			{Name: "rest", Kind: Ramp, Rate: 9},
			{Name: "hold", Kind: Hold, For: time.Second},
			{Name: "publish", Kind: Publish, Count: 5, Burst: 2, Rate: 1, Deaf: 6, Probe: time.Millisecond},
			{Name: "talk", Kind: Talk, Streams: []Stream{{Users: 3, Rate: 30}, {Groups: []string{"b"}}}, Probe: time.Millisecond},
			{Name: "one", Kind: Talk, Streams: []Stream{{Users: 1, Groups: []string{"b"}}}},
			{Name: "storm", Kind: Storm, Rate: 6},
			{Name: "churn", Kind: Churn, Rate: 1.5, For: time.Second},
			{Name: "drain", Kind: Drain, Users: 30},
		},
	}
	shares, err := Split(p, []Machine{{Cores: 1, Users: 100}, {Cores: 2, Users: 100}})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for i, phase := range shares[0].Plan.Phases {
		other := shares[1].Plan.Phases[i]
		for _, x := range []Phase{phase, other} {
			line := fmt.Sprintf("%s %s users=%d rate=%g", x.Name, x.Kind, x.Users, x.Rate)
			if x.Kind == Publish {
				line += fmt.Sprintf(" count=%d deaf=%d listen=%v", x.Count, x.Deaf, x.Listen)
			}
			for _, stream := range x.Streams {
				line += fmt.Sprintf(" stream users=%d rate=%g", stream.Users, stream.Rate)
			}
			if x.Probe > 0 {
				line += " probe"
			}
			got = append(got, line)
		}
	}
	want := []string{
		"some ramp users=10 rate=1", "some ramp users=20 rate=2",
		"rest ramp users=0 rate=3", "rest ramp users=0 rate=6",
		"hold hold users=0 rate=0", "hold hold users=0 rate=0",
		"publish publish users=0 rate=1 count=5 deaf=2 listen=true", "publish publish users=0 rate=1 count=5 deaf=4 listen=false probe",
		"talk talk users=0 rate=0 stream users=1 rate=10 stream users=0 rate=0 probe", "talk talk users=0 rate=0 stream users=2 rate=20 stream users=0 rate=0",
		"one finish users=0 rate=0", "one talk users=0 rate=0 stream users=1 rate=0",
		"storm storm users=0 rate=2", "storm storm users=0 rate=4",
		"churn churn users=0 rate=0.5", "churn churn users=0 rate=1",
		"drain drain users=10 rate=0", "drain drain users=20 rate=0",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if shares[0].Plan.Expect != nil || shares[1].First != 20 {
		t.Errorf("thresholds %v; the second begins at user %d", shares[0].Plan.Expect, shares[1].First)
	}
}

// Whatever the plan and the machines: nothing is lost and nothing is done twice.
func TestSharesAddUpToThePlan(t *testing.T) {
	kinds := []Kind{Ramp, Hold, Churn, Publish, Talk, Storm, Drain, Finish}
	for seed := range uint64(3000) {
		r := rand.New(rand.NewPCG(seed, 1))
		p, machines := &Plan{Phases: []Phase{{Name: "first", Kind: Ramp, Users: 1 + r.IntN(50)}}}, []Machine{}
		for range 1 + r.IntN(5) {
			machines = append(machines, Machine{Cores: 1 + r.IntN(64), Users: 1000 + r.IntN(100_000), Ports: r.IntN(2) * 64_000})
		}
		for range 1 + r.IntN(4) {
			p.Groups = append(p.Groups, groupsOf(1+r.IntN(250))...)
		}
		for i := range p.Groups {
			p.Groups[i].Name = fmt.Sprint(i)
		}
		for i := range r.IntN(8) {
			phase := Phase{Name: fmt.Sprint(i), Kind: kinds[r.IntN(len(kinds))], Rate: r.Float64() * 1000}
			if r.IntN(2) == 0 {
				phase.Groups = []string{p.Groups[r.IntN(len(p.Groups))].Name}
			}
			switch phase.Kind {
			case Ramp, Storm, Drain:
				phase.Users = r.IntN(30)
			case Talk:
				phase.Rate, phase.Groups, phase.Probe = 0, nil, time.Second
				for range r.IntN(4) {
					phase.Streams = append(phase.Streams, Stream{Users: r.IntN(30), Rate: r.Float64(), Line: len(phase.Streams)})
				}
			case Hold, Finish:
				phase.Rate = 0
			case Publish:
				phase.Count, phase.Deaf = 1+r.IntN(100), r.IntN(3)
			}
			p.Phases = append(p.Phases, phase)
		}
		shares, err := Split(p, machines)
		if err != nil {
			t.Fatal(err)
		}
		checkShares(t, p, shares)
		if t.Failed() {
			t.Fatalf("seed %d: %+v", seed, p)
		}
	}
}

func checkShares(t *testing.T, p *Plan, shares []Share) {
	t.Helper()
	next := 0
	for _, s := range shares {
		if s.First != next || s.Users != s.Plan.Users() {
			t.Errorf("a share of %d users begins at %d instead of %d, and says that it has %d", s.Plan.Users(), s.First, next, s.Users)
		}
		next += s.Users
	}
	for g, group := range p.Groups {
		n := 0
		for _, s := range shares {
			n += s.Plan.Groups[g].Users
		}
		if n != group.Users {
			t.Errorf("group %s has %d of %d users", group.Name, n, group.Users)
		}
	}
	for i, phase := range p.Phases {
		checkPhase(t, phase, i, shares)
	}
}

func checkPhase(t *testing.T, whole Phase, index int, shares []Share) {
	t.Helper()
	var users, deaf, senders, probes, busy int
	var rate float64
	talkers, rates := make([]int, len(whole.Streams)), make([]float64, len(whole.Streams))
	for _, s := range shares {
		part := s.Plan.Phases[index]
		if part.Name != whole.Name {
			t.Errorf("phase %d is %q and %q", index, whole.Name, part.Name)
		}
		if part.Kind != whole.Kind {
			if part.Kind != Finish || part.Rate != 0 || part.Users != 0 || part.Count != 0 {
				t.Errorf("phase %s has an idle part %+v", whole.Name, part)
			}
			continue
		}
		busy++
		users += part.Users
		deaf += part.Deaf
		rate += part.Rate
		if part.Kind == Publish && !part.Listen {
			senders++
			if part.Count != whole.Count || part.Rate != whole.Rate {
				t.Errorf("phase %s publishes %d at %g", whole.Name, part.Count, part.Rate)
			}
		}
		if part.Probe > 0 {
			probes++
		}
		for _, stream := range part.Streams {
			if whole.Streams[stream.Line].Users > 0 && stream.Users == 0 || stream.Rate == 0 {
				t.Errorf("phase %s has a stream without bounds: %+v", whole.Name, stream)
			}
			talkers[stream.Line] += stream.Users
			rates[stream.Line] += stream.Rate
		}
		if whole.Rate > 0 && part.Rate == 0 || whole.Users > 0 && part.Users == 0 {
			t.Errorf("phase %s has no bounds on a machine: %+v", whole.Name, part)
		}
	}
	switch whole.Kind {
	case Talk:
		for i, stream := range whole.Streams {
			if talkers[i] != stream.Users || rates[i] != 0 && rates[i] != stream.Rate {
				t.Errorf("phase %s: stream %+v has %d users and a rate of %v", whole.Name, stream, talkers[i], rates[i])
			}
		}
	case Ramp, Churn, Storm, Drain:
		if busy > 0 && rate != whole.Rate {
			t.Errorf("phase %s has a rate of %v, not %v", whole.Name, rate, whole.Rate)
		}
	case Publish:
		if busy > 0 && (senders != 1 || deaf != whole.Deaf) {
			t.Errorf("phase %s has %d senders and %d of %d deaf", whole.Name, senders, deaf, whole.Deaf)
		}
	}
	if busy > 0 && users != whole.Users {
		t.Errorf("phase %s has %d users, not %d", whole.Name, users, whole.Users)
	}
	if probes > 1 {
		t.Errorf("phase %s is probed %d times", whole.Name, probes)
	}
}

func TestSplittingLeavesThePlanAsItIs(t *testing.T) {
	p := &Plan{Groups: groupsOf(10, 20), Phases: []Phase{{Name: "ramp", Kind: Ramp}, {Name: "drain", Kind: Drain, Users: 9}}, Expect: []Threshold{{Figure: "lost"}}}
	q := &Plan{Groups: groupsOf(10, 20), Phases: slices.Clone(p.Phases), Expect: slices.Clone(p.Expect)}
	if _, err := Split(p, []Machine{{Cores: 1, Users: 20}, {Cores: 3, Users: 20}}); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(p, q) {
		t.Errorf("%+v became %+v", q, p)
	}
}
