package plan

import "fmt"

func (c *checker) checkTalk(f *finder, p *Phase) error {
	if len(p.Streams) == 0 || len(p.Streams) > StreamsMax {
		return f.fault("streams", "are %d: there must be 1 to %d", len(p.Streams), StreamsMax)
	}
	var taken ledger
	for i := range p.Streams {
		at := &finder{max(f.line, p.Streams[i].Line), fmt.Sprintf("%s: stream %d", f.place, i+1)}
		if err := c.checkStream(at, &p.Streams[i], &taken); err != nil {
			return err
		}
	}
	return f.lasts("for", p.For, TimeMin, TimeMax)
}

func (c *checker) checkStream(f *finder, s *Stream, taken *ledger) error {
	groups, err := c.groupsOf(f, s.Groups)
	if err != nil {
		return err
	}
	half := c.having(groups, func(g *Group) bool { return g.HalfOpen })
	scripted := c.having(groups, func(g *Group) bool { return g.Script != nil })
	switch {
	case len(s.Groups) == 0: // those who can
		groups &^= half | scripted
	case half != 0:
		return f.fault("groups", "has half-open users: they cannot send")
	case scripted != 0:
		return f.fault("groups", "has users with a script: they send what that says")
	}
	switch {
	case groups == 0:
		return f.fault("groups", "are all half-open or with a script: nobody can talk")
	case groups&c.opened == 0:
		return f.fault("groups", "are not connected yet: a ramp must come before")
	case s.Message == Message{}:
		return f.fault("message", "is missing: what its users send, a text or a size, and the answer to it")
	case s.Window > 0 && s.Message.Answer.Kind == AnswerNone:
		return f.fault("window", "counts unanswered messages: the message needs an answer")
	}
	return first(
		f.counts("users", s.Users, 0, UsersMax, ", and 0 for all"),
		c.take(f, taken, claim{groups, s.Users}),
		f.counts("window", s.Window, 0, WindowMax, " messages, and 0 for no limit"),
		f.rate(s.Rate),
		c.checkMessage(f, &s.Message),
	)
}
