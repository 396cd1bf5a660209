package experiment

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/seed-134acfd0/lull/loadgen"
	"github.com/seed-134acfd0/lull/loadgen/measure"
)

// The same Django application behind Daphne and Channels, and behind lull's hooks and
// gunicorn.

//go:embed daphne/echo.py
var daphneApp []byte

// DaphneConfig says how to compare.
type DaphneConfig struct {
	Conns   int           // idle ones
	Clicked time.Duration // how long 2,000 clients click
	Say     func(format string, args ...any)
}

// DaphneSide is what was measured of one of the two.
type DaphneSide struct {
	Name string `json:"name"`

	Sleeping float64 `json:"sleeping_per_second"` // a handler of 1 s, 5 callers, 5 workers

	Clicking struct {
		Sent     int     `json:"sent"`
		Answered int     `json:"answered"`
		Rate     float64 `json:"answered_per_second"` // while they clicked
		Closed   int     `json:"closed"`
		Lost     int     `json:"lost"`   // not answered when nothing more had come for 20 s
		Memory   []Grown `json:"memory"` // when they began to click, and after each third of the time
	} `json:"clicking"`

	Idle      Grown   `json:"idle"`             // memory with all idle connections, in all
	PerConn   float64 `json:"bytes_per_idle"`   // that it has grown by for each
	Handshake float64 `json:"handshake_cpu_us"` // of all processes
	Echo      float64 `json:"echo_cpu_us"`      // of all processes
}

// Grown is memory of user space, in bytes: of the server that has the sockets, and of what
// is behind it.
type Grown struct {
	Front  int64 `json:"front"`
	Behind int64 `json:"behind"`
}

func (g Grown) all() int64 { return g.Front + g.Behind }

// daphnePrograms are the programs that are needed, and the Debian packages that have them.
var daphnePrograms = []struct{ program, pack string }{
	{"daphne", "daphne"}, {"gunicorn", "gunicorn"},
}

// daphneImports is what the application imports.
const daphneImports, daphnePacks = "import channels, django", "python3-django-channels python3-django"

// checkDaphne says which Debian packages are missing.
func checkDaphne() error {
	var missing []string
	for _, p := range daphnePrograms {
		if _, err := exec.LookPath(p.program); err != nil {
			missing = append(missing, p.pack)
		}
	}
	if exec.Command("/usr/bin/python3", "-c", daphneImports).Run() != nil {
		missing = append(missing, daphnePacks)
	}
	if len(missing) > 0 {
		return fmt.Errorf("experiment: daphne: programs are missing: apt-get install --no-install-recommends %s", strings.Join(missing, " "))
	}
	return nil
}

// MeasureDaphne measures both. On an error it returns what there is.
func MeasureDaphne(ctx context.Context, config DaphneConfig) (sides []DaphneSide, err error) {
	if err := checkDaphne(); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "lull-daphne-")
	if err != nil {
		return nil, fmt.Errorf("experiment: %w", err)
	}
	defer os.RemoveAll(dir)
	if err := os.WriteFile(filepath.Join(dir, "echo.py"), daphneApp, 0o600); err != nil {
		return nil, fmt.Errorf("experiment: %w", err)
	}
	for _, s := range []pythonStack{{name: "Daphne, Channels", dir: dir}, {name: "lull, gunicorn", dir: dir, hooks: true}} {
		side, err := s.measure(ctx, config)
		if err != nil {
			return sides, fmt.Errorf("experiment: %s: %w", s.name, err)
		}
		sides = append(sides, side)
	}
	return sides, nil
}

// daphneInbox is how many messages of a connection wait in lull, beside 4 KiB that were read
// with them; the others wait with their sender. The clicks of a third of a minute fill that,
// and those of a minute do not fill the inboxes of the default, 64.
const daphneInbox = 4

// pythonStack is a way to serve the application.
type pythonStack struct {
	name, dir string
	hooks     bool // lull and gunicorn, in place of Daphne
}

// stacked is a stack that runs.
type stacked struct {
	front, behind *process // behind is nil where there is nothing
	url           string
}

