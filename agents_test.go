package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-134acfd0/lull/internal/testkit"
	"github.com/seed-134acfd0/lull/loadgen/measure"
	"github.com/seed-134acfd0/lull/loadgen/result"
)

// clockAhead is set in a process of the test program that is an agent whose clock is that
// much ahead.
const clockAhead = "LULL_TEST_CLOCK_AHEAD"

// agentWithWrongClock does what "lull agent" does, with a wrong clock.
func agentWithWrongClock(ahead string) {
	d, err := time.ParseDuration(ahead)
	if err != nil {
		panic(err)
	}
	parser := newParser()
	if _, err := parser.Parse(os.Args[1:]); err != nil {
		panic(err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	c := parser.Model.Target.Addr().Interface().(*commands).Agent
	if err := c.serve(ctx, func() time.Time { return time.Now().Add(d) }); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
}

// network is machines that are joined by cables: network namespaces, veth, and a bridge in the
// hub's.
type network struct {
	t   *testing.T
	hub string
}

// hubAddress is the hub's address, where the server and the coordinator are.
const hubAddress = "10.97.0.1"

// newNetwork makes a hub. It skips the test where that is not possible.
func newNetwork(t *testing.T) *network {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("network namespaces need root")
	}
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("network namespaces need iproute2: ", err)
	}
	n := &network{t: t}
	var err error
	if n.hub, err = n.space("hub"); err != nil {
		t.Skip("no network namespace can be made: ", err)
	}
	if err := n.ip("-n", n.hub, "link", "add", "name", "bridge", "type", "bridge"); err != nil {
		t.Skip("no bridge can be made: ", err)
	}
	n.must("-n", n.hub, "address", "add", hubAddress+"/24", "dev", "bridge")
	n.must("-n", n.hub, "link", "set", "bridge", "up")
	return n
}

// space makes a namespace.
func (n *network) space(name string) (string, error) {
	space := fmt.Sprintf("lull-%d-%s", os.Getpid(), name)
	if err := n.ip("netns", "add", space); err != nil {
		return "", err
	}
	n.t.Cleanup(func() { _ = n.ip("netns", "delete", space) })
	return space, n.ip("-n", space, "link", "set", "lo", "up")
}

func (n *network) ip(args ...string) error {
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("ip %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return nil
}

func (n *network) must(args ...string) {
	n.t.Helper()
	if err := n.ip(args...); err != nil {
		n.t.Fatal(err)
	}
}

// machine makes a namespace with a cable to the hub.
func (n *network) machine(name string, number int) string {
	n.t.Helper()
	space, err := n.space(name)
	if err != nil {
		n.t.Fatal(err)
	}
	plug := "to-" + name
	n.must("link", "add", "name", plug, "netns", n.hub, "type", "veth", "peer", "name", "eth", "netns", space)
	n.must("-n", n.hub, "link", "set", plug, "master", "bridge", "up")
	n.must("-n", space, "address", "add", fmt.Sprintf("10.97.0.%d/24", 10+number), "dev", "eth")
	n.must("-n", space, "link", "set", "eth", "up")
	return space
}

// unplug cuts a machine's cable.
func (n *network) unplug(name string) {
	n.t.Helper()
	n.must("-n", n.hub, "link", "set", "to-"+name, "down")
}

// remote makes a namespace that reaches the hub's ports after a delay, each way. It takes the
// place of netem, which not every kernel has: in the namespace the hub's address is
// the proxy's.
func (n *network) remote(name string, delay time.Duration, ports ...int) string {
	n.t.Helper()
	space, err := n.space(name)
	if err != nil {
		n.t.Fatal(err)
	}
	n.must("-n", space, "address", "add", hubAddress+"/32", "dev", "lo")
	for _, port := range ports {
		address := net.JoinHostPort(hubAddress, strconv.Itoa(port))
		var l net.Listener
		inNamespace(n.t, space, func() { l, err = net.Listen("tcp", address) })
		if err != nil {
			n.t.Fatal(err)
		}
		n.t.Cleanup(func() { l.Close() })
		go func() {
			for {
				near, err := l.Accept()
				if err != nil {
					return
				}
				go func() {
					var far net.Conn
					if inNamespace(n.t, n.hub, func() { far, err = net.Dial("tcp", address) }); err != nil {
						near.Close()
						return
					}
					go carry(far, near, delay)
					carry(near, far, delay)
				}()
			}
		}()
	}
	return space
}

// carry carries bytes from one connection to the other, each a time after it came.
func carry(to, from net.Conn, delay time.Duration) {
	type chunk struct {
		bytes []byte
		due   time.Time
	}
	chunks := make(chan chunk, 1000)
	go func() {
		defer close(chunks)
		for {
			b := make([]byte, 4<<10)
			k, err := from.Read(b)
			if k > 0 {
				chunks <- chunk{b[:k], time.Now().Add(delay)}
			}
			if err != nil {
				return
			}
		}
	}()
	for c := range chunks {
		time.Sleep(time.Until(c.due))
		if _, err := to.Write(c.bytes); err != nil {
			from.Close() // ends the reader
		}
	}
	to.Close()
}

// inNamespace calls f on a thread that is in a namespace. Sockets that it opens stay there.
func inNamespace(t *testing.T, space string, f func()) {
	var all sync.WaitGroup
	all.Go(func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		file, err := os.Open("/run/netns/" + space)
		if err == nil {
			err = unix.Setns(int(file.Fd()), unix.CLONE_NEWNET)
			file.Close()
		}
		if err != nil {
			t.Error(err)
			return
		}
		f()
	})
	all.Wait()
}

