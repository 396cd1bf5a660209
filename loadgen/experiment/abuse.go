package experiment

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/gobwas/ws"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/tuning"
)

// Abuses are attacks by clients. Each is measured by what other clients notice, or
// by what it costs the server.

// AbuseConfig says what to attack.
type AbuseConfig struct {
	Against     string // another lull program to compare with; empty for none
	SlowHandler string // the slowhandler program
	Say         func(format string, args ...any)
}

// Harm is one row of the table.
type Harm struct {
	Abuse  string  `json:"abuse"`
	Harm   string  `json:"harm"`
	Unit   string  `json:"unit"`
	Before float64 `json:"before"` // with the program AbuseConfig.Against; NaN if there is none
	Now    float64 `json:"now"`
	Most   float64 `json:"most"` // what is acceptable
}

// abuse is a row: an attack on a server of its own, and the harm that it did.
type abuse struct {
	name, harm, unit string
	most             float64  // the acceptable harm
	serve            []string // more arguments of lull serve; flags that old and new programs know
	stuck            bool     // handlers sleep for an hour
	attack           func(*attack) (harm float64, err error)
}

const (
	abuseChat = "--mode=chat"
	abuseEcho = "--mode=echo"
	largest   = 64 << 10 // the largest message that a server takes by default
)

var abuses = []abuse{
	{"600 clients send Pings as fast as they can", "another's Ping, p99", "ms", 20, []string{abuseEcho}, false, pingFlood},
	{"4,200 clients hold back the end of a message of 64 KiB", "newcomers not served, of 20", "", 0, []string{abuseEcho}, false, heldBack},
	{"one client of a chat sends as fast as it can", "others closed, of 200 that always read", "", 0, []string{abuseChat}, false, alwaysSending},
	{"one client of a chat sends 1,500 messages of 64 KiB at once", "memory grown by", "MiB", 64, []string{abuseChat}, false, largeBroadcasts},
	{"10,000 clients send 12 KiB to handlers that are stuck, and reset", "memory grown by", "MiB", 128, nil, true, hitAndRun},
	{"712 sockets say nothing, at --max-conns 100", "another's handshake", "ms", 2000, []string{abuseEcho, "--max-conns=100"}, false, silentSockets},
	{"the process is stopped for 5 s, at --idle-timeout 2s", "clients closed, of 1,500", "", 0, []string{abuseEcho, "--idle-timeout=2s"}, false, stopped},
	{"an echo client sends 32 MiB before it reads", "answers lost, of 512", "", 0, []string{abuseEcho}, false, readLate},
	{"15,000 idle clients are due for a Ping at once", "another's Ping, the longest", "ms", 20, []string{abuseEcho, "--idle-timeout=16s"}, false, alignedPings},
}

// Abuse runs all abuses and returns a row for each. If one fails, it returns the
// rows until then and an error.
func Abuse(ctx context.Context, config AbuseConfig) ([]Harm, error) {
	lull, err := self()
	if err != nil {
		return nil, err
	}
	var rows []Harm
	for _, a := range abuses {
		row := Harm{Abuse: a.name, Harm: a.harm, Unit: a.unit, Before: math.NaN(), Most: a.most}
		config.Say("%s", a.name)
		if config.Against != "" {
			if row.Before, err = a.run(ctx, config.Against, a.arguments("--handlers=workers", "--workers=4", "--delay=1h")...); err != nil {
				return rows, fmt.Errorf("%s: %w", a.name, err)
			}
		}
		program, args := lull, a.arguments()
		if a.stuck {
			program, args = config.SlowHandler, []string{"-listen", "127.0.0.1:0", "-reactors", "2", "-workers", "4", "-delay", "1h"}
		}
		if row.Now, err = a.run(ctx, program, args...); err != nil {
			return rows, fmt.Errorf("%s: %w", a.name, err)
		}
		rows = append(rows, row)
	}
	return rows, nil
}

func (a *abuse) arguments(stuck ...string) []string {
	args := append([]string{"serve", "--listen", "127.0.0.1:0", "--admin=", "--status", "0s", "--reactors", "2"}, a.serve...)
	if a.stuck {
		args = append(args, stuck...)
	}
	return args
}

