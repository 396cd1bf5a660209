package server_test

import (
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/netpoll"
	"github.com/seed-134acfd0/lull/server"
)

// payload32 is a message as long as those of a chat.
var payload32 = strings.Repeat("x", 32)

// BenchmarkEcho measures one message and its answer over loopback, with several
// messages on their way at a time. It includes the client's system calls. The client
// does not allocate.
func BenchmarkEcho(b *testing.B) {
	for _, depth := range []int{1, 16, 256} {
		b.Run(fmt.Sprintf("depth=%d", depth), func(b *testing.B) {
			c := start(b, echo, server.Options{Reactors: 1, Tables: netpoll.Private}).open()
			must(c.SetDeadline(time.Time{}))
			batch := []byte(strings.Repeat(message(frame.Text, payload32), depth))
			answers := make([]byte, depth*len(frame.Append(nil, frame.Text, []byte(payload32))))
			b.SetBytes(int64(len(payload32)))
			b.ReportAllocs()
			b.ResetTimer()
			for n := 0; n < b.N; n += depth {
				if _, err := c.Write(batch); err != nil {
					b.Fatal(err)
				}
				if _, err := io.ReadFull(c.TCPConn, answers); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkBroadcast measures one message to many connections, until the last one has
// read it.
func BenchmarkBroadcast(b *testing.B) {
	for _, conns := range []int{100, 1000, 5000} {
		b.Run(fmt.Sprintf("conns=%d", conns), func(b *testing.B) {
			s := start(b, server.Handler{}, server.Options{Reactors: 1, Tables: netpoll.Private})
			clients := s.openMany(conns)
			for _, c := range clients {
				must(c.SetDeadline(time.Time{}))
			}
			frame32 := make([]byte, len(frame.Append(nil, frame.Text, []byte(payload32))))
			b.ReportAllocs()
			b.ResetTimer()
			for range b.N {
				must(s.Broadcast(frame.Text, []byte(payload32)))
				for _, c := range clients {
					if _, err := io.ReadFull(c.TCPConn, frame32); err != nil {
						b.Fatal(err)
					}
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(conns), "ns/delivery")
		})
	}
}
