//go:build !race

package server

import (
	"bytes"
	"testing"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/netpoll"
)

// With the race detector a sync.Pool forgets some of what it is given.

// An answer to a compressed message is compressed, and neither allocates.
func TestACompressedAnswerDoesNotAllocate(t *testing.T) {
	r := bare(t, Handler{Message: func(c Conn, op frame.Op, data []byte) { _ = c.Send(op, data) }}, Options{Compress: true})
	c, peer := r.join(t, stateOpen)
	c.terms = termsOf(OutboxClose, frame.MaxWindow)
	r.server.compress.peers.Add(1)
	payload := bytes.Repeat([]byte("0123456789"), 100)
	wire := frame.AppendMasked(nil, frame.Binary|frame.Deflated, [4]byte{1, 2, 3, 4}, deflater.Deflate(nil, payload, frame.MaxWindow))
	buf := make([]byte, 1000)
	n := testing.AllocsPerRun(1000, func() {
		if _, err := netpoll.Write(peer, wire); err != nil {
			t.Fatal(err)
		}
		r.round(t)
		got := hears(t, peer, buf)
		ev, _, err := clientParser.Next(new(frame.State), got)
		if err != nil || !ev.Deflated || len(got) > 100 {
			t.Fatalf("answered %v, %v, in %d bytes", ev, err, len(got))
		}
	})
	if n >= 1 { // the garbage collector may take a compressor
		t.Errorf("%v allocations for a message and its answer", n)
	}
}

// underRace says that the race detector watches, which takes ten times as long.
const underRace = false
