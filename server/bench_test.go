package server_test

import (
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/internal/deflate"
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

// BenchmarkBroadcastJSON measures a kilobyte of JSON to many connections, plain and
// compressed, until the last one has read it.
func BenchmarkBroadcastJSON(b *testing.B) {
	text := jsonOf(1 << 10)
	for _, conns := range []int{1000, 5000} {
		for _, compress := range []bool{false, true} {
			b.Run(fmt.Sprintf("conns=%d/compress=%v", conns, compress), func(b *testing.B) {
				s := start(b, server.Handler{}, server.Options{Reactors: 1, Tables: netpoll.Private, Compress: compress})
				clients := make([]*client, conns)
				for i := range clients {
					if clients[i] = s.dial(); compress {
						clients[i].agree()
					} else {
						clients[i].handshake()
					}
					must(clients[i].SetDeadline(time.Time{}))
				}
				wire := frame.Append(nil, frame.Text, text)
				if compress {
					wire, _ = new(deflate.Deflater).AppendFrame(nil, frame.Text, text, frame.MaxWindow)
				}
				b.ReportAllocs()
				b.ResetTimer()
				for range b.N {
					must(s.Broadcast(frame.Text, text))
					for _, c := range clients {
						if _, err := io.ReadFull(c.TCPConn, wire); err != nil {
							b.Fatal(err)
						}
					}
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(conns), "ns/delivery")
				b.ReportMetric(float64(len(wire)), "wire-B/delivery")
			})
		}
	}
}

// jsonOf is a list of prices, as a ticker sends them.
func jsonOf(size int) []byte {
	var list []map[string]any
	rng := rand.New(rand.NewPCG(1, 2))
	for {
		text, err := json.Marshal(list)
		must(err)
		if len(text) >= size {
			return text
		}
		list = append(list, map[string]any{
			"symbol": fmt.Sprintf("%c%c%c", 'A'+rng.IntN(26), 'A'+rng.IntN(26), 'A'+rng.IntN(26)),
			"bid":    float64(rng.IntN(100_000)) / 100, "ask": float64(rng.IntN(100_000)) / 100, "volume": rng.IntN(10_000),
		})
	}
}
