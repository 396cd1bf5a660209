package server

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/seed-134acfd0/lull/frame"
)

// fill fills a connection's send buffer, so that its socket takes no more.
func fill(t *testing.T, fd int) {
	t.Helper()
	for {
		if _, err := unix.Write(fd, make([]byte, 4096)); err == unix.EAGAIN {
			return
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

// While a message of B is handled, its answer is dropped, and an answer to C has to
// wait. The rest of B's read must still count as B's, and C's next message must
// contain only C's bytes.
func TestBytesOfConnectionsAreNotMixedUp(t *testing.T) {
	var b, c Conn
	got := map[Conn][]string{}
	r := bare(t, Handler{Message: func(from Conn, op frame.Op, data []byte) {
		got[from] = append(got[from], string(data))
		if from == b {
			_ = b.Send(op, make([]byte, 2000)) // more than there is room for
			_ = c.Send(op, []byte("waits"))
		}
	}}, Options{OutboxPolicy: OutboxDropNew, MaxOutboxTotal: 1000})
	slotB, peerB := r.join(t, stateOpen)
	slotC, peerC := r.join(t, stateOpen)
	b, c = r.handle(slotB), r.handle(slotC)
	fill(t, int(slotB.FD))
	fill(t, int(slotC.FD))
	say := func(peer int, fragments ...string) {
		var wire []byte
		for _, f := range fragments {
			piece := frame.AppendMasked(nil, frame.Text, [4]byte{1, 2, 3, 4}, []byte(f[1:]))
			switch f[0] {
			case '<': // the first
				piece[0] = byte(frame.Text)
			case '-': // one in between
				piece[0] = byte(frame.Continuation)
			case '>': // the last
				piece[0] = 0x80 | byte(frame.Continuation)
			}
			wire = append(wire, piece...)
		}
		if _, err := unix.Write(peer, wire); err != nil {
			t.Fatal(err)
		}
		r.round(t)
		r.round(t)
	}
	say(peerB, "<B1")
	say(peerB, ">B1", "<B2", "-B2")
	say(peerC, "<C1", "-C1", ">C1")
	say(peerB, ">B2")
	if want := []string{"B1B1", "B2B2B2"}; len(got[b]) != 2 || got[b][0] != want[0] || got[b][1] != want[1] {
		t.Errorf("B's messages are %q, want %q", got[b], want)
	}
	if len(got[c]) != 1 || got[c][0] != "C1C1C1" {
		t.Errorf("C's messages are %q, want C1C1C1", got[c])
	}
}

// A connection that was accepted late in a turn is read in the next one. The reactor
// does not wait for an event, which may never come.
func TestAnAcceptedConnectionDoesNotWaitForAnEvent(t *testing.T) {
	r := bare(t, Handler{}, Options{})
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pair[1])
	if _, err := unix.Write(pair[1], frame.AppendRequest(nil, "x", "/", frame.SampleKey)); err != nil {
		t.Fatal(err)
	}
	if r.busy() {
		t.Fatal("an idle reactor has work")
	}
	r.take(pair[0])
	if !r.busy() {
		t.Error("a reactor sleeps with a connection that it has accepted and not read")
	}
	if r.round(t); r.counts.Opened != 1 {
		t.Error("the request was not answered in the next turn")
	}
}
