package scenario

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/seed-134acfd0/lull/loadgen/plan"
)

// message is a message in its long form.
type message struct {
	plan.Message
	given int // of text, file and size
}

var messageObject = object[message]{"message", "A message in its long form. It has one of text, file and size.", []key[message]{
	to("text", text("up to "+inBytes(plan.TextMax)), func(m *message, t *plan.Text) { m.Text = t; m.given++ }, "see size", "Its text, a template."),
	to("file", file(), func(m *message, t *plan.Text) { m.Text = t; m.given++ }, "see size",
		"A file with its text, a template too. The line break at its end does not count."),
	to("size", size(plan.SizeMin, plan.SizeMax), func(m *message, n int) { m.Size = n; m.given++ }, "32",
		"Size of a message that lull makes: with time, number and checksum, so that each answer and delivery is known, and binary."),
	to("binary", yes(), func(m *message, is bool) { m.Binary = is }, "false", "Send the text in a binary frame."),
}}

// payload makes a key for what a message says.
func payload[T any](name string, at func(*T) *plan.Message, without, what string) key[T] {
	short := text("")
	long := value[plan.Message]{anyOf(scalarSchema, reference("message")), "a text, or text, file or size", func(d *decoder, n *yaml.Node) (plan.Message, error) {
		v, err := d.enter(n)
		if err != nil {
			return plan.Message{}, err
		}
		if v.Kind != yaml.MappingNode {
			t, err := short.read(d, n)
			return plan.Message{Text: t}, err
		}
		var m message
		if err := messageObject.decode(d, n, &m); err != nil {
			return plan.Message{}, err
		}
		if m.given > 1 {
			return plan.Message{}, mistake(n, "a message must have one of text, file and size")
		}
		if m.given == 0 {
			m.Size = sizeUsual
		}
		return m.Message, nil
	}}
	return to(name, long, func(into *T, m plan.Message) {
		old := at(into)
		m.Answer = old.Answer
		*old = m
	}, without, what)
}

// sizeUsual is the size of a message that says nothing else, in bytes.
const sizeUsual = 32

// file is a file's text.
func file() value[*plan.Text] {
	return value[*plan.Text]{scalarSchema, "a file in the scenario's folder, up to " + inBytes(plan.TextMax), func(d *decoder, n *yaml.Node) (*plan.Text, error) {
		name, err := d.scalar(n, "a file's name")
		if err != nil {
			return nil, err
		}
		return d.payload(n, name)
	}}
}

var answerVariants = variants[plan.Answer]{"answer", []object[plan.Answer]{
	{"contains", "The next message that contains a text.", []key[plan.Answer]{
		to("contains", text("a text without random parts"), func(a *plan.Answer, t *plan.Text) { a.Kind, a.Contains = plan.AnswerContains, t }, "",
			"The text, filled in with the sent message's numbers: '\"id\":{{.Seq}}' finds the answer to this very message."),
	}},
	{"match", "The next message that matches a regular expression.", []key[plan.Answer]{
		to("match", pattern(), func(a *plan.Answer, p *plan.Pattern) { a.Kind, a.Match = plan.AnswerMatch, p }, "",
			"The regular expression, in the syntax of Go (RE2)."),
	}},
}}

// answers is what a message is answered with: one of some words, or a text or regular
// expression that is in the answer.
func answers(must string, words map[string]plan.AnswerKind) value[plan.Answer] {
	names := slices.Sorted(maps.Keys(words))
	v := anyOf(schema{"enum": names}, reference("answer"))
	return value[plan.Answer]{v, strings.Join(append(names, "contains", "match"), ", "), func(d *decoder, n *yaml.Node) (a plan.Answer, err error) {
		v, err := d.enter(n)
		if err != nil {
			return a, err
		}
		if v.Kind == yaml.MappingNode {
			o, err := answerVariants.pick(d, n)
			if err != nil {
				return a, err
			}
			return a, o.decode(d, n, &a)
		}
		kind, known := words[v.Value]
		if v.Kind != yaml.ScalarNode || !known {
			return a, mistake(n, "must be %s, {contains: TEXT} or {match: REGEXP}", must)
		}
		return plan.Answer{Kind: kind}, nil
	}}
}

// answer is the key for what a message is answered with.
func answer[T any](at func(*T) *plan.Message) key[T] {
	v := answers("none, echo (the same bytes), any (the next message)", map[string]plan.AnswerKind{"none": plan.AnswerNone, "echo": plan.AnswerEcho, "any": plan.AnswerAny})
	return to("answer", v, func(into *T, a plan.Answer) {
		old := &at(into).Answer
		a.Within = old.Within
		*old = a
	}, "none", "What the message is answered with: see messages.")
}

// arrives is the key for what a published message is when it arrives.
func arrives[T any](at func(*T) *plan.Message) key[T] {
	v := answers("same (the same bytes)", map[string]plan.AnswerKind{"same": plan.AnswerEcho})
	return to("arrives-as", v, func(into *T, a plan.Answer) { at(into).Answer = a }, "same", "What the message is when it arrives: the same bytes, or something that contains a text of it or matches an expression.").as("answer")
}

// within is the key for how long an answer may take.
func within[T any](at func(*T) *plan.Message) key[T] {
	return is("within", lasting(plan.TimeMin, plan.TimeMax), func(into *T) *time.Duration { return &at(into).Answer.Within }, "--patience, 1m", "How long the answer may take.")
}

// pattern is a regular expression.
func pattern() value[*plan.Pattern] {
	return value[*plan.Pattern]{scalarSchema, "up to " + strconv.Itoa(plan.PatternMax) + " bytes", func(d *decoder, n *yaml.Node) (*plan.Pattern, error) {
		raw, err := d.scalar(n, "a regular expression")
		if err != nil {
			return nil, err
		}
		if p, known := d.patterns[raw]; known {
			return p, nil
		}
		if len(d.patterns) == patternsMax {
			return nil, mistake(n, "a scenario may have %d different regular expressions", patternsMax)
		}
		p, err := plan.ParsePattern(raw)
		if err != nil {
			return nil, mistake(n, "must be a regular expression: %s", err)
		}
		d.patterns[raw] = p
		return p, nil
	}}
}
