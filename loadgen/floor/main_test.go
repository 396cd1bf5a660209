package main

import (
	"bytes"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/netpoll"
)

// connection is a thread with one open connection, and that connection's peer. The
// peer's socket keeps what was sent with one system call together.
func connection(t *testing.T) (th *thread, fd, peer int) {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	wake, err := unix.Eventfd(0, unix.EFD_NONBLOCK)
	if err != nil {
		t.Fatal(err)
	}
	th = &thread{wake: wake, open: make([]bool, pair[0]+1)}
	th.open[pair[0]] = true
	before := threads
	threads = []*thread{th}
	t.Cleanup(func() {
		threads, echo, coalesce = before, false, false
		for _, fd := range []int{pair[0], pair[1], wake} {
			_ = unix.Close(fd)
		}
	})
	return th, pair[0], pair[1]
}

func TestFramesThatWaitAreSentTogetherOnlyWithCoalesce(t *testing.T) {
	var in, out []byte
	for _, text := range []string{"one", "two", "three"} {
		in = frame.AppendMasked(in, frame.Binary, [4]byte{}, []byte(text))
		out = frame.Append(out, frame.Binary, []byte(text))
	}
	for _, row := range []struct {
		echo, coalesce bool
		sends          int
	}{{true, false, 3}, {true, true, 1}, {false, false, 3}, {false, true, 1}} {
		th, fd, peer := connection(t)
		echo, coalesce = row.echo, row.coalesce
		th.messages(fd, bytes.Clone(in))
		th.fanOut()
		for th.pass.left > 0 {
			th.pass.step(th.open)
		}
		var got []byte
		sends := 0
		for buf := make([]byte, 1024); ; sends++ {
			n, err := netpoll.Read(peer, buf)
			if err != nil {
				t.Fatal(err)
			}
			if n == 0 { // nothing more is there
				break
			}
			got = append(got, buf[:n]...)
		}
		if sends != row.sends || !bytes.Equal(got, out) {
			t.Errorf("%+v: %d sends of %q, want %q", row, sends, got, out)
		}
	}
}

// A frame that comes during a pass reaches everybody once: those before it, later.
func TestAPassSendsEachConnectionAllFramesOnce(t *testing.T) {
	th, _, _ := connection(t)
	coalesce = true
	var peers []int
	for range 3 * passSends {
		pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(pair[0])
		defer unix.Close(pair[1])
		for pair[0] >= len(th.open) {
			th.open = append(th.open, false)
		}
		th.open[pair[0]] = true
		peers = append(peers, pair[1])
	}
	for _, frames := range []string{"a", "b", "c"} {
		th.post([]byte(frames))
		th.fanOut()
		th.pass.step(th.open)
	}
	for th.pass.left > 0 {
		th.pass.step(th.open)
	}
	for _, peer := range peers {
		buf := make([]byte, 16)
		if n, err := netpoll.Read(peer, buf); err != nil || string(buf[:n]) != "abc" {
			t.Fatalf("%q, %v", buf[:max(0, n)], err)
		}
	}
	if len(th.pass.frames) > 0 {
		t.Errorf("%q is left", th.pass.frames)
	}
}