// run starts a server and attacks it.
func (a *abuse) run(ctx context.Context, program string, args ...string) (float64, error) {
	server, err := start(ctx, program, args...)
	if err != nil {
		return 0, err
	}
	defer server.kill()
	at := &attack{server: server}
	defer at.end()
	harm, err := a.attack(at)
	return harm, errors.Join(err, ctx.Err())
}

// attack is one run of an abuse: the server, and the clients that it opens.
type attack struct {
	server *process

	mu    sync.Mutex
	peers []*peer // guarded by mu
	busy  sync.WaitGroup
}

// end closes all peers and waits for the functions that beside has started.
func (a *attack) end() {
	a.mu.Lock()
	for _, p := range a.peers {
		_ = p.Close()
	}
	a.mu.Unlock()
	a.busy.Wait()
}

// beside runs f on another goroutine. f must return when the peers are closed.
func (a *attack) beside(f func()) { a.busy.Go(f) }

// peer is a client.
type peer struct {
	*net.TCPConn
	in *bufio.Reader
}

// abuseTimeout is how long clients wait for an answer.
const abuseTimeout = 20 * time.Second

// dial connects and says nothing.
func (a *attack) dial() (*peer, error) {
	conn, err := net.DialTimeout("tcp", a.server.addr, abuseTimeout)
	if err != nil {
		return nil, err
	}
	p := &peer{conn.(*net.TCPConn), bufio.NewReaderSize(conn, 512)}
	a.mu.Lock()
	a.peers = append(a.peers, p)
	a.mu.Unlock()
	return p, nil
}

var abuseRequest = frame.AppendRequest(nil, "localhost", "/", frame.SampleKey)

// open connects and completes the opening handshake, within abuseTimeout.
func (a *attack) open() (*peer, error) {
	p, err := a.dial()
	if err != nil {
		return nil, err
	}
	_ = p.SetDeadline(time.Now().Add(abuseTimeout)) // fails only on a closed socket
	if _, err := p.Write(abuseRequest); err != nil {
		return nil, err
	}
	var head []byte
	for !slices.Equal(head[max(0, len(head)-4):], []byte("\r\n\r\n")) {
		b, err := p.in.ReadByte()
		if err != nil {
			return nil, err
		}
		head = append(head, b)
	}
	_ = p.SetDeadline(time.Time{})
	return p, frame.CheckResponse(head, frame.SampleKey)
}

func (a *attack) openMany(n int) ([]*peer, error) {
	peers := make([]*peer, n)
	for i := range peers {
		var err error
		if peers[i], err = a.open(); err != nil {
			return nil, fmt.Errorf("experiment: client %d of %d: %w", i+1, n, err)
		}
	}
	return peers, nil
}

// masked is a client's frame.
func masked(op frame.Op, payload []byte) []byte {
	return frame.AppendMasked(nil, op, [4]byte{1, 2, 3, 4}, payload)
}

// next reads a frame.
func (p *peer) next() (op frame.Op, payload []byte, err error) {
	h, err := ws.ReadHeader(p.in)
	if err != nil {
		return 0, nil, err
	}
	payload = make([]byte, h.Length)
	_, err = io.ReadFull(p.in, payload)
	return frame.Op(h.OpCode), payload, err
}

// discard reads until the connection ends, and answers Pings. It returns how the
// connection ended: net.ErrClosed if the attack has closed it.
func (p *peer) discard() error {
	for {
		op, payload, err := p.next()
		switch {
		case err != nil:
			return err
		case op == frame.Close:
			code, _ := frame.ParseClose(payload)
			return fmt.Errorf("closed with %d", code)
		case op == frame.Ping:
			if _, err := p.Write(masked(frame.Pong, payload)); err != nil {
				return err
			}
		}
	}
}

