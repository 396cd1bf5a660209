package server_test

import (
	"net"
	"net/netip"
	"slices"
	"testing"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/server"
)

func TestAConnectionKnowsItsClientsAddress(t *testing.T) {
	everywhere(t, func(t *testing.T, o server.Options) {
		var w crowd
		opened := make(chan netip.AddrPort, 3)
		s := start(t, server.Handler{
			Open: func(c server.Conn) { w.open(c); opened <- c.RemoteAddr() },
		}, o)
		for range 3 {
			c := s.open()
			want := c.LocalAddr().(*net.TCPAddr).AddrPort()
			if a := <-opened; a != want {
				t.Errorf("in Open it is %v, not %v", a, want)
			}
			conns := w.all()
			if a := conns[len(conns)-1].RemoteAddr(); a != want {
				t.Errorf("elsewhere it is %v, not %v", a, want)
			}
			c.leave()
			eventually(t, "the connection has ended", func() bool { return !conns[len(conns)-1].RemoteAddr().IsValid() })
		}
		must(s.stop())
		if a := w.all()[0].RemoteAddr(); a.IsValid() {
			t.Errorf("after the server's end it is %v", a)
		}
	})
}

func TestConnsComeOnceEach(t *testing.T) {
	onBothTables(t, func(t *testing.T, o server.Options) {
		var w crowd
		s := start(t, server.Handler{Open: w.open, Close: w.close}, o)
		check := func() {
			t.Helper()
			got := slices.SortedFunc(s.Conns(), byID)
			if want := slices.SortedFunc(slices.Values(w.all()), byID); !slices.Equal(got, want) {
				t.Errorf("they are %d: %v, not %d: %v", len(got), got, len(want), want)
			}
		}
		check()
		clients, _ := w.openMany(s, 300) // more than a batch
		s.dial()                         // sends no request
		check()
		for _, c := range clients[:140] {
			c.leave()
		}
		eventually(t, "they have left", func() bool { return len(w.all()) == 160 })
		check()
		for c := range s.Conns() {
			must(c.Send(frame.Text, []byte("you are the first")))
			break
		}
		must(s.stop())
		for c := range s.Conns() {
			t.Errorf("%v is left", c)
		}
	})
}

func TestAConnectionIsFoundByItsID(t *testing.T) {
	everywhere(t, func(t *testing.T, o server.Options) {
		ids, opened := make(chan uint64, 1), make(chan server.Conn, 1)
		s := start(t, server.Handler{
			Upgrade: func(r *server.Request) error { r.Tag, r.Policy = 7, server.OutboxDropNew; ids <- r.ID(); return nil },
			Open:    func(c server.Conn) { opened <- c },
		}, o)
		c := s.open()
		conn, id := <-opened, <-ids
		if found, ok := s.Conn(id); !ok || found != conn {
			t.Errorf("found %v, %v, not %v", found, ok, conn)
		}
		for _, wrong := range []uint64{0, id + 1, id + 1<<32, 1<<64 - 1} {
			if found, ok := s.Conn(wrong); ok || found != (server.Conn{}) {
				t.Errorf("%x is %v", wrong, found)
			}
		}
		c.leave()
		eventually(t, "it is gone", func() bool { _, ok := s.Conn(id); return !ok })
	})
}

func byID(a, b server.Conn) int {
	if a.ID() < b.ID() {
		return -1
	}
	return 1
}

// Reactors that waited for each other would never go on.
func TestInlineHandlersSeeTheirReactorsConnections(t *testing.T) {
	everywhere(t, func(t *testing.T, o server.Options) {
		s := start(t, server.Handler{Message: func(c server.Conn, op frame.Op, data []byte) {
			found := 0
			for other := range c.Server().Conns() {
				if other == c {
					found++
				}
				other.RemoteAddr()
			}
			if found != 1 {
				t.Errorf("a connection found itself %d times", found)
			}
			must(c.Send(op, data))
		}}, o)
		clients := s.openMany(8)
		for range 10 {
			for _, c := range clients {
				c.send(frame.Text, "hello")
			}
			for _, c := range clients {
				c.expect(frame.Text, "hello")
			}
		}
	})
}

func TestNobodyIsThereBeforeRun(t *testing.T) {
	s, err := server.Listen([]string{"127.0.0.1:0"}, server.Handler{}, server.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for c := range s.Conns() {
		t.Errorf("%v is there", c)
	}
}
