package scenario

import (
	"fmt"
	"slices"
	"strconv"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/seed-134acfd0/lull/loadgen/plan"
)

// phase is a phase and, if it is a talk, the stream whose keys stand in it.
type phase struct {
	plan.Phase
	stream stream
	inline bool
}

// stream is a stream whose window may be left to its answer.
type stream struct{ plan.Stream }

const windowOpen = -1 // a window that is not given

var streamKeys = func() []key[stream] {
	message := func(s *stream) *plan.Message { return &s.Message }
	return []key[stream]{
		is("groups", groupNames(), func(s *stream) *[]string { return &s.Groups }, "all that are neither half-open nor have a script", "Groups whose users send."),
		is("users", wholeOr(plan.UsersMax, "all"), func(s *stream) *int { return &s.Users }, "all", "How many of them send."),
		is("rate", rate(), func(s *stream) *float64 { return &s.Rate }, "as fast as window allows", "Messages a second of all these users together, in turn."),
		payload("message", message, "must be there", "What they send: a text, or a mapping."),
		answer(message),
		within(message),
		is("window", wholeOr(plan.WindowMax, "unlimited"), func(s *stream) *int { return &s.Window }, "1 with an answer, otherwise unlimited",
			"How many of a user's messages may be unanswered. Unlimited is as fast as the server takes them."),
	}
}()

var streamObject = object[stream]{"stream", "Messages of one kind, which some users send while others send those of other streams.", streamKeys}

func groupNames() value[[]string] { return list(name(""), "names of groups") }

var phaseVariants = func() variants[phase] {
	count := func(at func(*phase) *int, name, limits, what string) key[phase] {
		return is(name, wholeOr(plan.UsersMax, "all"), at, "", what).as("users")
	}
	users := func(p *phase) *int { return &p.Users }
	duration := func(p *phase) *time.Duration { return &p.For }
	message := func(p *phase) *plan.Message { return &p.Message }
	common := []key[phase]{
		is("name", name("1 to "+strconv.Itoa(plan.NameMax)+" characters"), func(p *phase) *string { return &p.Name }, "that of its kind, numbered from the second", "Its name in results."),
	}
	acting := append([]key[phase]{
		is("groups", groupNames(), func(p *phase) *[]string { return &p.Groups }, "all", "Groups on which it acts."),
	}, common...)
	long := func(name, what string) key[phase] {
		return is(name, lasting(plan.TimeMin, plan.TimeMax), duration, "", what).as("for")
	}
	atMost := is("for", lasting(plan.TimeMin, plan.TimeMax), duration, "as long as it takes", "End it after this time at the latest.")
	perSecond := func(without, what string) key[phase] {
		return is("rate", rate(), func(p *phase) *float64 { return &p.Rate }, without, what)
	}
	probe := is("probe", lasting(plan.ProbeMin, plan.TimeMax), func(p *phase) *time.Duration { return &p.Probe }, "never", "Ping this often on one more connection.")
	const fast = "as fast as it goes"
	one := func(o object[phase], more ...[]key[phase]) object[phase] {
		o.keys = append(o.keys, slices.Concat(more...)...)
		return o
	}
	return variants[phase]{"phase", []object[phase]{
		one(object[phase]{"ramp", "Connect users that have not connected yet; groups take turns according to their sizes. It ends when each connection is open or has failed.", []key[phase]{
			count(users, "ramp", "", "How many users connect."), perSecond(fast, "Connections a second."), atMost,
		}}, acting),
		one(object[phase]{"hold", "Leave users to their scripts.", []key[phase]{long("hold", "How long.")}}, acting),
		one(object[phase]{"churn", "End connections at a rate, and open each again at once.", []key[phase]{
			long("churn", "How long."), perSecond("", "How many connections a second end and come back."),
		}}, acting),
		one(object[phase]{"publish", "Send messages that all open users of the groups should receive.", []key[phase]{
			is("publish", whole(1, plan.CountMax), func(p *phase) *int { return &p.Count }, "", "How many messages.").as("count"),
			perSecond("the next when the one before is received", "Messages a second."),
			payload("message", message, "lull makes it, of 32 bytes", "What is sent: a text, or a mapping."),
			arrives(message),
			is("burst", whole(1, plan.BurstMax), func(p *phase) *int { return &p.Burst }, "1", "How many are sent back to back."),
			is("deaf", whole(1, plan.UsersMax), func(p *phase) *int { return &p.Deaf }, "none", "How many users read nothing until its end."),
			probe, atMost,
		}}, acting),
		one(object[phase]{"talk", "Make users send and receive answers. Its streams are sent at the same time; the keys of its only stream may stand in the phase itself.", []key[phase]{
			long("talk", "How long."),
			is("streams", streams(), func(p *phase) *[]plan.Stream { return &p.Streams }, "one, with these keys", "Its streams. A user sends one at the most."),
			probe,
		}}, of(streamKeys, func(p *phase) *stream { p.inline = true; return &p.stream }), common),
		one(object[phase]{"storm", "Cut users off without a Close frame, all at once, and open their connections again.", []key[phase]{
			count(users, "storm", "", "How many users."), perSecond(fast, "Connections a second that are opened again."),
		}}, acting),
		one(object[phase]{"drain", "End users' connections with a Close frame.", []key[phase]{
			count(users, "drain", "", "How many users."), perSecond(fast, "Connections a second that end."),
		}}, acting),
		one(object[phase]{"finish", "Wait until each user's script has ended.", []key[phase]{long("finish", "How long at the most.")}}, acting),
	}}
}()