// echoed sends a large message in two pieces and waits until it comes back.
func (p *peer) echoed() error {
	_ = p.SetDeadline(time.Now().Add(abuseTimeout / 4))
	wire := masked(frame.Binary, make([]byte, 40_000))
	if _, err := p.Write(wire[:30_000]); err != nil {
		return err
	}
	time.Sleep(10 * time.Millisecond) // so that the server reads the pieces separately
	if _, err := p.Write(wire[30_000:]); err != nil {
		return err
	}
	op, _, err := p.next()
	if err == nil && op != frame.Binary {
		err = errors.New("experiment: no echo")
	}
	return err
}

// pings sends a Ping every few milliseconds and returns how long the answers
// took, sorted. An answer that does not come counts as abuseTimeout, and ends it.
func (p *peer) pings(during time.Duration) []time.Duration {
	var took []time.Duration
	wire := masked(frame.Ping, nil)
	for begun := time.Now(); time.Since(begun) < during; time.Sleep(5 * time.Millisecond) {
		at := time.Now()
		_ = p.SetDeadline(at.Add(abuseTimeout))
		_, err := p.Write(wire)
		for op := frame.Op(0); err == nil && op != frame.Pong; {
			op, _, err = p.next()
		}
		took = append(took, time.Since(at))
		if err != nil {
			took[len(took)-1] = abuseTimeout
			break
		}
	}
	slices.Sort(took)
	return took
}

func milliseconds(d time.Duration) float64 { return d.Seconds() * 1000 }

// growth samples the server's memory until stop is called. stop returns the
// largest growth, in MiB.
func (a *attack) growth() (stop func() float64) {
	pid := a.server.cmd.Process.Pid
	before, most := resident(pid), int64(0)
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			most = max(most, resident(pid))
			select {
			case <-tick.C:
			case <-quit:
				return
			}
		}
	}()
	return func() float64 {
		close(quit)
		<-done
		return float64(most-before) / mebi
	}
}

func pingFlood(a *attack) (float64, error) {
	victim, err := a.open()
	if err != nil {
		return 0, err
	}
	flooders, err := a.openMany(600)
	if err != nil {
		return 0, err
	}
	wire := slices.Repeat(masked(frame.Ping, nil), 2000)
	for _, p := range flooders {
		a.beside(func() { _, _ = io.Copy(io.Discard, p.TCPConn) })
		a.beside(func() {
			for err := error(nil); err == nil; {
				_, err = p.Write(wire)
			}
		})
	}
	took := victim.pings(5 * time.Second)
	return milliseconds(took[len(took)*99/100]), nil
}

func heldBack(a *attack) (float64, error) {
	wire := masked(frame.Binary, make([]byte, largest))
	for i := range 4200 {
		p, err := a.open()
		if err != nil {
			continue // the newcomers below show the harm
		}
		part := wire[:len(wire)-1]
		if i >= 4100 { // small pieces use up the last of the server's bound
			part = wire[:2000]
		}
		_ = p.SetWriteDeadline(time.Now().Add(abuseTimeout))
		_, _ = p.Write(part)
	}
	harm := 0
	for range 20 {
		if p, err := a.open(); err != nil || p.echoed() != nil {
			harm++
		}
	}
	return float64(harm), nil
}

func alwaysSending(a *attack) (float64, error) {
	others, err := a.openMany(200)
	if err != nil {
		return 0, err
	}
	sender, err := a.open()
	if err != nil {
		return 0, err
	}
	var closed atomic.Int64
	for _, p := range append(others, sender) {
		a.beside(func() {
			if err := p.discard(); !errors.Is(err, net.ErrClosed) && p != sender {
				closed.Add(1)
			}
		})
	}
	wire := slices.Repeat(masked(frame.Binary, make([]byte, 1000)), 64)
	for begun := time.Now(); err == nil && time.Since(begun) < 5*time.Second; {
		_ = sender.SetWriteDeadline(time.Now().Add(abuseTimeout))
		_, err = sender.Write(wire)
	}
	return float64(closed.Load()), nil
}

func largeBroadcasts(a *attack) (float64, error) {
	peers, err := a.openMany(11)
	if err != nil {
		return 0, err
	}
	for _, p := range peers {
		a.beside(func() { _, _ = io.Copy(io.Discard, p.TCPConn) })
	}
	grown := a.growth()
	wire := masked(frame.Binary, make([]byte, largest))
	_ = peers[0].SetWriteDeadline(time.Now().Add(abuseTimeout))
	for i := 0; i < 1500 && err == nil; i++ {
		_, err = peers[0].Write(wire)
	}
	return grown(), nil
}

