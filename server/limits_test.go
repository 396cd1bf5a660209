package server_test

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/internal/testkit"
	"github.com/seed-134acfd0/lull/netpoll"
	"github.com/seed-134acfd0/lull/server"
)

// plug is a client's socket. The test opens it before the descriptors run out.
type plug struct {
	t  *testing.T
	fd int
}

func newPlug(t *testing.T) plug {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	wait := unix.NsecToTimeval(patience.Nanoseconds())
	must(unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait))
	return plug{t, fd}
}

func (p plug) Read(b []byte) (int, error) {
	n, err := unix.Read(p.fd, b)
	for err == unix.EINTR { // the runtime interrupts threads
		n, err = unix.Read(p.fd, b)
	}
	if n == 0 && err == nil {
		err = io.EOF
	}
	return max(n, 0), err
}

// ask connects and sends the request.
func (p plug) ask(to netip.AddrPort) {
	p.t.Helper()
	must(unix.Connect(p.fd, &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}))
	if _, err := unix.Write(p.fd, []byte(request)); err != nil {
		p.t.Fatal(err)
	}
}

// expect reads the beginning of what the server says next.
func (p plug) expect(want string) {
	p.t.Helper()
	got := make([]byte, len(want))
	if _, err := io.ReadFull(p, got); string(got) != want {
		p.t.Fatalf("got %q, %v, want %q", got, err, want)
	}
}

// answered reads the response that completes the opening handshake.
func (p plug) answered() {
	p.t.Helper()
	var head []byte
	for one := make([]byte, 1); !strings.HasSuffix(string(head), "\r\n\r\n"); head = append(head, one[0]) {
		if _, err := p.Read(one); err != nil {
			p.t.Fatalf("%v after %q", err, head)
		}
	}
	if err := frame.CheckResponse(head, frame.SampleKey); err != nil {
		p.t.Error(err)
	}
}

// leave lowers the soft limit and fills gaps, so that n descriptors are left.
func leave(t *testing.T, n int) {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	must(err)
	highest, last := 0, 0
	for _, e := range entries {
		fd, err := strconv.Atoi(e.Name())
		must(err)
		highest = max(highest, fd)
	}
	for last < highest {
		last, err = unix.FcntlInt(0, unix.F_DUPFD_CLOEXEC, 0)
		must(err)
	}
	setLimit(t, last+1+n)
}

func setLimit(t *testing.T, n int) {
	t.Helper()
	var limit unix.Rlimit
	must(unix.Getrlimit(unix.RLIMIT_NOFILE, &limit))
	limit.Cur = uint64(n)
	must(unix.Setrlimit(unix.RLIMIT_NOFILE, &limit))
}

// Without descriptors, accepting pauses, and the log says so once. Open connections
// go on, and waiting ones are accepted when others end.
func TestAcceptingRestsWhenDescriptorsRunOut(t *testing.T) {
	t.Parallel()
	const peers = 50
	rows := []struct {
		tables netpoll.Tables
		limit  func(*testing.T)
	}{
		{netpoll.Shared, func(t *testing.T) { leave(t, 25) }},
		// The peers' sockets are in this table, not in the reactor's.
		{netpoll.Private, func(t *testing.T) { setLimit(t, 40) }},
	}
	for _, row := range rows {
		t.Run(row.tables.String(), func(t *testing.T) {
			t.Parallel()
			if asProcess(t) {
				return
			}
			s := start(t, server.Handler{}, server.Options{Tables: row.tables, IdleTimeout: 2 * time.Second})
			s.open().leave() // so that the reactor has its table
			plugs := make([]plug, peers)
			for i := range plugs {
				plugs[i] = newPlug(t)
			}
			row.limit(t)
			for _, p := range plugs {
				p.ask(s.Addrs()[0])
			}
			s.counted("accept_pauses", 1)
			// This takes long enough for many pauses.
			plugs[0].answered()
			plugs[0].expect("\x89\x00")
			served := int(s.Stats().Open)
			if served < 15 || served > 35 {
				t.Fatalf("%d peers are served", served)
			}
			for _, p := range plugs[1:served] {
				p.answered()
			}
			s.counted("accept_pauses", 1)
			s.counted("opened", 1+served)
			s.log.one(t, "ERROR cannot accept, trying again", "error=too many open files", "do=raise RLIMIT_NOFILE")

			for _, p := range plugs[:served] {
				unix.Close(p.fd)
			}
			for _, p := range plugs[served:] {
				p.answered()
				unix.Close(p.fd)
			}
			s.counted("opened", 1+peers)
			if n := count(s.Stats(), "accept_pauses"); n > peers {
				t.Errorf("accepting rested %d times", n)
			}
		})
	}
}