// streams is a list of streams.
func streams() value[[]plan.Stream] {
	return value[[]plan.Stream]{schema{"type": "array", "minItems": 1, "maxItems": plan.StreamsMax, "items": reference("stream")}, "a list of 1 to " + strconv.Itoa(plan.StreamsMax), func(d *decoder, n *yaml.Node) (all []plan.Stream, err error) {
		if at, err := d.enter(n); err != nil || at.Kind != yaml.SequenceNode || len(at.Content) == 0 {
			return nil, orElse(err, mistake(n, "must be a list of streams"))
		}
		err = d.sequence(n, func(n *yaml.Node) error {
			s := stream{plan.Stream{Window: windowOpen, Line: n.Line}}
			err := streamObject.decode(d, n, &s)
			all = append(all, s.whole())
			return err
		})
		return all, err
	}}
}

// whole is the stream with its window.
func (s stream) whole() plan.Stream {
	if s.Window == windowOpen {
		s.Window = 0
		if s.Message.Answer.Kind != plan.AnswerNone {
			s.Window = 1
		}
	}
	return s.Stream
}

// phase reads a phase.
func (d *decoder) phase(n *yaml.Node) (plan.Phase, error) {
	o, err := phaseVariants.pick(d, n)
	if err != nil {
		return plan.Phase{}, err
	}
	p := phase{Phase: plan.Phase{Kind: plan.Kind(o.name), Line: n.Line}, stream: stream{plan.Stream{Window: windowOpen, Line: n.Line}}}
	if err := o.decode(d, n, &p); err != nil {
		return plan.Phase{}, err
	}
	switch {
	case p.Kind != plan.Talk:
	case p.Streams == nil:
		p.Streams = []plan.Stream{p.stream.whole()}
	case p.inline:
		return plan.Phase{}, mistake(n, "a talk must have streams, or the keys of one stream, not both")
	}
	return p.Phase, nil
}

// namePhases gives names to the phases that have none.
func namePhases(phases []plan.Phase) {
	used := map[string]bool{}
	for _, p := range phases {
		used[p.Name] = true
	}
	for i := range phases {
		p := &phases[i]
		if p.Name != "" {
			continue
		}
		p.Name = string(p.Kind)
		for n := 2; used[p.Name]; n++ {
			p.Name = fmt.Sprintf("%s %d", p.Kind, n)
		}
		used[p.Name] = true
	}
}
