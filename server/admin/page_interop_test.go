//go:build interop

package admin_test

import (
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/internal/natsd/natsdtest"
	"github.com/seed-134acfd0/lull/internal/testkit"
	"github.com/seed-134acfd0/lull/server"
)

func TestInteropPage(t *testing.T) {
	s := start(t, server.Handler{Open: func(c server.Conn) { _ = c.Subscribe("<b>tea</b>") }}, server.Options{OutboxPolicy: server.OutboxDropNew, MaxConns: 100, MaxTopics: 1000})
	deaf := []string{s.openDeaf().LocalAddr().String(), s.openDeaf().LocalAddr().String()}
	s.fill()
	for range 5 {
		say(t, s.open(), "hello")
	}
	eventually(t, "all have subscribed", func() bool { return s.Stats().Subscriptions == 7 })
	left := s.open()
	if err := wsutil.WriteClientMessage(left, ws.OpClose, ws.NewCloseFrameBody(ws.StatusNormalClosure, "")); err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, left) // returns when the server has closed it
	b := testkit.StartBrowser(t, s.url)

	b.Shows("#open .value", "7")
	b.Shows("#open .note", "of 100; 0 handshaking, 0 closing")
	b.Shows("#opened .note", "8 since the start, 0 rejected")
	b.Shows("#closed .note", "1 since the start")
	b.Shows("#received .note", "5 in all")
	b.Shows("#outbox .note", "2 slow peers")
	b.Shows("#workers .value", fmt.Sprintf("0 of %d", s.Options().Workers))
	b.Shows("#lost .note", "0 connections closed for overload")
	b.Shows("#topics .note", "of 1,000; 7 subscriptions, 0 refused; 0/s published")
	b.Shows("#topics-largest", "<b>tea</b>")
	b.Shows("#where", s.Addrs()[0].String())
	b.Shows("#state", "under pressure")
	b.Shows("#endings", "clean1")
	if warn := b.Texts(".warn h3"); !slices.Contains(warn, "Outboxes") {
		t.Errorf("warns of %q", warn)
	}

	census := s.Census()
	largest := census.Largest[0]
	if ids := b.Texts("#largest .id"); len(ids) != 2 || ids[0] != fmt.Sprintf("%016x", largest.ID) {
		t.Errorf("the largest outboxes are %q, not %x", ids, largest.ID)
	}
	if remotes := b.Texts("#largest td:nth-child(2)"); remotes[0] != largest.Remote.String() || !slices.Contains(deaf, remotes[0]) {
		t.Errorf("the largest outboxes are at %q, not %v", remotes, largest.Remote)
	}
	look(t, b)

	// The first click asks, the second closes.
	button := fmt.Sprintf(`document.querySelector('[data-id="%016x"] button').click()`, largest.ID)
	b.Eval(button, nil)
	b.Shows("#largest button.sure", "really?")
	if n := s.Stats().Open; n != 7 {
		t.Errorf("%d are open after one click", n)
	}
	b.Eval(button, nil)
	s.counted("closed_close_timeout", 1) // it does not read the Close frame either
	b.Shows("#open .value", "6")
	b.Shows("#endings", server.ErrCloseTimeout.Error())
	b.Shows("#largest .id", "") // one row is left
	if id := b.Texts("#largest .id")[0]; id == fmt.Sprintf("%016x", largest.ID) {
		t.Errorf("%s is still shown", id)
	}

	var html string
	b.Eval(`(() => { try { document.querySelector("footer").innerHTML = "<b>"; return "taken"; } catch (e) { return e.name; } })()`, &html)
	if html != "TypeError" {
		t.Errorf("HTML in a page that has none to take: %s", html)
	}
	b.Faults = slices.DeleteFunc(b.Faults, func(fault string) bool { return strings.Contains(fault, "TrustedHTML") }) // the test caused that one
	if len(b.Faults) > 0 {
		t.Errorf("faults: %q", b.Faults)
	}

	s.web.Close()
	b.Shows("#state", "does not answer")
	b.Picture(t, "unreachable.png")
}

// look checks the layout on screens and phones, in light and dark.
func look(t *testing.T, b *testkit.Browser) {
	t.Helper()
	backs := map[string]string{"light": "rgb(246, 247, 248)", "dark": "rgb(18, 24, 27)"}
	b.OnScreens(t, func(_ int, scheme string) {
		if back := b.Style("body", "background-color"); back != backs[scheme] {
			t.Errorf("in %s the background is %s", scheme, back)
		}
	})
}

// The page shows a cluster and backends, when they are well and when they are not.
func TestInteropPageOfParts(t *testing.T) {
	nats := natsdtest.Start(t)
	here, there := startWhole(t, nats.ClientURL(), "here"), startWhole(t, nats.ClientURL(), "there")
	here.open()
	there.open()
	b := testkit.StartBrowser(t, here.url)
	b.Shows("#nodes .value", "2")
	b.Shows("#nodes .note", "this is here of lull; 0 have died")
	b.Shows("#broker .value", "there")
	b.Shows("#broker .note", nats.ClientURL())
	b.Shows("#queue .note", "of 8 MiB")
	b.Shows("#members .value", "2")
	b.Shows("#members .note", "1 of this server")
	b.Shows("#lost-cluster .note", "0 of others have not arrived, 0 were not sent")
	b.Shows("#silent", "therealive")
	b.Shows("#backends", here.backend.URL)
	eventually(t, "a message arrives", func() bool {
		if err := there.node.Publish("tea", frame.Text, []byte("hello")); err != nil {
			t.Fatal(err)
		}
		return here.node.Stats().Received > 0
	})
	b.Shows("#history .value", "1")
	b.Shows("#history .note", "of 1 topics")
	if warn := b.Texts("#cluster .warn h3"); len(warn) > 0 {
		t.Errorf("warns of %q", warn)
	}

	there.node.Leave()
	b.Shows("#nodes .value", "1")
	b.Shows("#silent .warn", "theregone")
	here.backend.Close()
	eventually(t, "the backend is down", func() bool {
		_, _ = here.dial(&net.Dialer{}, "/") // refused
		return here.hooked.Stats().Backends[0].Down
	})
	b.Shows("#backends .warn", "down for")
	b.Shows("#state", "start the backend: it is down")
	nats.Shutdown()
	b.Shows("#broker.warn .note", "the broker is away")
	b.Shows("#broker .value", "away for")
	b.Shows("#state", "not in its cluster")
	look(t, b)
	if len(b.Faults) > 0 {
		t.Errorf("faults: %q", b.Faults)
	}
}

// With a token the page begins with a form, and what it lets in works as without.
func TestInteropTokenForm(t *testing.T) {
	s := locked(t)
	s.open()
	b := testkit.StartBrowser(t, s.url+"/")
	fill := func(token string) {
		b.Eval(fmt.Sprintf(`document.querySelector("[name=token]").value = %q; document.querySelector("form").requestSubmit()`, token), nil)
	}
	b.Shows("h1", "lull")
	fill("guess")
	b.Shows("[role=alert]", "That is not the token.")
	fill(secret)
	b.Shows("#open .value", "1")
	b.Faults = slices.DeleteFunc(b.Faults, func(fault string) bool {
		return strings.Contains(fault, "401") || strings.Contains(fault, `"recommendation"`)
	}) // the form's own status, and advice about user names
	if len(b.Faults) > 0 {
		t.Errorf("faults: %q", b.Faults)
	}
}
