package record

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func BenchmarkSeal(b *testing.B) {
	each(b, func(b *testing.B, l *Layer, from, _ *State, slots uint32) {
		message, buf := make([]byte, 100), make([]byte, 0, 200)
		for i := uint32(0); b.Loop(); i++ {
			from.write.seq = 0
			l.Seal(i%slots, from, buf, message)
		}
	})
}

func BenchmarkOpen(b *testing.B) {
	each(b, func(b *testing.B, l *Layer, from, to *State, slots uint32) {
		sealed := l.Seal(0, from, nil, make([]byte, 100))
		in := make([]byte, len(sealed))
		for i := uint32(0); b.Loop(); i++ {
			to.read.seq = 0
			copy(in, sealed)
			if _, _, _, err := l.Open(i%slots, to, in); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// each runs f for all suites, with the cipher at hand, and never at hand.
func each(b *testing.B, f func(b *testing.B, l *Layer, from, to *State, slots uint32)) {
	for _, suite := range allSuites {
		for name, slots := range map[string]uint32{"at hand": 1, "derived": 1 << 10} {
			b.Run(fmt.Sprintf("%s/%s", tls.CipherSuiteName(suite), name), func(b *testing.B) {
				b.ReportAllocs()
				from, to := both(suite)
				f(b, NewLayer(ways), &from, &to, slots)
			})
		}
	}
}

// A server's handshake on this package beside one on crypto/tls alone. The figures
// are processor time, with the client's, which is crypto/tls in both.
func BenchmarkHandshake(b *testing.B) {
	for _, resumed := range []bool{false, true} {
		b.Run(map[bool]string{false: "full", true: "resumed"}[resumed], func(b *testing.B) {
			server, client := configs(b)
			if !resumed {
				client.ClientSessionCache = nil
			}
			ours := ServerConfig(server)
			var alone, here time.Duration
			run := func(serve func(*pipe) error) time.Duration {
				start := processorTime(b)
				for range 20 {
					s, c := newPipe()
					ended := make(chan error, 1)
					go func() { ended <- serve(s) }()
					dial(b, c, client)
					must(b, <-ended)
				}
				return (processorTime(b) - start) / 20
			}
			for b.Loop() {
				alone += run(func(s *pipe) error { return tls.Server(s, server).Handshake() })
				here += run(func(s *pipe) error { return serve(s, ours) })
			}
			b.ReportMetric(float64(alone)/float64(b.N), "crypto-tls-ns")
			b.ReportMetric(float64(here)/float64(b.N), "record-ns")
			b.ReportMetric(float64(here)/float64(alone), "ratio")
		})
	}
}

func processorTime(b *testing.B) time.Duration {
	var r unix.Rusage
	must(b, unix.Getrusage(unix.RUSAGE_SELF, &r))
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// dial makes the handshake, and reads the session ticket.
func dial(b *testing.B, conn *pipe, c *tls.Config) {
	client := tls.Client(conn, c)
	must(b, client.Handshake())
	conn.dry = true
	client.Read(make([]byte, 1))
}

// serve is what a reactor does for a handshake.
func serve(conn *pipe, c *Config) error {
	notified := make(chan struct{}, 2)
	h := c.Start(func() { notified <- struct{}{} })
	buf := make([]byte, 4096)
	for {
		n, _ := conn.Read(buf)
		if err := h.Feed(buf[:n]); err != nil {
			return err
		}
		<-notified
		out, ended := h.Output()
		conn.Write(out)
		if ended {
			_, err := h.Result()
			return err
		}
	}
}

// pipe is one end of a connection in memory, which holds what is written.
type pipe struct {
	transport
	peer *pipe
	buf  bytes.Buffer
	mu   sync.Mutex
	cond *sync.Cond
	dry  bool // an empty pipe does not wait
}

func newPipe() (a, b *pipe) {
	a, b = &pipe{}, &pipe{}
	a.peer, b.peer = b, a
	a.cond, b.cond = sync.NewCond(&a.mu), sync.NewCond(&b.mu)
	return a, b
}

func (p *pipe) Read(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.buf.Len() == 0 {
		if p.dry {
			return 0, noRecord{}
		}
		p.cond.Wait()
	}
	return p.buf.Read(b)
}

func (p *pipe) Write(b []byte) (int, error) {
	q := p.peer
	q.mu.Lock()
	defer q.mu.Unlock()
	q.cond.Signal()
	return q.buf.Write(b)
}