// start starts a stack whose handler sleeps, for so long after the start, on so many workers.
func (s pythonStack) start(ctx context.Context, delay, delayFor time.Duration, workers int) (*stacked, error) {
	env := append(os.Environ(), fmt.Sprint("DELAY=", delay.Seconds()), "PYTHONDONTWRITEBYTECODE=1", fmt.Sprint("ASGI_THREADS=", workers))
	if delayFor > 0 {
		env = append(env, fmt.Sprint("DELAY_FOR=", delayFor.Seconds()))
	}
	if !s.hooks {
		addr, err := freeAddress()
		if err != nil {
			return nil, err
		}
		_, port, _ := net.SplitHostPort(addr)
		cmd := exec.Command("daphne", "--bind", "127.0.0.1", "--port", port, "--verbosity", "0", "echo:channels")
		cmd.Dir, cmd.Env = s.dir, env
		front, err := startUntil(ctx, cmd, answers("tcp", addr))
		if err != nil {
			return nil, err
		}
		return &stacked{front: front, url: "ws://" + addr + "/"}, nil
	}
	socket := filepath.Join(s.dir, "gunicorn.sock")
	cmd := exec.Command("gunicorn", "--workers", strconv.Itoa(workers), "--bind", "unix:"+socket, "--timeout", "120", "--backlog", "64", "echo:wsgi")
	cmd.Dir, cmd.Env = s.dir, env
	behind, err := startUntil(ctx, cmd, answers("unix", socket))
	if err != nil {
		return nil, err
	}
	lull, err := self()
	if err != nil {
		behind.kill()
		return nil, err
	}
	front, err := start(ctx, lull, "serve", "--listen", "127.0.0.1:0", "--mode", "hooks", "--hook", "unix:"+socket+":/",
		"--hook-concurrency", strconv.Itoa(workers), "--max-inbox-messages", strconv.Itoa(daphneInbox), "--api=", "--admin=", "--status", "0s")
	if err != nil {
		behind.kill()
		return nil, err
	}
	return &stacked{front, behind, "ws://" + front.addr + "/"}, nil
}

func (s *stacked) kill() {
	s.front.kill()
	if s.behind != nil {
		_ = s.behind.stop() // its workers end with it
	}
}

// memory is what the processes have now.
func (s *stacked) memory() (g Grown) {
	g.Front = resident(s.front.cmd.Process.Pid)
	all, _ := usageOf(s.front.cmd.Process.Pid)
	g.Behind = all.Bytes
	return g
}

// cpu is the processor time that all processes have used.
func (s *stacked) cpu() time.Duration {
	all, _ := usageOf(s.front.cmd.Process.Pid)
	return cpu(s.front.cmd.Process.Pid) + time.Duration(all.CPU*float64(time.Second))
}

func (s pythonStack) measure(ctx context.Context, config DaphneConfig) (side DaphneSide, err error) {
	side.Name = s.name
	for _, step := range []struct {
		what    string
		measure func(context.Context, DaphneConfig, *DaphneSide) error
	}{
		{"a handler of 1 s, 5 callers, 5 workers", s.sleeping},
		{fmt.Sprintf("%s clients click, twice a second each, at a handler of 5 ms, 4 workers", count(clickers)), s.clicking},
		{fmt.Sprintf("handshakes, memory of %s idle connections, echoes", count(float64(config.Conns))), s.idle},
	} {
		config.Say("%s: %s", s.name, step.what)
		if err := step.measure(ctx, config, &side); err != nil {
			return side, err
		}
	}
	return side, nil
}

func (s pythonStack) sleeping(ctx context.Context, _ DaphneConfig, side *DaphneSide) error {
	const workers = 5
	server, err := s.start(ctx, time.Second, 0, workers)
	if err != nil {
		return err
	}
	defer server.kill()
	res, err := loadgen.Run(ctx, loadgen.Config{URLs: []string{server.url}, Conns: workers, Active: workers, Echo: 20500 * time.Millisecond, Workers: 1})
	switch {
	case err != nil:
		return err
	case res.Echo == nil:
		return errors.New("nothing was echoed")
	}
	side.Sleeping = res.Echo.Rate
	return nil
}

func (s pythonStack) clicking(ctx context.Context, config DaphneConfig, side *DaphneSide) error {
	const before = 12 * time.Second // for the start and the handshakes
	server, err := s.start(ctx, 5*time.Millisecond, before+config.Clicked, 4)
	if err != nil {
		return err
	}
	defer server.kill()
	c := &side.Clicking
	watch := &clickWatch{server: server, every: config.Clicked / clickParts}
	res, err := loadgen.Run(ctx, loadgen.Config{
		URLs: []string{server.url}, Conns: clickers, Rate: 500, Hold: time.Second, Flood: clickers, FloodRate: 2 * clickers, Echo: config.Clicked, Size: 256,
		Patience: 20 * time.Second, Sinks: []measure.Sink{watch},
	})
	switch {
	case err != nil:
		return err
	case res.Echo == nil || res.Echo.Flood == nil || len(watch.seen) <= clickParts:
		return errors.New("nobody clicked")
	}
	c.Memory = watch.seen
	c.Sent, c.Answered, c.Rate = res.Echo.Flood.Sent, res.Echo.Flood.Answered, res.Echo.Rate
	c.Closed, c.Lost = clickers-res.Open, res.Echo.Flood.Sent-res.Echo.Flood.Answered
	return nil
}

