package plan

import (
	"fmt"
	"math/bits"
	"slices"
)

// mask is a set of groups, by their places in the plan.
type mask uint64

// of are the phases' keys, and the kinds that have them.
var of = []struct {
	key   string
	is    func(*Phase) bool
	kinds []Kind
}{
	{"for", func(p *Phase) bool { return p.For != 0 }, []Kind{Ramp, Hold, Churn, Publish, Talk, Finish}},
	{"groups", func(p *Phase) bool { return p.Groups != nil }, []Kind{Ramp, Hold, Churn, Publish, Storm, Drain, Finish}}, // streams have their own
	{"users", func(p *Phase) bool { return p.Users != 0 }, []Kind{Ramp, Storm, Drain}},
	{"rate", func(p *Phase) bool { return p.Rate != 0 }, []Kind{Ramp, Churn, Publish, Storm, Drain}},
	{"message", func(p *Phase) bool { return p.Message != Message{} }, []Kind{Publish}},
	{"count", func(p *Phase) bool { return p.Count != 0 }, []Kind{Publish}},
	{"burst", func(p *Phase) bool { return p.Burst != 0 }, []Kind{Publish}},
	{"deaf", func(p *Phase) bool { return p.Deaf != 0 }, []Kind{Publish}},
	{"listen", func(p *Phase) bool { return p.Listen }, []Kind{Publish}},
	{"streams", func(p *Phase) bool { return p.Streams != nil }, []Kind{Talk}},
	{"probe", func(p *Phase) bool { return p.Probe != 0 }, []Kind{Publish, Talk}},
}

func (c *checker) checkPhases() error {
	for i := range c.plan.Phases {
		p := &c.plan.Phases[i]
		f := &finder{p.Line, fmt.Sprintf("phase %.80q", p.Name)}
		switch {
		case p.Name == "" || len(p.Name) > NameMax || !printable(p.Name):
			return f.fault("name", "must be 1 to %d printable characters", NameMax)
		case slices.ContainsFunc(c.plan.Phases[:i], func(other Phase) bool { return other.Name == p.Name }):
			return f.fault("name", "is there twice")
		case !slices.Contains([]Kind{Ramp, Hold, Churn, Publish, Talk, Storm, Drain, Finish}, p.Kind):
			return f.fault("kind", "is %.40q: it must be ramp, hold, churn, publish, talk, storm, drain or finish", p.Kind)
		}
		for _, k := range of {
			if k.is(p) && !slices.Contains(k.kinds, p.Kind) {
				return f.fault(k.key, "is not for %s", p.Kind)
			}
		}
		groups, err := c.groupsOf(f, p.Groups)
		if err := first(err, checkNumbers(f, p)); err != nil {
			return err
		}
		if err := c.checkKind(f, p, groups); err != nil {
			return err
		}
	}
	return nil
}

// groupsOf are the groups that a phase or stream names, or all if it names none.
func (c *checker) groupsOf(f *finder, named []string) (groups mask, err error) {
	for _, name := range named {
		i := slices.IndexFunc(c.plan.Groups, func(g Group) bool { return g.Name == name })
		if i < 0 {
			var names []string
			for _, g := range c.plan.Groups {
				names = append(names, g.Name)
			}
			return 0, f.fault("groups", "has %.80q: there is no such group, but %.200q", name, names)
		}
		if groups&(1<<i) != 0 {
			return 0, f.fault("groups", "has %.80q twice", name)
		}
		groups |= 1 << i
	}
	if len(named) == 0 {
		groups = 1<<len(c.plan.Groups) - 1
	}
	return groups, nil
}

// users are how many users groups have together.
func (c *checker) users(groups mask) (n int) {
	for rest := groups; rest != 0; rest &= rest - 1 {
		n += c.plan.Groups[bits.TrailingZeros64(uint64(rest))].Users
	}
	return n
}

// having are those of groups of which something is true.
func (c *checker) having(groups mask, is func(*Group) bool) (those mask) {
	for i := range c.plan.Groups {
		if groups&(1<<i) != 0 && is(&c.plan.Groups[i]) {
			those |= 1 << i
		}
	}
	return those
}