// process is a program in a namespace, and what it says on stderr.
type process struct {
	*exec.Cmd
	mu   sync.Mutex
	said strings.Builder
	done chan struct{}
}

// start starts a program in a namespace. It is ended with the test.
func (n *network) start(space string, environment []string, program string, args ...string) *process {
	n.t.Helper()
	p := &process{Cmd: exec.Command("ip", append([]string{"netns", "exec", space, program}, args...)...), done: make(chan struct{})}
	p.Env = append(os.Environ(), environment...)
	errs, err := p.StderrPipe()
	if err == nil {
		err = p.Start()
	}
	if err != nil {
		n.t.Fatal(err)
	}
	go func() {
		defer close(p.done)
		lines := bufio.NewReader(errs)
		for {
			line, err := lines.ReadString('\n')
			p.mu.Lock()
			p.said.WriteString(line)
			p.mu.Unlock()
			if err != nil {
				_, _ = io.Copy(io.Discard, lines)
				return
			}
		}
	}()
	n.t.Cleanup(func() {
		_ = p.Process.Kill()
		<-p.done
		_ = p.Wait()
		if n.t.Failed() {
			n.t.Logf("%s in %s:\n%s", filepath.Base(program), space, p.text())
		}
	})
	return p
}

func (p *process) text() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.said.String()
}

// says waits until a program has said something.
func (n *network) says(p *process, text string) {
	n.t.Helper()
	testkit.Eventually(n.t, "it says "+text, func() bool { return strings.Contains(p.text(), text) })
}

