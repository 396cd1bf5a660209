package admin_test

import (
	"encoding/json"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/server"
	"github.com/seed-134acfd0/lull/server/admin"
)

// rooms has each connection subscribe to the topics that its path lists.
var rooms = server.Handler{Upgrade: func(r *server.Request) error {
	if list := strings.TrimPrefix(r.Path(), "/"); list != "" {
		r.Topics = strings.Split(list, ",")
	}
	return nil
}}

// Topics show by their numbers in the metrics, and the largest by name in the status
// alone, so that no name is a label.
func TestTopicsShow(t *testing.T) {
	s := start(t, rooms, server.Options{MaxTopics: 30, MaxSubscriptions: 20})
	enter := func(path string) error {
		_, err := s.dial(&net.Dialer{}, path)
		return err
	}
	for _, path := range []string{"/tea", "/tea", "/tea,coffee"} {
		if err := enter(path); err != nil {
			t.Fatal(err)
		}
	}
	var many []string
	for n := range 20 {
		many = append(many, fmt.Sprint("room-", n))
	}
	if err := enter("/" + strings.Join(many, ",")); err != nil {
		t.Fatal(err)
	}
	for _, refused := range []string{"/" + strings.Join(append(many, "one-more"), ","), "/a,b,c,d,e,f,g,h,i"} {
		if enter(refused) == nil {
			t.Errorf("%.20s is accepted", refused)
		}
	}
	eventually(t, "all have subscribed", func() bool { return s.Stats().Subscriptions == 24 })
	for range 2 {
		if err := s.Publish("tea", frame.Text, []byte("hello")); err != nil {
			t.Fatal(err)
		}
	}
	for series, want := range map[string]float64{
		"lull_topics": 22, "lull_topics_limit": 30, "lull_subscriptions": 24, "lull_subscribed_total": 24, "lull_unsubscribed_total": 0,
		"lull_published_total": 2, "lull_subscriptions_refused_total": 2, "lull_largest_topic_subscribers": 3,
	} {
		s.shows(series, want)
	}
	for series := range s.scrape() {
		if strings.Contains(series, "tea") || strings.Contains(series, "room-") {
			t.Errorf("%s names a topic", series)
		}
	}
	var status struct {
		Topics struct {
			Count, Limit, Subscriptions int
			Largest                     []struct {
				Name        string
				Subscribers int
			}
		}
	}
	s.json("/api/status", &status)
	now := status.Topics
	if now.Count != 22 || now.Limit != 30 || now.Subscriptions != 24 || len(now.Largest) != 10 || now.Largest[0].Name != "tea" || now.Largest[0].Subscribers != 3 {
		t.Errorf("%+v", now)
	}
}

func TestAServerWithoutTopicsListsNone(t *testing.T) {
	s := start(t, server.Handler{}, server.Options{})
	var status struct {
		Topics struct{ Largest json.RawMessage }
	}
	if s.json("/api/status", &status); string(status.Topics.Largest) != "[]" {
		t.Errorf("it lists %s", status.Topics.Largest)
	}
	s.shows("lull_largest_topic_subscribers", 0)
}

// However often they are asked for, all topics are looked at every few seconds at most, and
// for a small share of the time. Nobody waits while somebody else looks.
func TestTheLargestTopicsAreFoundNowAndThen(t *testing.T) {
	now, found, takes := time.Now(), 0, time.Duration(0)
	var recent func() []server.Topic
	recent = admin.LargestTopics(func(n int) []server.Topic {
		during := recent()
		if found++; found > 1 && (len(during) != 1 || during[0].Subscribers != found-1) {
			t.Errorf("meanwhile others get %v", during)
		}
		now = now.Add(takes)
		return []server.Topic{{Name: "tea", Subscribers: found}}
	}, func() time.Time { return now })
	for i, step := range []struct{ after, takes, want time.Duration }{
		{0, 0, 1}, {time.Second, 0, 1}, {4*time.Second - 1, 0, 1}, {1, time.Second, 2}, // after 5 s
		{49 * time.Second, 0, 2}, {time.Second - 1, 0, 2}, {1, 0, 3}, // after 50 times what it took
	} {
		now, takes = now.Add(step.after), step.takes
		if got := recent(); !slices.Equal(got, []server.Topic{{Name: "tea", Subscribers: int(step.want)}}) || found != int(step.want) {
			t.Errorf("step %d: %v, found %d times, want %d", i, got, found, step.want)
		}
	}
}