func checkNumbers(f *finder, p *Phase) error {
	return first(
		f.rate(p.Rate),
		f.optional("for", p.For, TimeMin, TimeMax),
		f.counts("users", p.Users, 0, UsersMax, ", and 0 for all"),
		f.counts("count", p.Count, 0, CountMax, " messages"),
		f.counts("burst", p.Burst, 0, BurstMax, " messages"),
		f.counts("deaf", p.Deaf, 0, UsersMax, ""),
		f.optional("probe", p.Probe, ProbeMin, TimeMax),
	)
}

func (c *checker) checkKind(f *finder, p *Phase, groups mask) error {
	if p.Kind == Ramp {
		return c.checkRamp(f, p, groups)
	}
	if p.Kind != Hold && groups&c.opened == 0 {
		return f.fault("", "nobody of its groups is connected yet: it needs a ramp before it")
	}
	switch p.Kind {
	case Hold:
		return f.lasts("for", p.For, TimeMin, TimeMax)
	case Churn:
		if p.Rate == 0 {
			return f.fault("rate", "is missing: how many connections a second end and come back")
		}
		return f.lasts("for", p.For, TimeMin, TimeMax)
	case Storm, Drain:
		return c.checkUsers(f, p, groups)
	case Publish:
		return c.checkPublish(f, p, groups)
	case Talk:
		return c.checkTalk(f, p)
	case Finish:
		if lasting := c.having(groups&c.lasting, func(*Group) bool { return true }); p.For == 0 && lasting != 0 {
			return f.fault("for", "is missing: the script of group %q has no end", c.plan.Groups[bits.TrailingZeros64(uint64(lasting))].Name)
		}
	}
	return nil
}

// checkRamp checks that there are the users that a phase connects.
func (c *checker) checkRamp(f *finder, p *Phase, groups mask) error {
	c.opened |= groups
	return c.take(f, &c.ramps, claim{groups, p.Users})
}

// checkUsers checks that there are as many users as a phase acts on.
func (c *checker) checkUsers(f *finder, p *Phase, groups mask) error {
	if all := c.users(groups); p.Users > all {
		return f.fault("users", "is %s: its groups have %s", Thousands(p.Users), Thousands(all))
	}
	return nil
}

func (c *checker) checkPublish(f *finder, p *Phase, groups mask) error {
	receivers := c.having(groups, func(g *Group) bool { return !g.HalfOpen })
	back := c.having(receivers, func(g *Group) bool { return g.Reconnect })
	inRooms := c.having(receivers, func(g *Group) bool { return g.Rooms > 0 })
	switch all := c.users(receivers); {
	case receivers == 0:
		return f.fault("groups", "are half-open: they receive nothing")
	case p.Count == 0:
		return f.fault("count", "is missing: how many messages")
	case p.Deaf > 0 && p.Deaf >= all:
		return f.fault("deaf", "is %s: at least one of the %s users must read", Thousands(p.Deaf), Thousands(all))
	case p.Deaf > 0 && back != 0:
		return f.fault("deaf", "is not for groups with reconnect")
	case inRooms != 0 && inRooms != receivers:
		return f.fault("groups", "are partly in rooms: who is in none gets no room's messages")
	case bits.OnesCount64(uint64(inRooms)) > 1:
		return f.fault("groups", "are several in rooms: one at a time, because their rooms may be the same")
	case inRooms != 0 && p.For != 0:
		return f.fault("for", "is not for groups in rooms")
	case inRooms != 0 && p.Message.Text != nil:
		return f.fault("text", "is not for groups in rooms: a message of the generator's own tells which room it is for")
	case p.Message.Answer.Kind == AnswerAny:
		return f.fault("answer", "is any: those who receive must know a published message from others")
	case p.Message.Answer.Within != 0:
		return f.fault("within", "is not for publish: it waits as long as something is received")
	}
	return c.checkMessage(f, &p.Message)
}
