package server_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/internal/testkit"
	"github.com/seed-134acfd0/lull/server"
)

// passages are the ways in which a peer comes and goes.
var passages = []struct {
	name string
	goes func(*client) error
}{
	{"without a word", func(c *client) error { return nil }},
	{"without a word, with a reset", func(c *client) error { return c.SetLinger(0) }},
	{"half a head", func(c *client) error { return c.say(request[:50]) }},
	{"half a head, with a reset", func(c *client) error { return errors.Join(c.say(request[:50]), c.SetLinger(0)) }},
	{"a bad request", func(c *client) error { return errors.Join(c.say("GET / HTTP/1.0\r\n\r\n"), c.hearTheEnd()) }},
	{"a bad request, with a reset", func(c *client) error { return errors.Join(c.say("GET / HTTP/1.0\r\n\r\n"), c.SetLinger(0)) }},
	{"an echo", func(c *client) error { return c.exchange() }},
	{"an echo, with a reset", func(c *client) error { return errors.Join(c.exchange(), c.SetLinger(0)) }},
	{"half a message", func(c *client) error { return errors.Join(c.exchange(), c.say(piece(text, "hel"))) }},
	{"half a message, with a reset", func(c *client) error {
		return errors.Join(c.exchange(), c.say(message(frame.Text, xs(1000))[:500]), c.SetLinger(0))
	}},
	{"a good-bye", func(c *client) error {
		return errors.Join(c.exchange(), c.say(closing(frame.NormalClosure, "")), c.hearTheEnd())
	}},
	{"a breach", func(c *client) error { return errors.Join(c.exchange(), c.say("nonsense"), c.hearTheEnd()) }},
	{"thrown out", func(c *client) error {
		return errors.Join(c.exchange(), c.say(message(frame.Text, "throw me out")+closing(frame.NormalClosure, "")), c.hearTheEnd())
	}},
}

func (c *client) say(wire string) error {
	_, err := io.WriteString(c.TCPConn, wire)
	return err
}

// exchange opens the connection, sends one message and reads its echo.
func (c *client) exchange() error {
	if err := c.say(request + message(frame.Text, "hello")); err != nil {
		return err
	}
	head, err := c.tryHead()
	if err != nil {
		return err
	}
	if err := frame.CheckResponse([]byte(head), frame.SampleKey); err != nil {
		return err
	}
	if op, payload, err := c.next(); op != frame.Text || payload != "hello" || err != nil {
		return fmt.Errorf("got %v %q, %w", op, payload, err)
	}
	return nil
}

func (c *client) hearTheEnd() error {
	_, err := io.Copy(io.Discard, c.in)
	return err
}

// churn lets n peers come and go, several at a time.
func (r *running) churn(n int) {
	const atATime = 16
	var all sync.WaitGroup
	var number atomic.Int64
	for range atATime {
		all.Go(func() {
			for i := number.Add(1); i <= int64(n); i = number.Add(1) {
				passage := passages[i%int64(len(passages))]
				conn, err := net.Dial("tcp", r.address())
				if err != nil {
					r.t.Error(err)
					return
				}
				if err := passage.goes(newClient(r.t, conn)); err != nil {
					r.t.Errorf("%s: %v", passage.name, err)
				}
				conn.Close()
			}
		})
	}
	all.Wait()
}

// usage is what a server uses while only the keepers are connected. Keepers are
// connections that stay open.
type usage struct {
	descriptors    []int // in this table and in each reactor's
	heap, resident int64 // bytes
}

// usage waits until all other connections have ended, and measures.
func (r *running) usage(keepers []*client, threads []int) (u usage) {
	r.t.Helper()
	for _, c := range keepers {
		eventually(r.t, "all slots but one are free", func() bool {
			used, _ := c.slots()
			return used == 1
		})
		if _, high := c.slots(); high > 1000 {
			r.t.Errorf("slots up to %d have been used", high)
		}
	}
	runtime.GC() // it closes descriptors of objects that are not used any more
	debug.FreeOSMemory()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	u.heap = int64(m.HeapAlloc)
	status, err := os.ReadFile("/proc/self/status")
	must(err)
	for line := range strings.Lines(string(status)) {
		var kib int64
		if n, _ := fmt.Sscanf(line, "VmRSS: %d kB", &kib); n == 1 {
			u.resident = kib << 10
		}
	}
	for _, tid := range append([]int{os.Getpid()}, threads...) {
		entries, err := os.ReadDir(fmt.Sprintf("/proc/self/task/%d/fd", tid))
		must(err)
		u.descriptors = append(u.descriptors, len(entries))
	}
	return u
}

