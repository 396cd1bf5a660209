//go:build interop

package main

import (
	"os/exec"
	"strings"
	"testing"
)

// Debian's Python and its websockets write a room's name as it is, and meet somebody who
// has percent-encoded it.
func TestInteropRooms(t *testing.T) {
	url, stop := serve(t, "--mode", "rooms")
	defer stop()
	host, other := visit(t, url, "room/caf%C3%A9"), visit(t, url, "room/tea")
	cmd := exec.Command("/usr/bin/python3", "server/testdata/interop/rooms.py", url+"room/café", url+"room/tea")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v; server/testdata/interop/install, run as root, installs websockets: %s", err, out)
	}
	if got, want := strings.TrimSpace(string(out)), "2 × hello\n1 × tea"; got != want {
		t.Errorf("in the rooms were heard %q, want %q", got, want)
	}
	host.hears("hello")
	other.hears("tea")
}
