package plan

import (
	"errors"
	"fmt"
	"math"
	"math/bits"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Machine is what a machine can carry out of a plan.
type Machine struct {
	Cores int // processors; at least 1
	Users int // the most that its memory and its descriptors hold
	Ports int // the most connections that its source addresses make to one target; 0 is no limit
}

// Share is a machine's part of a plan.
type Share struct {
	Plan  *Plan // without thresholds, which are about the whole
	First int   // number of the machine's first user among those of all machines
	Users int   // 0 if there are fewer users than machines
}

// Split divides a plan among machines: in proportion to their processors, but none gets
// more users than it holds. What the shares have of users, rates and counts adds up to
// exactly what the plan has. One machine publishes, and the users of the others
// listen. A phase in which a machine has no part is a short [Finish] there, so that the
// phases of all machines have the same names and numbers.
//
// The shares have templates, scripts and files in common with p, and may only be read.
// An error says how many users the machines hold, if they cannot hold all.
func Split(p *Plan, machines []Machine) ([]Share, error) {
	if len(machines) > 1 && slices.ContainsFunc(p.Groups, func(g Group) bool { return g.Rooms > 0 }) {
		return nil, errors.New("plan: groups in rooms are not divided among machines")
	}
	totals, err := populate(p, machines)
	if err != nil {
		return nil, err
	}
	shares := make([]Share, len(machines))
	users := spread(p, totals)
	first := 0
	for i := range shares {
		part := *p
		part.Expect = nil
		part.Groups = append([]Group(nil), p.Groups...)
		for g := range part.Groups {
			part.Groups[g].Users = users[i][g]
		}
		part.Phases = make([]Phase, 0, len(p.Phases))
		shares[i] = Share{Plan: &part, First: first, Users: totals[i]}
		first += totals[i]
	}
	s := splitter{plan: p, users: users, away: clone(users), connected: zeros(users)}
	for _, phase := range p.Phases {
		for i, part := range s.phase(phase) {
			shares[i].Plan.Phases = append(shares[i].Plan.Phases, part)
		}
	}
	return shares, nil
}

// populate says how many users each machine gets.
func populate(p *Plan, machines []Machine) ([]int, error) {
	wanted := p.Users()
	targets, local := p.targets()
	room, all := make([]int, len(machines)), 0
	for i, m := range machines {
		room[i] = min(m.Users, UsersMax)
		if m.Ports > 0 && !local {
			room[i] = min(room[i], m.Ports*targets)
		}
		all += room[i]
	}
	if all < wanted {
		return nil, fmt.Errorf("plan: %d machines hold %d users together, and there are %d: more machines are needed, more source addresses, or more memory", len(machines), all, wanted)
	}
	got := make([]int, len(machines))
	for left := wanted; left > 0; {
		weights := make([]int, len(machines)) // processors of those that have room
		for i, m := range machines {
			if got[i] < room[i] {
				weights[i] = max(1, m.Cores)
			}
		}
		for i, n := range divide(left, weights) {
			n = min(n, room[i]-got[i])
			got[i] += n
			left -= n
		}
	}
	return got, nil
}

// spread says how many users of each group each machine gets: got[machine][group].
func spread(p *Plan, totals []int) [][]int {
	users := make([][]int, len(totals))
	left := append([]int(nil), totals...)
	for _, group := range p.Groups {
		for i, n := range divide(group.Users, left) {
			users[i] = append(users[i], n)
			left[i] -= n
		}
	}
	return users
}

// targets is how many addresses the URLs lead to, and whether all are on the loopback
// interface, where a machine has as many source addresses as it takes.
func (p *Plan) targets() (n int, local bool) {
	seen := map[string]bool{}
	local = true
	for _, g := range p.Groups {
		for _, u := range g.URLs {
			_, rest, _ := strings.Cut(u.String(), "://")
			host, _, _ := strings.Cut(rest, "/")
			seen[host] = true
			local = local && loopback(host)
		}
	}
	return max(1, len(seen)), local
}

// loopback reports whether a host, with or without a port, is this machine.
func loopback(host string) bool {
	name, _, _ := strings.Cut(host, ":")
	addr, err := netip.ParseAddr(name)
	return name == "localhost" || err == nil && addr.IsLoopback() || strings.HasPrefix(host, "[::1]")
}

// splitter divides phases. Its tables are of [machine][group].
type splitter struct {
	plan      *Plan
	users     [][]int
	away      [][]int // users that have not been told to connect
	connected [][]int // users that have, and were not drained since
}

// phase divides a phase: one part for each machine.
func (s *splitter) phase(p Phase) []Phase {
	switch p.Kind {
	case Ramp:
		before := clone(s.away)
		parts := s.some(p, s.take(s.away, p.Users, p.Groups))
		for i := range s.away {
			for g := range s.away[i] {
				s.connected[i][g] += before[i][g] - s.away[i][g]
			}
		}
		return parts
	case Drain:
		return s.some(p, s.take(s.connected, p.Users, p.Groups))
	case Churn:
		return s.some(p, s.in(s.connected, p.Groups))
	case Storm:
		return s.some(p, s.take(clone(s.connected), p.Users, p.Groups))
	case Talk:
		return s.talk(p)
	case Publish:
		return s.publish(p)
	}
	parts := make([]Phase, len(s.users))
	for i, n := range s.in(s.connected, nil) {
		if parts[i] = p; n == 0 { // its users come later, and a hold is of users
			parts[i].Kind = Finish
		}
	}
	return parts
}

// some divides a phase among machines by how many users each has in it.
func (s *splitter) some(p Phase, users []int) []Phase {
	rates := divideRate(p.Rate, users)
	parts := make([]Phase, len(users))
	for i, n := range users {
		parts[i] = p
		parts[i].Rate = rates[i]
		if p.Users > 0 {
			parts[i].Users = n
		}
		if n == 0 {
			parts[i] = idle(p)
		}
	}
	return parts
}

// listenFor is how much longer machines listen than one publishes that ends after a time.
const listenFor = 5 * time.Second

// publish makes the machine with most users that read publish, and the others listen.
func (s *splitter) publish(p Phase) []Phase {
	users := s.in(s.connected, p.Groups)
	deaf := divide(p.Deaf, users)
	parts, sender := make([]Phase, len(users)), 0
	for i, n := range users {
		if n > 0 && (users[sender] == 0 || n-deaf[i] > users[sender]-deaf[sender]) {
			sender = i
		}
		parts[i] = p
		parts[i].Listen, parts[i].Probe, parts[i].Deaf = true, 0, deaf[i]
		if p.For > 0 {
			parts[i].For += listenFor
		}
		if n == 0 {
			parts[i] = idle(p)
		}
	}
	parts[sender] = p
	parts[sender].Deaf = deaf[sender]
	return parts
}

// talk divides each stream. A machine has those in which its users have a part. A
// probe is one connection, so one machine has it.
func (s *splitter) talk(p Phase) []Phase {
	parts := make([]Phase, len(s.users))
	for i := range parts {
		parts[i] = p
		parts[i].Streams, parts[i].Probe = nil, 0
	}
	free := clone(s.connected)
	for _, stream := range p.Streams {
		users := s.take(free, stream.Users, stream.Groups)
		rates := divideRate(stream.Rate, users)
		for i, n := range users {
			if n == 0 {
				continue
			}
			part := stream
			part.Rate = rates[i]
			if stream.Users > 0 {
				part.Users = n
			}
			parts[i].Streams = append(parts[i].Streams, part)
		}
	}
	probe := p.Probe
	for i := range parts {
		if len(parts[i].Streams) == 0 {
			parts[i] = idle(p)
			continue
		}
		parts[i].Probe, probe = probe, 0
	}
	return parts
}

// idle is the phase of a machine that has no part in p, and may have no users yet.
func idle(p Phase) Phase {
	return Phase{Name: p.Name, Kind: Finish, For: TimeMin, Line: p.Line}
}

// on lists the groups that have one of the names, by index; all if there is no name.
func (s *splitter) on(names []string) (groups []int) {
	for g, group := range s.plan.Groups {
		if len(names) == 0 || slices.Contains(names, group.Name) {
			groups = append(groups, g)
		}
	}
	return groups
}

// in is how many users of some groups each machine has in a table.
func (s *splitter) in(table [][]int, names []string) []int {
	sums := make([]int, len(table))
	for i := range table {
		for _, g := range s.on(names) {
			sums[i] += table[i][g]
		}
	}
	return sums
}

// take takes a number of users of some groups from a table, 0 is all that are left,
// and returns how many of each machine.
func (s *splitter) take(table [][]int, n int, names []string) []int {
	left := s.in(table, names)
	taken := left
	if n > 0 {
		taken = divide(n, left)
	}
	groups := s.on(names)
	for i := range table {
		have := make([]int, len(groups))
		for j, g := range groups {
			have[j] = table[i][g]
		}
		for j, n := range divide(min(taken[i], left[i]), have) {
			table[i][groups[j]] -= n
		}
	}
	return taken
}

// divide divides a number in proportion to weights. The parts add up to it, and each is
// its exact share, rounded up or down. So no part is greater than its weight,
// unless the number is greater than all weights together. Without any weight the
// first gets all.
func divide(n int, weights []int) []int {
	parts := make([]int, len(weights))
	var sum, before, given uint64
	for _, w := range weights {
		sum += uint64(w)
	}
	if sum == 0 {
		if len(parts) > 0 {
			parts[0] = n
		}
		return parts
	}
	for i, w := range weights {
		before += uint64(w)
		high, low := bits.Mul64(uint64(n), before)
		until, _ := bits.Div64(high, low, sum)
		parts[i] = int(until - given)
		given = until
	}
	return parts
}

// divideRate divides a rate in proportion to weights. Its mantissa is divided, which is
// a whole number, so that the parts add up exactly.
func divideRate(rate float64, weights []int) []float64 {
	const mantissa = 53 // bits
	fraction, exponent := math.Frexp(rate)
	parts := make([]float64, len(weights))
	for i, n := range divide(int(math.Ldexp(fraction, mantissa)), weights) {
		parts[i] = math.Ldexp(float64(n), exponent-mantissa)
	}
	return parts
}

func clone(table [][]int) [][]int {
	copied := make([][]int, len(table))
	for i, row := range table {
		copied[i] = append([]int(nil), row...)
	}
	return copied
}

func zeros(table [][]int) [][]int {
	made := make([][]int, len(table))
	for i, row := range table {
		made[i] = make([]int, len(row))
	}
	return made
}
