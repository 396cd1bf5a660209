package server_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/netpoll"
	"github.com/seed-134acfd0/lull/server"
)

func TestAFullServerAnswers503UntilAConnectionEnds(t *testing.T) {
	everywhere(t, func(t *testing.T, o server.Options) {
		o.MaxConns = 4
		s := start(t, echo, o)
		members := s.openMany(o.MaxConns)
		for i := range 10 {
			c := s.dial()
			c.write(request)
			r, body := c.response()
			if r.StatusCode != http.StatusServiceUnavailable || r.Header.Get("Retry-After") == "" || body == "" {
				t.Errorf("answered %s %v %q", r.Status, r.Header, body)
			}
			c.Close()
			members[i%o.MaxConns].leave()
			eventually(t, "its place is free", func() bool { return s.Stats().Open == int64(o.MaxConns-1) })
			members[i%o.MaxConns] = s.open()
		}
		for _, c := range members {
			c.echoed("hello")
		}
		s.counted("rejected", 10)
		if n := s.Stats().Open; n != int64(o.MaxConns) {
			t.Errorf("%d connections are open", n)
		}
	})
}

// When a server ends, it sends Close frames to all peers and waits for the answers.
func TestTheServersEndIsAClosingHandshake(t *testing.T) {
	const conns = 40
	everywhere(t, func(t *testing.T, o server.Options) {
		h := echo
		var told <-chan ending
		h.Close, told = endings()
		s := start(t, h, o)
		clients := s.openMany(conns)
		late := s.dial() // has not sent its request yet
		late.write(request[:20])
		s.counted("accepted", conns+1)
		must(publish(s.Server, "last news"))
		ended := make(chan error)
		go func() { ended <- s.stop() }()
		for _, c := range clients {
			c.expect(frame.Text, "last news")
			if reason := c.expectClose(frame.GoingAway); reason == "" {
				t.Error("Close says no reason")
			}
		}
		if r, _ := late.response(); r.StatusCode != http.StatusServiceUnavailable || r.Header.Get("Retry-After") == "" {
			t.Errorf("answered %s %v", r.Status, r.Header)
		}
		late.Close()
		// No new connection is accepted any more.
		if conn, err := net.Dial("tcp", s.address()); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("a new connection: %v, %v", conn, err)
		}
		select {
		case err := <-ended:
			t.Fatalf("Run returned %v before the peers have answered", err)
		default:
		}
		for _, c := range clients {
			c.write(closing(frame.GoingAway, ""))
			c.expectEnd()
		}
		if err := <-ended; err != nil {
			t.Errorf("Run returned %v", err)
		}
		for range clients {
			expectEnding(t, told, frame.GoingAway, nil)
		}
		stats := s.Stats()
		if clean := count(stats, "closed_clean"); clean != conns || stats.Open != 0 {
			t.Errorf("%d closed, %d are open", clean, stats.Open)
		}
	})
}

func TestPeersThatDoNotLeaveAreCutOffAtTheEnd(t *testing.T) {
	t.Parallel()
	everywhere(t, func(t *testing.T, o server.Options) {
		t.Parallel()
		onClose, told := endings()
		o.Grace = 500 * time.Millisecond
		s := start(t, server.Handler{Close: onClose}, o)
		silent, talkative, lingering := s.open(), s.open(), s.open()
		lingering.write("nonsense")
		lingering.expectClose(frame.ProtocolError)
		expectEnding(t, told, frame.ProtocolError, &frame.Error{Code: frame.ProtocolError})
		stopping := make(chan struct{})
		go func() {
			for {
				select {
				case <-stopping:
					return
				default:
					if _, err := talkative.Write([]byte(message(frame.Ping, ""))); err != nil {
						return
					}
				}
			}
		}()
		if err := s.stop(); err != nil {
			t.Errorf("Run returned %v", err)
		}
		close(stopping)
		for range 2 {
			expectEnding(t, told, frame.Abnormal, server.ErrShutdown)
		}
		for _, c := range []*client{silent, lingering, talkative} {
			c.expectCut()
		}
		stats := s.Stats()
		if cut := count(stats, "closed_shutdown"); cut != 2 || stats.Open != 0 {
			t.Errorf("%d cut, %d are open", cut, stats.Open)
		}
	})
}

