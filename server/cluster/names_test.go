package cluster

import (
	"errors"
	"strings"
	"testing"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/server"
)

// What cannot be is refused by all calls, and leaves nothing behind. The longest name of the
// most expensive characters, with the largest message, arrives.
func TestNamesAndMessagesThatCannotBe(t *testing.T) {
	t.Parallel()
	broker := newBroker(t, 0, nil)
	remembers := func(o *Options) {
		present(o)
		o.pace.death = brisk.death
		o.MaxMessage = 1000
		o.History = func(topic string) (l Limits) {
			if topic != "" && topic[0] != ' ' {
				l.Messages = 1
			}
			return l
		}
	}
	a, b := join(t, broker.ClientURL(), "a", remembers), join(t, broker.ClientURL(), "b", remembers)
	meet(t, a, b)
	own := broker.NumSubscriptions()
	for _, name := range []string{"", strings.Repeat("x", server.TopicMax+1), "a\nb", "\x00", "\xff"} {
		for call, err := range map[string]error{
			"Publish": a.Publish(name, frame.Text, nil),
			"Enter":   a.enter(1, name, "anna", nil),
			"Resume":  a.resume(a.server.conn(), name, "", func(Resumed) { t.Error("it is resumed") }),
		} {
			if !errors.Is(err, server.ErrTopicName) {
				t.Errorf("%s of %.10q: %v", call, name, err)
			}
		}
	}
	if err := a.Publish("x", frame.Text, make([]byte, 1001)); !errors.Is(err, ErrTooLarge) {
		t.Error(err)
	}
	for id, data := range map[string]int{"": 0, strings.Repeat("i", 256): 0, "anna": 1025} {
		if err := a.enter(1, "x", id, make([]byte, data)); err == nil {
			t.Errorf("%.10q with %d bytes is a member", id, data)
		}
	}
	if s := a.Stats(); s.Published+uint64(s.Subjects)+uint64(s.Members)+uint64(s.KeptTopics)+s.Unsent != 0 || broker.NumSubscriptions() != own {
		t.Errorf("%+v, %d subscriptions", s, broker.NumSubscriptions()-own)
	}

	longest := strings.Repeat(" ", server.TopicMax)
	m, text := b.subscribe(t, longest), strings.Repeat("t", 1000)
	a.publish(t, longest, text)
	m.has(t, longest+" "+text)
}
