package server_test

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/internal/testkit"
	"github.com/seed-134acfd0/lull/netpoll"
	"github.com/seed-134acfd0/lull/server"
)

// TestMain lets many tests run in parallel. Parallel tests of this package mostly wait
// for timeouts of the server.
func TestMain(m *testing.M) {
	flag.Parse()
	must(flag.Set("test.parallel", "32"))
	os.Exit(m.Run())
}

// Helpers that tests of all packages use.
const patience = testkit.Patience

var (
	eventually = testkit.Eventually
	asProcess  = testkit.AsProcess
)

// onBothTables runs a test on one reactor with each kind of descriptor table.
func onBothTables(t *testing.T, test func(*testing.T, server.Options)) {
	t.Helper()
	for _, tables := range []netpoll.Tables{netpoll.Shared, netpoll.Private} {
		t.Run(tables.String(), func(t *testing.T) {
			test(t, server.Options{Reactors: 1, Tables: tables})
		})
	}
}

// everywhere runs a test on one and on three reactors, with each kind of table, and
// with handlers on reactors and on workers.
func everywhere(t *testing.T, test func(*testing.T, server.Options)) {
	t.Helper()
	onBothTables(t, func(t *testing.T, o server.Options) {
		for _, o.Reactors = range []int{1, 3} {
			for _, o.Mode = range []server.Mode{server.Inline, server.Workers} {
				t.Run(fmt.Sprint(o.Reactors, o.Mode), func(t *testing.T) { test(t, o) })
			}
		}
	})
}

// running is a server that runs until its test ends.
type running struct {
	*server.Server
	t    testing.TB
	log  *logbook
	stop func() error // ends Run and returns what it returned
}

// start runs a server on a free port. By default it has one reactor and runs handlers
// on it.
func start(t testing.TB, h server.Handler, o server.Options) *running {
	t.Helper()
	return startOn(t, "127.0.0.1:0", h, o)
}

func startOn(t testing.TB, address string, h server.Handler, o server.Options) *running {
	t.Helper()
	log := &logbook{}
	o.Log = slog.New(log)
	o.Reactors = cmp.Or(o.Reactors, 1)
	o.Mode = cmp.Or(o.Mode, server.Inline)
	o.StallAfter = cmp.Or(o.StallAfter, -1) // off by default: tests block reactors, and machines may be slow
	s, err := server.Listen(strings.Split(address, ","), h, o)
	if err != nil {
		t.Fatal(err)
	}
	return &running{s, t, log, testkit.Run(t, context.Background(), s)}
}

// address is the first that the server listens on.
func (r *running) address() string { return r.Addrs()[0].String() }

// counted waits until a counter has reached n, and fails if it passes it.
func (r *running) counted(c string, n int) {
	r.t.Helper()
	eventually(r.t, fmt.Sprintf("%v is %d, not %d", c, n, count(r.Stats(), c)), func() bool {
		return count(r.Stats(), c) >= uint64(n)
	})
	if got := count(r.Stats(), c); got != uint64(n) {
		r.t.Errorf("%v is %d, want %d", c, got, n)
	}
}

// count returns a counter by its name.
func count(s server.Stats, name string) uint64 {
	for n, v := range s.All() {
		if n == name {
			return v
		}
	}
	panic("no counter " + name)
}

// logbook is a slog.Handler that keeps its lines.
type logbook struct {
	mu    sync.Mutex
	lines []string
}

func (l *logbook) Enabled(context.Context, slog.Level) bool { return true }
func (l *logbook) WithAttrs([]slog.Attr) slog.Handler       { return l }
func (l *logbook) WithGroup(string) slog.Handler            { return l }

func (l *logbook) Handle(_ context.Context, r slog.Record) error {
	var line strings.Builder
	fmt.Fprintf(&line, "%v %s", r.Level, r.Message)
	r.Attrs(func(a slog.Attr) bool {
		fmt.Fprintf(&line, " %v", a)
		return true
	})
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, line.String())
	return nil
}

// all returns the lines so far.
func (l *logbook) all() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.lines)
}

// one waits for a line and checks that it contains all words, and that there is no
// other line.
func (l *logbook) one(t testing.TB, words ...string) {
	t.Helper()
	eventually(t, "there is a log line", func() bool { return len(l.all()) > 0 })
	lines := l.all()
	for _, w := range words {
		if !strings.Contains(lines[0], w) {
			t.Errorf("log line %q lacks %q", lines[0], w)
		}
	}
	if len(lines) != 1 {
		t.Errorf("%d log lines: %q", len(lines), lines)
	}
}

// echo answers each message with itself.
var echo = server.Handler{Message: func(c server.Conn, op frame.Op, data []byte) { must(c.Send(op, data)) }}

// obliging is an echo with two special messages. For "hold" the handler reports on
// held and blocks its reactor until release. "slots" is answered with the reactor's
// slots, as "used below high".
type obliging struct{ held, release chan struct{} }

func newObliging() *obliging { return &obliging{make(chan struct{}), make(chan struct{})} }

func (o *obliging) message(c server.Conn, op frame.Op, data []byte) {
	switch string(data) {
	case "hold":
		o.held <- struct{}{}
		<-o.release
	case "slots":
		used, high, _ := c.Slots()
		must(c.Send(op, fmt.Appendf(nil, "%d below %d", used, high)))
	default:
		must(c.Send(op, data))
	}
}

// hold blocks c's reactor in its handler until release is called.
func (o *obliging) hold(c *client) (release func()) {
	c.t.Helper()
	c.send(frame.Text, "hold")
	<-o.held
	return func() { o.release <- struct{}{} }
}

// slots asks the server for the slots of c's reactor.
func (c *client) slots() (used, high int) {
	c.t.Helper()
	c.send(frame.Text, "slots")
	_, answer, err := c.next()
	if n, _ := fmt.Sscanf(answer, "%d below %d", &used, &high); n != 2 || err != nil {
		c.t.Fatalf("asked for slots and got %q, %v", answer, err)
	}
	return used, high
}

// must is for handlers. Its panic closes the connection, which fails the test.
func must(err error) {
	if err != nil {
		panic(err)
	}
}