func TestAServerWithoutConnectionsEnds(t *testing.T) {
	everywhere(t, func(t *testing.T, o server.Options) {
		s := start(t, server.Handler{}, o)
		if err := s.stop(); err != nil {
			t.Errorf("Run returned %v", err)
		}
		if err := s.Broadcast(frame.Text, nil); err != server.ErrClosed {
			t.Errorf("Broadcast returned %v", err)
		}
	})
}

func TestAPortCanBeListenedOnAgainAtOnce(t *testing.T) {
	onBothTables(t, func(t *testing.T, o server.Options) {
		first := start(t, echo, o)
		first.open().leave() // leaves a socket in TIME_WAIT
		if err := first.stop(); err != nil {
			t.Fatal(err)
		}
		startOn(t, first.address(), echo, o).open().echoed("hello")
	})
}

func TestSeveralAddresses(t *testing.T) {
	everywhere(t, func(t *testing.T, o server.Options) {
		s := startOn(t, "127.0.0.1:0,[::1]:0,localhost:0,:0", echo, o)
		addrs := s.Addrs()
		ports := map[uint16]bool{}
		for _, a := range addrs {
			ports[a.Port()] = true
		}
		if len(addrs) != 4 || len(ports) != 4 || ports[0] {
			t.Fatalf("listening on %v", addrs)
		}
		everyone := fmt.Sprint(addrs[3].Port())
		for _, address := range []string{
			addrs[0].String(), addrs[1].String(), addrs[2].String(), "127.0.0.1:" + everyone, "[::1]:" + everyone,
		} {
			c := dial(t, &net.Dialer{}, address).handshake()
			c.echoed(address)
			c.leave()
		}
	})
}

// sockets counts this process's sockets.
func sockets(t *testing.T) (n int) {
	t.Helper()
	const dir = "/proc/self/fd"
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if name, err := os.Readlink(dir + "/" + e.Name()); err == nil && strings.HasPrefix(name, "socket:") {
			n++
		}
	}
	return n
}

func TestListenSaysWhatIsWrongAndLeavesNothingOpen(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	rows := []struct {
		name, address string
		want          error // nil for any
	}{
		{"in use", taken.Addr().String(), syscall.EADDRINUSE},
		{"the second in use", "127.0.0.1:0," + taken.Addr().String(), syscall.EADDRINUSE},
		{"not ours", "192.0.2.1:0", syscall.EADDRNOTAVAIL},
		{"empty", "", nil},
		{"no port", "127.0.0.1", nil},
		{"a port that is none", "127.0.0.1:70000", nil},
		{"a name that is none", "127.0.0.1:0,no such host:0", nil},
		{"a comma too many", "127.0.0.1:0,", nil},
	}
	before := sockets(t)
	for _, row := range rows {
		s, err := server.Listen(strings.Split(row.address, ","), server.Handler{}, server.Options{})
		if s != nil || err == nil || row.want != nil && !errors.Is(err, row.want) || !strings.HasPrefix(err.Error(), "server: ") {
			t.Errorf("%s: %v, %v", row.name, s, err)
		}
	}
	if after := sockets(t); after != before {
		t.Errorf("%d sockets became %d", before, after)
	}
}

func TestOptionsShowsTheDefaults(t *testing.T) {
	s := start(t, server.Handler{}, server.Options{MaxConns: 7})
	if o := s.Options(); o.MaxConns != 7 || o.MaxMessage == 0 || o.Tables == netpoll.Auto || o.Log == nil {
		t.Errorf("options are %+v", o)
	}
}

// Connections, and what they send, wait until Run is called.
func TestConnectionsMayWaitForRun(t *testing.T) {
	onBothTables(t, func(t *testing.T, o server.Options) {
		o.Log = slog.New(slog.DiscardHandler)
		s, err := server.Listen([]string{"127.0.0.1:0"}, echo, o)
		if err != nil {
			t.Fatal(err)
		}
		c := dial(t, &net.Dialer{}, s.Addrs()[0].String())
		c.write(request + message(frame.Text, "early"))
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- s.Run(ctx) }()
		c.accepted()
		c.expect(frame.Text, "early")
		c.leave()
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run returned %v", err)
		}
	})
}