func hitAndRun(a *attack) (float64, error) {
	grown := a.growth()
	// A Ping follows the message. Its Pong shows that both were read before the
	// reset.
	wire := append(masked(frame.Binary, make([]byte, 12<<10)), masked(frame.Ping, nil)...)
	for range 10_000 {
		p, err := a.open()
		if err != nil {
			break // the server takes no more
		}
		_ = p.SetDeadline(time.Now().Add(abuseTimeout / 20))
		_, _ = p.Write(wire)
		if _, _, err := p.next(); err != nil {
			break // the server does not read any more
		}
		_ = p.SetLinger(0)
		_ = p.Close()
	}
	return grown(), nil
}

func silentSockets(a *attack) (float64, error) {
	for range 712 {
		if _, err := a.dial(); err != nil {
			return 0, err
		}
	}
	begun := time.Now()
	if _, err := a.open(); err != nil {
		return milliseconds(abuseTimeout), nil
	}
	return milliseconds(time.Since(begun)), nil
}

func stopped(a *attack) (float64, error) {
	peers, err := a.openMany(1500)
	if err != nil {
		return 0, err
	}
	var closed atomic.Int64
	for _, p := range peers {
		a.beside(func() {
			if err := p.discard(); !errors.Is(err, net.ErrClosed) {
				closed.Add(1)
			}
		})
	}
	process := a.server.cmd.Process
	if err := process.Signal(syscall.SIGSTOP); err != nil {
		return 0, err
	}
	for _, p := range peers {
		_, _ = p.Write(masked(frame.Text, []byte("hello")))
	}
	time.Sleep(5 * time.Second)
	if err := process.Signal(syscall.SIGCONT); err != nil {
		return 0, err
	}
	time.Sleep(3 * time.Second)
	return float64(closed.Load()), nil
}

func readLate(a *attack) (float64, error) {
	const messages = 512
	p, err := a.open()
	if err != nil {
		return 0, err
	}
	a.beside(func() {
		wire := masked(frame.Binary, make([]byte, largest))
		for i := 0; i < messages; i++ {
			if _, err := p.Write(wire); err != nil {
				return
			}
		}
	})
	time.Sleep(2 * time.Second) // until the server takes no more
	_ = p.SetReadDeadline(time.Now().Add(abuseTimeout))
	back := 0
	for back < messages {
		if op, payload, err := p.next(); err != nil || op != frame.Binary || len(payload) != largest {
			break
		}
		back++
	}
	return float64(messages - back), nil
}

func alignedPings(a *attack) (float64, error) {
	victim, err := a.open()
	if err != nil {
		return 0, err
	}
	peers, err := a.openMany(15_000)
	if err != nil {
		return 0, err
	}
	for _, p := range peers { // so that all idle times begin at once
		if _, err := p.Write(masked(frame.Pong, nil)); err != nil {
			return 0, err
		}
	}
	took := victim.pings(12 * time.Second)
	return milliseconds(took[len(took)-1]), nil
}

// WriteHarms prints rows as a Markdown table, below a line about this machine.
func WriteHarms(w io.Writer, rows []Harm) error {
	machine, err := tuning.Read("/")
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "Linux %s, %d processors, %s.\n\n"+
		"| abuse | what honest clients feel | before | now | at most |\n|---|---|--:|--:|--:|\n",
		machine.Kernel, machine.Processors, runtime.Version())
	for _, r := range rows {
		value := func(v float64) string {
			if math.IsNaN(v) {
				return ""
			}
			if r.Unit == "" {
				return number(v)
			}
			return number(v) + " " + r.Unit
		}
		_, e := fmt.Fprintf(w, "| %s | %s | %s | **%s** | %s |\n", r.Abuse, r.Harm, value(r.Before), value(r.Now), value(r.Most))
		err = errors.Join(err, e)
	}
	return err
}
