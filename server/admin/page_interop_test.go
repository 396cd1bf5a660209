//go:build interop

package admin_test

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"

	"github.com/seed-134acfd0/lull/server"
)

// shows waits until an element has a text.
func (b *browser) shows(selector, text string) {
	b.t.Helper()
	var got []string
	ok := func() bool {
		got = b.texts(selector)
		return len(got) == 1 && strings.Contains(got[0], text)
	}
	defer func() {
		if b.t.Failed() {
			b.t.Logf("%s shows %q", selector, got)
		}
	}()
	eventually(b.t, fmt.Sprintf("%s shows %q", selector, text), ok)
}

func TestInteropPage(t *testing.T) {
	s := start(t, server.Handler{}, server.Options{OutboxPolicy: server.OutboxDropNew, MaxConns: 100})
	deaf := []string{s.openDeaf().LocalAddr().String(), s.openDeaf().LocalAddr().String()}
	s.fill()
	for range 5 {
		say(t, s.open(), "hello")
	}
	left := s.open()
	if err := wsutil.WriteClientMessage(left, ws.OpClose, ws.NewCloseFrameBody(ws.StatusNormalClosure, "")); err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, left) // returns when the server has closed it
	b := startBrowser(t, s.url)

	b.shows("#open .value", "7")
	b.shows("#open .note", "of 100; 0 handshaking, 0 closing")
	b.shows("#opened .note", "8 since the start, 0 rejected")
	b.shows("#closed .note", "1 since the start")
	b.shows("#received .note", "5 in all")
	b.shows("#outbox .note", "2 slow peers")
	b.shows("#workers .value", fmt.Sprintf("0 of %d", s.Options().Workers))
	b.shows("#lost .note", "0 connections closed for overload")
	b.shows("#where", s.Addrs()[0].String())
	b.shows("#state", "under pressure")
	b.shows("#endings", "clean1")
	if warn := b.texts(".warn h3"); !slices.Contains(warn, "Outboxes") {
		t.Errorf("warns of %q", warn)
	}

	census := s.Census()
	largest := census.Largest[0]
	if ids := b.texts("#largest .id"); len(ids) != 2 || ids[0] != fmt.Sprintf("%016x", largest.ID) {
		t.Errorf("the largest outboxes are %q, not %x", ids, largest.ID)
	}
	if remotes := b.texts("#largest td:nth-child(2)"); remotes[0] != largest.Remote.String() || !slices.Contains(deaf, remotes[0]) {
		t.Errorf("the largest outboxes are at %q, not %v", remotes, largest.Remote)
	}
	look(t, b)

	// The first click asks, the second closes.
	button := fmt.Sprintf(`document.querySelector('[data-id="%016x"] button').click()`, largest.ID)
	b.eval(button, nil)
	b.shows("#largest button.sure", "really?")
	if n := s.Stats().Open; n != 7 {
		t.Errorf("%d are open after one click", n)
	}
	b.eval(button, nil)
	s.counted("closed_close_timeout", 1) // it does not read the Close frame either
	b.shows("#open .value", "6")
	b.shows("#endings", server.ErrCloseTimeout.Error())
	b.shows("#largest .id", "") // one row is left
	if id := b.texts("#largest .id")[0]; id == fmt.Sprintf("%016x", largest.ID) {
		t.Errorf("%s is still shown", id)
	}

	var html string
	b.eval(`(() => { try { document.querySelector("footer").innerHTML = "<b>"; return "taken"; } catch (e) { return e.name; } })()`, &html)
	if html != "TypeError" {
		t.Errorf("HTML in a page that has none to take: %s", html)
	}
	b.faults = slices.DeleteFunc(b.faults, func(fault string) bool { return strings.Contains(fault, "TrustedHTML") }) // the test caused that one
	if len(b.faults) > 0 {
		t.Errorf("faults: %q", b.faults)
	}

	s.web.Close()
	b.shows("#state", "does not answer")
	b.picture(t, "unreachable.png")
}

// look checks the layout on screens and phones, in light and dark.
func look(t *testing.T, b *browser) {
	t.Helper()
	for _, width := range []int{1280, 360} {
		b.tell("Emulation.setDeviceMetricsOverride", map[string]any{"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 1000}, nil)
		for _, scheme := range []string{"light", "dark"} {
			b.tell("Emulation.setEmulatedMedia", map[string]any{"features": []any{map[string]any{"name": "prefers-color-scheme", "value": scheme}}}, nil)
			var laid struct {
				Wide int    // the width of the content
				Back string // the background
			}
			b.eval(`({ wide: document.documentElement.scrollWidth, back: getComputedStyle(document.body).backgroundColor })`, &laid)
			if laid.Wide > width {
				t.Errorf("%d pixels wide on a screen of %d", laid.Wide, width)
			}
			if want := map[string]string{"light": "rgb(246, 247, 248)", "dark": "rgb(18, 24, 27)"}[scheme]; laid.Back != want {
				t.Errorf("in %s the background is %s", scheme, laid.Back)
			}
			b.picture(t, fmt.Sprintf("%d-%s.png", width, scheme))
		}
	}
}
