//go:build interop

package main

import (
	"cmp"
	"os"
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

// Debian's Python with its websockets, and Node with ws, come back to another server for what
// they have missed.
func TestInteropClientsThatComeBack(t *testing.T) {
	b := newBroker(t, "")
	var urls [2]string
	for i, name := range []string{"one", "other"} {
		url, stop := serve(t, "--mode", "rooms", "--presence", "--history", "100", "--nats", b.ClientURL(), "--node-name", name)
		defer stop()
		urls[i] = url + "room/tea"
		defer visit(t, url, "room/tea").Close() // both servers keep the room from here on
	}
	for _, command := range [][]string{{"/usr/bin/python3", "server/testdata/interop/resume.py"}, {"node", "server/testdata/interop/resume.mjs"}} {
		cmd := exec.Command(command[0], append(command[1:], urls[0], urls[1])...)
		cmd.Env = append(os.Environ(), "LULL_INTEROP_DIR="+cmp.Or(os.Getenv("LULL_INTEROP_DIR"), "/var/cache/lull-interop"))
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v; server/testdata/interop/install, run as root, installs what is needed: %s", err, out)
		}
		if got, want := strings.TrimSpace(string(out)), "there: anna\nmissed: tea? AP8=\nthen: back?"; got != want {
			t.Errorf("%s: %q, not %q", command[0], got, want)
		}
	}
}
