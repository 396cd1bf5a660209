package server_test

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/server"
)

// leaveWhenAsked reads until a Close frame comes, answers it, and returns its reason.
func (c *client) leaveWhenAsked(code frame.Code) (reason string) {
	reason = c.expectClose(code)
	c.write(closing(code, ""))
	c.Close()
	return reason
}

func TestADrainAsksOneAfterTheOther(t *testing.T) {
	t.Parallel() // it waits
	inModes(t, func(t *testing.T, o server.Options) {
		const conns = 40
		o.DrainTime, o.DrainReturn = time.Second, time.Minute
		for _, o.DrainNewestFirst = range []bool{false, true} {
			s := start(t, echo, o)
			left := make(chan int, conns)
			var retries = make([]string, conns)
			for i, c := range s.openMany(conns) {
				go func() {
					retries[i] = c.leaveWhenAsked(frame.ServiceRestart)
					left <- i
				}()
			}
			s.Drain()
			s.Drain() // does nothing
			if !s.Stats().Draining {
				t.Error("the Stats do not say that the server drains")
			}
			order := make([]int, conns)
			for i := range order {
				order[i] = <-left
			}
			early := 0 // of the first half to leave, those who came in the first half
			for _, i := range order[:conns/2] {
				if i < conns/2 {
					early++
				}
			}
			if !o.DrainNewestFirst && early < conns/4 || o.DrainNewestFirst && early > conns/4 {
				t.Errorf("newest first %v: they left in the order %v", o.DrainNewestFirst, order)
			}
			slices.Sort(retries)
			for _, reason := range retries {
				wait, is := strings.CutPrefix(reason, "retry=")
				if d, err := time.ParseDuration(wait); !is || err != nil || d < 0 || d > o.DrainReturn {
					t.Errorf("the reason is %q", reason)
				}
			}
			if len(slices.Compact(retries)) < conns/2 {
				t.Errorf("they return at the same time: %q", retries)
			}
			must(s.stop())
			s.counted("drained", conns)
			s.counted("closed_clean", conns)
		}
	})
}

// What a client sent before it was asked is handled, and the answers come before the
// Close frame, however long handlers take.
func TestADrainLosesNothing(t *testing.T) {
	t.Parallel() // it waits
	taken, release := make(chan struct{}, 100), make(chan struct{})
	h := server.Handler{Message: func(c server.Conn, op frame.Op, data []byte) {
		taken <- struct{}{}
		<-release
		must(c.Send(op, data))
	}}
	s := start(t, h, server.Options{Mode: server.Workers, DrainTime: 8 * time.Second})
	c, next := s.open(), s.open()
	for range 10 {
		c.send(frame.Text, "hello")
	}
	<-taken
	s.Drain()
	next.leaveWhenAsked(frame.ServiceRestart) // so the older one was asked
	close(release)
	for range 10 {
		c.expect(frame.Text, "hello")
	}
	c.leaveWhenAsked(frame.ServiceRestart)
	must(s.stop())
}

func TestADrainBeginsAfterItsDelayAndLetsNobodyIn(t *testing.T) {
	everywhere(t, func(t *testing.T, o server.Options) {
		o.DrainDelay, o.DrainTime = 500*time.Millisecond, time.Hour
		s := start(t, echo, o)
		members := s.openMany(3)
		s.Drain()
		members[0].echoed("still here")
		s.open().leave()
		eventually(t, "nobody is let in", func() bool {
			c := s.dial()
			defer c.Close()
			c.write(request)
			head, err := c.tryHead()
			return err == nil && strings.HasPrefix(head, "HTTP/1.1 503 ") && strings.Contains(head, "\r\nRetry-After: ")
		})
		if n := s.Stats().RefusedBy["draining"]; n == 0 {
			t.Error("refusals are not counted")
		}
		members[0].echoed("still here")
		ended := make(chan error, 1)
		go func() { ended <- s.stop() }() // as a second signal does
		for _, c := range members {
			c.leaveWhenAsked(frame.ServiceRestart)
		}
		must(<-ended)
	})
}

// A server of which all have left ends, though its time is not over.
func TestADrainEndsWhenAllHaveLeft(t *testing.T) {
	s, err := server.Listen([]string{"127.0.0.1:0"}, echo, server.Options{DrainTime: time.Hour})
	must(err)
	s.Drain()
	must(s.Run(context.Background()))
	if _, err := http.Get("http://" + s.Addrs()[0].String()); err == nil {
		t.Error("it still listens")
	}
}