func (s pythonStack) idle(ctx context.Context, config DaphneConfig, side *DaphneSide) error {
	server, err := s.start(ctx, 0, 0, 4)
	if err != nil {
		return err
	}
	defer server.kill()
	const active = 100
	warm, err := loadgen.Run(ctx, loadgen.Config{URLs: []string{server.url}, Conns: active, Active: active, Echo: time.Second})
	switch {
	case err != nil:
		return err
	case !warm.OK():
		return fmt.Errorf("%d of %d connections are open, %v", warm.Open, active, warm.Errors)
	}
	before, cpuBefore := server.memory(), server.cpu()
	watch := &idleWatch{server: server}
	res, err := loadgen.Run(ctx, loadgen.Config{
		URLs: []string{server.url}, Conns: config.Conns, Rate: 400, Hold: 2 * time.Second, Active: active, Echo: 5 * time.Second, Sinks: []measure.Sink{watch},
	})
	switch {
	case err != nil:
		return err
	case res.Echo == nil || res.Echo.Messages == 0 || res.Open != config.Conns:
		return fmt.Errorf("%d of %d connections are open, %v", res.Open, config.Conns, res.Errors)
	}
	side.Idle = watch.idle
	side.PerConn = float64(watch.idle.all()-before.all()) / float64(config.Conns)
	side.Handshake = (watch.opened - cpuBefore).Seconds() / float64(config.Conns) * micro
	side.Echo = (watch.end - watch.echoing).Seconds() / float64(res.Echo.Messages) * micro
	return nil
}

// clickParts is in how many parts the time of the clicking is divided.
const clickParts = 3

// clickWatch notes the memory at the begin of the clicking, and at the end of each part.
type clickWatch struct {
	server *stacked
	every  time.Duration
	begun  time.Time
	seen   []Grown // at most clickParts + 1
}

// Phase takes note that the clicking begins.
func (w *clickWatch) Phase(name string) {
	if name == "echo" {
		w.begun = time.Now()
	}
}

// Snapshot looks whether it is time.
func (w *clickWatch) Snapshot(*measure.Snapshot) {
	if n := len(w.seen); !w.begun.IsZero() && n <= clickParts && time.Since(w.begun) >= time.Duration(n)*w.every {
		w.seen = append(w.seen, w.server.memory())
	}
}

// idleWatch notes the memory of idle connections, and the processor time used until the
// phases.
type idleWatch struct {
	server               *stacked
	idle                 Grown
	opened, echoing, end time.Duration
}

// Phase takes note of a phase's begin.
func (w *idleWatch) Phase(name string) {
	switch used := w.server.cpu(); name {
	case "hold":
		w.opened = used
	case "echo":
		w.echoing, w.idle = used, w.server.memory()
	case "close":
		w.end = used
	}
}

// Snapshot does nothing.
func (*idleWatch) Snapshot(*measure.Snapshot) {}

// freeAddress is an address on which nobody listens.
func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// answers reports whether somebody listens at an address.
func answers(network, address string) func() bool {
	return func() bool {
		c, err := net.Dial(network, address)
		if err == nil {
			c.Close()
		}
		return err == nil
	}
}

// WriteDaphne prints what was measured.
func WriteDaphne(w io.Writer, sides []DaphneSide, conns int) error {
	return writeColumns(w, sides, []line[DaphneSide]{
		{"", func(s *DaphneSide) string { return s.Name }},
		{"handler of 1 s, 5 callers, 5 workers", func(s *DaphneSide) string { return fmt.Sprintf("%.2f/s", s.Sleeping) }},
		{"clicking: messages sent", func(s *DaphneSide) string { return count(float64(s.Clicking.Sent)) }},
		{"clicking: answered while they clicked", func(s *DaphneSide) string { return fmt.Sprintf("%.0f/s", s.Clicking.Rate) }},
		{"clicking: never answered", func(s *DaphneSide) string { return count(float64(s.Clicking.Lost)) }},
		{"clicking: connections closed", func(s *DaphneSide) string { return count(float64(s.Clicking.Closed)) }},
		{"clicking: memory before, after each third", func(s *DaphneSide) string {
			var parts []string
			for _, g := range s.Clicking.Memory {
				parts = append(parts, s.memory(g))
			}
			return strings.Join(parts, ", ")
		}},
		{count(float64(conns)) + " idle connections: memory in all", func(s *DaphneSide) string { return s.memory(s.Idle) }},
		{"grown by, for each", func(s *DaphneSide) string { return fmt.Sprintf("%.0f B", s.PerConn) }},
		{"processor time of a handshake", func(s *DaphneSide) string { return fmt.Sprintf("%.0f µs", s.Handshake) }},
		{"processor time of an echo", func(s *DaphneSide) string { return fmt.Sprintf("%.0f µs", s.Echo) }},
	})
}

// memory spells memory, of both processes where there are two.
func (s *DaphneSide) memory(g Grown) string {
	if g.Behind == 0 {
		return fmt.Sprintf("%.0f MiB", float64(g.Front)/mebi)
	}
	return fmt.Sprintf("%.0f + %.0f MiB", float64(g.Front)/mebi, float64(g.Behind)/mebi)
}