// Listen fails if RLIMIT_NOFILE leaves no room for connections. The default of MaxConns
// is what the limit has room for.
func TestAServerNeedsDescriptors(t *testing.T) {
	t.Parallel()
	if asProcess(t) {
		return
	}
	setLimit(t, 60)
	_, err := server.Listen([]string{"127.0.0.1:0"}, server.Handler{}, server.Options{})
	if err == nil || !strings.Contains(err.Error(), "no room for connections under this RLIMIT_NOFILE") {
		t.Errorf("Listen returned %v", err)
	}
	setLimit(t, 200)
	for _, tables := range []netpoll.Tables{netpoll.Shared, netpoll.Private} {
		s := start(t, echo, server.Options{Tables: tables})
		if n := s.Options().MaxConns; n < 100 || n > 200 {
			t.Errorf("%v: room for %d connections", tables, n)
		}
		s.open().echoed("hello")
	}
	s := start(t, echo, server.Options{Tables: netpoll.Private, Reactors: 4, MaxConns: 500})
	s.open().echoed("hello")
}

// Where the system filters unshare, as containers' default profiles do, reactors
// share one table, and the log says so.
func TestTablesAreSharedWhereThereAreNoPrivateOnes(t *testing.T) {
	t.Parallel()
	if asProcess(t) {
		return
	}
	must(testkit.DenyUnshare())
	s := start(t, echo, server.Options{Mode: server.Workers})
	if tables := s.Options().Tables; tables != netpoll.Shared {
		t.Errorf("the tables are %v", tables)
	}
	s.log.one(t, "WARN reactors share one descriptor table")
	s.open().echoed("hello")
}

// What may wait for all peers is a part of what the control group allows, not of
// what the machine has.
func TestOutboxesFitIntoTheControlGroup(t *testing.T) {
	const limit = 512 << 20
	if asProcess(t) {
		return
	}
	joinMemoryGroup(t, limit)
	if n := start(t, echo, server.Options{}).Options().MaxOutboxTotal; n != limit/8 {
		t.Errorf("peers may be owed %d bytes in a group that is allowed %d", n, limit)
	}
}

// joinMemoryGroup moves the process into a new control group of version 1 that is
// allowed so many bytes, and back at the end. Version 2 lets no group that has
// processes limit the groups below it.
func joinMemoryGroup(t *testing.T, limit int) {
	t.Helper()
	groups, _ := os.ReadFile("/proc/self/cgroup")
	_, rest, _ := strings.Cut(string(groups), ":memory:")
	path, _, found := strings.Cut(rest, "\n")
	above := filepath.Join("/sys/fs/cgroup/memory", path)
	group := filepath.Join(above, fmt.Sprint("lull-test-", os.Getpid()))
	write := func(file string, n int) error { return os.WriteFile(file, fmt.Append(nil, n), 0) }
	if err := os.Mkdir(group, 0o755); !found || err != nil {
		t.Skip("no control group can be made here:", err)
	}
	t.Cleanup(func() {
		if err := errors.Join(write(filepath.Join(above, "cgroup.procs"), os.Getpid()), os.Remove(group)); err != nil {
			t.Error(err)
		}
	})
	if err := errors.Join(write(filepath.Join(group, "memory.limit_in_bytes"), limit), write(filepath.Join(group, "cgroup.procs"), os.Getpid())); err != nil {
		t.Skip("a control group cannot be used:", err)
	}
}