// Four machines carry out a load. One has a wrong clock, one is 300 ms away. One is killed on
// the way, and one loses its cable. What the other two do is complete, and what
// those did until then is neither counted twice nor forgotten.
func TestMachinesThatFailAndThatDiffer(t *testing.T) {
	n := newNetwork(t)
	const (
		users, share, messages = 400, 100, 20
		port, natsPort         = 8080, 4222
		away                   = 150 * time.Millisecond // each way
		ahead                  = 47 * time.Minute
	)
	token := filepath.Join(t.TempDir(), "token")
	file := filepath.Join(t.TempDir(), "result.json")
	if err := os.WriteFile(token, []byte("0123456789abcdef0123"), 0o600); err != nil {
		t.Fatal(err)
	}
	nats := fmt.Sprintf("%s:%d", hubAddress, natsPort)
	url := fmt.Sprintf("ws://%s:%d/", hubAddress, port)

	n.start(n.hub, nil, program, "serve", "--listen", fmt.Sprintf("%s:%d", hubAddress, port), "--admin=", "--max-conns", "1000")
	load := n.start(n.hub, nil, program, "load", "--url", url, "--conns", fmt.Sprint(users), "--rate", "400", "--hold", "3s",
		"--broadcasts", fmt.Sprint(messages), "--burst", "5", "--json", file,
		"--agents", "listen://"+nats, "--agents-token-file", token, "--agents-min", "4")
	agent := func(space, program string, environment ...string) *process {
		return n.start(space, environment, program, "agent", "--nats", "nats://"+nats, "--nats-token-file", token, "--name", space, "--allow", hubAddress, "--workers", "1")
	}
	this, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]string{}
	for i, name := range []string{"killed", "cut", "clock"} {
		names[name] = n.machine(name, i)
	}
	names["far"] = n.remote("far", away, port, natsPort)
	killed := agent(names["killed"], program)
	cut := agent(names["cut"], program)
	agent(names["clock"], this, clockAhead+"="+ahead.String())
	agent(names["far"], program)

	n.says(load, `"phase","name":"hold"`)
	if err := killed.Process.Kill(); err != nil { // ip has become the agent
		t.Fatal(err)
	}
	n.unplug("cut")
	n.says(load, "agent "+names["killed"]+" was lost")
	n.says(load, "agent "+names["cut"]+" was lost")
	n.says(cut, "the coordinator is lost")
	<-load.done
	if load.Wait() == nil {
		t.Error("a load that has lost agents went well")
	}

	r, err := result.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if r.Conns != users || r.Open != users-2*share || r.Lost != 0 || r.Valid {
		t.Errorf("%d of %d open, %d lost, valid %v", r.Open, r.Conns, r.Lost, r.Valid)
	}
	for counter, want := range map[measure.Counter]int{
		measure.Connected: users, measure.Vanished: 2 * share, measure.Sent: messages, measure.Received: 2 * share * messages,
		measure.Missed: 0, measure.Repeated: 0, measure.Strayed: 0, measure.Foreign: 0, measure.OutOfRange: 0, measure.Dropped: 0, measure.Closed: 0,
	} {
		if got := r.Counts[counter.String()]; got != want {
			t.Errorf("%d %s, not %d", got, counter, want)
		}
	}
	for kind, want := range map[measure.Kind]int64{measure.Handshake: users, measure.Broadcast: 2 * share * messages} {
		if got := r.Histograms.Of(kind).TotalCount(); got != want {
			t.Errorf("%d times of %s, not %d", got, kind, want)
		}
	}
	if len(r.Broadcasts) != 1 || r.Broadcasts[0].Expected != 2*share*messages || r.Broadcasts[0].Received != 2*share*messages {
		t.Errorf("broadcasts %+v", r.Broadcasts)
	}
	for _, a := range r.Agents {
		lost := a.Name == names["killed"] || a.Name == names["cut"]
		off := time.Duration(a.ClockAhead * float64(time.Millisecond))
		exact := time.Duration((a.ClockExactTo + 1) * float64(time.Millisecond))
		switch {
		case a.Users != share || (a.Lost != "") != lost:
			t.Errorf("agent %+v", a)
		case a.Name == names["clock"] && (off-ahead).Abs() > exact || a.Name != names["clock"] && off.Abs() > exact:
			t.Errorf("the clock of %s is %v ahead, exact to %v", a.Name, off, exact)
		case a.Name == names["far"] && exact < away:
			t.Errorf("the clock of %s is said to be exact to %v", a.Name, exact)
		}
	}
	if len(r.Agents) != 4 {
		t.Errorf("agents %+v", r.Agents)
	}
}

func TestMistakesOfAgentsAndTheirCoordinatorsAreSaid(t *testing.T) {
	for line, want := range map[string]struct {
		code int
		text string
	}{
		"agent": {exitUsage, "--nats"},
		"agent --nats nats://127.0.0.1 --allow http://x":                               {exitUsage, "--allow"},
		"agent --nats nats://127.0.0.1 --nats-cert x":                                  {exitUsage, "--nats-cert and --nats-key"},
		"agent --nats nats://127.0.0.1 --sources x":                                    {exitUsage, "--sources"},
		"agent --nats nats://127.0.0.1 --nats-token-file /nonexistent":                 {exitFailed, "--nats-token-file"},
		"load --agents 10.0.0.1:4222":                                                  {exitUsage, "must be nats://HOST:4222"},
		"load --agents listen://x":                                                     {exitUsage, "must have a port"},
		"load --agents listen://0.0.0.0:0 --web=":                                      {exitFailed, "needs a token"},
		"load --agents listen://127.0.0.1:0 --web= --agents-wait 1s":                   {exitFailed, "0 of 1 agents came within 1s"},
		"load --agents listen://127.0.0.1:0 --sources 127.0.0.2":                       {exitUsage, "--sources: cannot be used with --agents"},
		"load --agents listen://127.0.0.1:0 --agents-ca x --web=":                      {exitFailed, "agents' certificates need TLS"},
		"load --agents nats://127.0.0.1:1 --web=":                                      {exitFailed, "NATS at nats://127.0.0.1:1"},
		"load --agents nats://127.0.0.1:1 --agents-token-file x --agents-creds-file y": {exitUsage, "cannot be used together"},
	} {
		_, errs, code := run(t, strings.Fields(line)...)
		if code != want.code || !strings.Contains(errs, want.text) {
			t.Errorf("lull %s: exit %d, %q lacks %q", line, code, errs, want.text)
		}
	}
}
