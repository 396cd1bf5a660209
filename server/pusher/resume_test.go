package pusher_test

import (
	"fmt"
	"testing"

	"github.com/seed-134acfd0/lull/server"
	"github.com/seed-134acfd0/lull/server/pusher"
)

// A client that comes back gets what it has missed, or is told that it cannot.
func TestClientsResume(t *testing.T) {
	t.Parallel()
	app := one
	app.Resume.Events = 3
	r := start(t, pusher.Options{Apps: []pusher.App{app}}, server.Options{})
	api := r.api()
	publish := func(n int) {
		t.Helper()
		asks(t, api, request{path: "/apps/1/events", body: fmt.Sprintf(`{"name":"x","channel":"news","data":"%d"}`, n)}, `{}`)
	}
	type at struct {
		Stream string `json:"stream_id"`
		Serial uint64 `json:"serial"`
	}
	var from at
	c := r.open()
	c.ask("pusher:subscribe", map[string]string{"channel": "news"})
	if c.nextInto(&from); from.Stream == "" || from.Serial != 0 {
		t.Errorf("subscribed at %+v", from)
	}
	publish(1)
	if c.nextInto(&from); from.Stream == "" || from.Serial != 1 {
		t.Errorf("the first event is at %+v", from)
	}
	c.CloseNow()
	publish(2)
	publish(3)
	back := r.open()
	resume := func(channel string, from any, replayed ...string) {
		t.Helper()
		back.ask("pusher:resume", map[string]any{"channel_positions": map[string]any{channel: from}})
		for _, want := range replayed {
			if m := back.next(); m.Event != "x" || string(m.Data) != want {
				t.Errorf("got %+v %s, want %s", m, m.Data, want)
			}
		}
	}
	failed := func(channel, code string) {
		t.Helper()
		m := back.next()
		var why struct{ Code string }
		if err := m.data(&why); err != nil || m.Event != "pusher:resume_failed" || m.Channel != channel || why.Code != code {
			t.Errorf("got %+v %s", m, m.Data)
		}
		var all struct {
			Failed []struct{ Channel, Code string }
		}
		if err := back.next().data(&all); err != nil || len(all.Failed) != 1 || all.Failed[0].Code != code {
			t.Errorf("%+v, %v", all, err)
		}
	}
	resume("news", from)
	failed("news", "not_subscribed")
	back.subscribe("news")
	resume("news", from, `"2"`, `"3"`)
	back.expect("pusher:resume_success", "", `{"recovered":[{"channel":"news","source":"memory","replayed":2}],"failed":[]}`)
	back.ask("pusher:resume", `{"channel_serials":{"news":3}}`)
	back.expect("pusher:resume_success", "", `{"recovered":[{"channel":"news","source":"memory","replayed":0}],"failed":[]}`)
	resume("news", at{"another", 1})
	failed("news", "stream_reset")
	resume("news", at{from.Stream, 9})
	failed("news", "stream_reset")
	for n := range 2 {
		publish(4 + n)
		back.next()
	}
	resume("news", from)
	failed("news", "position_expired")
	resume("news", at{from.Stream, 2}, `"3"`, `"4"`, `"5"`)
	back.next()
	back.send(`{"event":"pusher:resume","data":7}`)
	back.refused(4300)

	off := start(t, pusher.Options{}, server.Options{}).open()
	off.ask("pusher:resume", map[string]any{"channel_serials": map[string]int{"news": 1}})
	off.refused(4301)
}
