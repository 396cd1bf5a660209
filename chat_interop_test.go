//go:build interop

package main

import (
	"strings"
	"testing"

	"github.com/seed-134acfd0/lull/internal/testkit"
)

// Two browsers have the README's chat open. What one says both read, and text is
// text, whatever it looks like.
func TestInteropChatPage(t *testing.T) {
	url, stop := serve(t, "--www", "docs/chat")
	page := strings.Replace(url, "ws:", "http:", 1)
	alice, bob := testkit.StartBrowser(t, page), testkit.StartBrowser(t, page)
	for _, b := range []*testkit.Browser{alice, bob} {
		b.Shows("#state", "connected as guest")
	}
	alice.Eval(`document.querySelector("#text").value = "hello <b>you</b>"; document.querySelector("form").requestSubmit()`, nil)
	for _, b := range []*testkit.Browser{alice, bob} {
		b.Shows("#messages li", ": hello <b>you</b>")
		if bold := b.Texts("#messages b"); len(bold) > 0 {
			t.Errorf("a message became HTML: %q", bold)
		}
	}
	bob.Picture(t, "chat.png")
	stop()
	for _, b := range []*testkit.Browser{alice, bob} {
		b.Shows("#state", "trying again")
	}
}