// busy keeps the garbage collector and the runtime's own poller at work until stop
// is called.
func busy() (stop func()) {
	return testkit.Repeat(runtime.GC, func() {
		r, w, err := os.Pipe()
		must(err)
		go func() {
			_, _ = w.Write(make([]byte, 4<<10))
			w.Close()
		}()
		_, _ = io.Copy(io.Discard, r)
		r.Close()
		testkit.Garbage()
	})
}

// After thousands of connections have come and gone in every way, while garbage was
// collected on all threads, a server uses no more than before.
func TestChurnLeavesNothingBehind(t *testing.T) {
	const conns = 9_000 // and a fifth before, with each kind of table
	onBothTables(t, func(t *testing.T, o server.Options) {
		if asProcess(t) {
			return
		}
		threads := make(chan int, 1)
		h := newObliging()
		var opens, closes atomic.Int64
		o.Reactors = 2
		s := start(t, server.Handler{
			Open:  func(server.Conn) { opens.Add(1) },
			Close: func(server.Conn, frame.Code, error) { closes.Add(1) },
			Upgrade: func(r *server.Request) error {
				if r.Path() == "/thread" {
					threads <- unix.Gettid()
				}
				return nil
			},
			Message: func(c server.Conn, op frame.Op, data []byte) {
				if string(data) == "throw me out" {
					must(c.Close(frame.PolicyViolation, ""))
					return
				}
				h.message(c, op, data)
			},
		}, o)
		var keepers []*client
		var reactors []int
		for range o.Reactors { // a keeper goes to the reactor with the fewest, so each gets one
			c := s.dial()
			must(c.SetDeadline(time.Time{}))
			c.write(swap("GET /", "GET /thread"))
			c.accepted()
			keepers = append(keepers, c)
			reactors = append(reactors, <-threads)
		}
		if reactors[0] == reactors[1] {
			t.Fatal("the keepers have one reactor")
		}

		stop := busy()
		s.churn(conns / 5) // after it everything has its final size
		stop()
		before := s.usage(keepers, reactors)
		stop = busy()
		s.churn(conns)
		stop()
		after := s.usage(keepers, reactors)
		if !slices.Equal(after.descriptors, before.descriptors) {
			t.Errorf("descriptors: %v became %v", before.descriptors, after.descriptors)
		}
		if grown := after.heap - before.heap; grown > 1<<20 {
			t.Errorf("the heap has grown by %d bytes", grown)
		}
		// The bound is loose, because the race detector needs memory too.
		if grown := after.resident - before.resident; grown > 64<<20 {
			t.Errorf("resident memory has grown by %d bytes", grown)
		}
		stats := s.Stats()
		if n := stats.Open; n != int64(len(keepers)) {
			t.Errorf("%d connections are open", n)
		}
		if n := opens.Load() - closes.Load(); n != int64(len(keepers)) {
			t.Errorf("Open was called %d times more than Close", n)
		}
		opened, ended := count(stats, "opened"), uint64(len(keepers))
		for name, n := range stats.All() {
			if strings.HasPrefix(name, "closed_") {
				ended += n
			}
		}
		if opened != ended {
			t.Errorf("%d opened, %d ended", opened, ended)
		}
		if n := count(stats, "accepted"); n != uint64(conns+conns/5+len(keepers)) {
			t.Errorf("%d accepted", n)
		}
	})
}

// A Close frame and a reset that arrive together free the slot once.
func TestACloseFrameAndAResetFreeOneSlot(t *testing.T) {
	onBothTables(t, func(t *testing.T, o server.Options) {
		h := newObliging()
		s := start(t, server.Handler{Message: h.message}, o)
		keeper := s.open()
		for i := range 3 {
			leaver := s.open()
			release := h.hold(keeper)
			leaver.write(closing(frame.NormalClosure, ""))
			leaver.reset()
			release()
			s.counted("closed_clean", i+1)
		}
		if used, _ := keeper.slots(); used != 1 {
			t.Errorf("%d slots are used", used)
		}
	})
}
