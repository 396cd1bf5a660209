package experiment

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/gobwas/ws"
	"github.com/prometheus/procfs"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/loadgen"
	"github.com/seed-134acfd0/lull/loadgen/measure"
	"github.com/seed-134acfd0/lull/loadgen/result"
	"github.com/seed-134acfd0/lull/tuning"
)

// A reconnect storm is what happens after a server's end: all of its clients come back
// to the server that takes its place. The generator's do, with Config.Reconnect.

// StormConfig says how many clients come back.
type StormConfig struct {
	Conns    int // over TCP
	TLSConns int // over TLS
	Say      func(format string, args ...any)
}

// Storm is one row of the table.
type Storm struct {
	Name      string  `json:"name"`
	Conns     int     `json:"conns"`
	Back      int     `json:"back"`              // are open again
	Seconds   float64 `json:"seconds"`           // from when the new server listened until the last was open
	Handshake float64 `json:"server_cpu_micros"` // of the new server, for each connection
	Resumed   int     `json:"resumed"`           // TLS handshakes with the new server that a ticket shortened

	Failed    int            `json:"failed_tries"`
	Overflows float64        `json:"listen_overflows"` // connections that the kernel dropped because the backlog was full
	Drops     float64        `json:"listen_drops"`     // SYNs that it dropped, for this and other reasons
	Away      result.Latency `json:"away_ms"`
	Pings     int            `json:"pings"` // of a settled connection, while the others came
	PingP50   float64        `json:"ping_p50_ms"`
	PingP99   float64        `json:"ping_p99_ms"`
	PingMost  float64        `json:"ping_max_ms"`
}

// storm is how a server ends, and who comes back.
type storm struct {
	name    string
	drained bool // it ends gently, otherwise it is killed
	tls     bool
	tickets bool
}

var storms = []storm{
	{name: "TCP, the server was killed"},
	{name: "TCP, the server was drained", drained: true},
	{name: "TLS without tickets, the server was killed", tls: true},
	{name: "TLS with tickets, the server was killed", tls: true, tickets: true},
}

// drainArgs make a server ask its clients to leave within 10 seconds, and to come back
// within 60.
var drainArgs = []string{"--drain", "10s", "--return", "60s"}

const (
	stormPatience = 5 * time.Minute      // for all to be open, or open again
	stormPing     = 5 * time.Millisecond // between an answer and the next Ping
)

// Storms runs the storms one after the other. On an error it returns the rows until
// then.
func Storms(ctx context.Context, config StormConfig) (rows []Storm, err error) {
	machine, err := tuning.Read("/")
	if err != nil {
		return nil, err
	}
	raised := raiseLimits(machine, tuning.Demand{
		Conns: max(config.Conns, config.TLSConns), Server: true, Generator: true, TLS: true, Private: true, Targets: 1, Fanout: 1,
	}, config.Say)
	defer func() { err = errors.Join(err, raised.Restore()) }()
	for _, s := range storms {
		config.Say("%s", s.name)
		row, err := s.run(ctx, config)
		if err != nil {
			return rows, fmt.Errorf("%s: %w", s.name, err)
		}
		rows = append(rows, row)
	}
	return rows, nil
}

// run opens the connections, ends the server, starts another in its place, and waits
// until all are back.
func (s storm) run(ctx context.Context, config StormConfig) (row Storm, err error) {
	row = Storm{Name: s.name, Conns: config.Conns}
	load := loadgen.Config{Reconnect: true, Hold: 24 * time.Hour, Resume: s.tickets}
	var args []string
	scheme := "ws"
	if s.tls {
		files, err := newCertificate()
		if err != nil {
			return row, err
		}
		defer files.remove()
		row.Conns, scheme, load.TLS = config.TLSConns, "wss", files.trust
		args = append(args, "--tls-cert", files.cert, "--tls-key", files.key)
		if s.tickets { // the new server accepts the old one's
			keys, err := files.ticketKeys()
			if err != nil {
				return row, err
			}
			args = append(args, "--tls-ticket-keys", keys)
		}
	}
	if s.drained {
		args = append(args, drainArgs...)
	}
	load.Conns = row.Conns
	server, err := s.start(ctx, row.Conns, "127.0.0.1:0", args)
	if err != nil {
		return row, err
	}
	defer func() { server.kill() }()

	var open, resumed atomic.Int64
	load.URLs = []string{scheme + "://" + server.addr + "/"}
	load.Sinks = []measure.Sink{measure.Funcs{OnSnapshot: func(now *measure.Snapshot) {
		resumed.Store(int64(now.Counts[measure.Resumed]))
		open.Store(int64(now.Open))
	}}}
	loading, stop := context.WithCancel(ctx)
	defer stop()
	var got *result.Result
	var failed error
	loaded := make(chan struct{})
	go func() {
		defer close(loaded)
		got, failed = loadgen.Run(loading, load)
	}()
	defer func() { stop(); <-loaded }()
	all := func() error {
		return waitFor(ctx, loaded, func() bool { return open.Load() == int64(row.Conns) })
	}
	if err := all(); err != nil {
		return row, fmt.Errorf("%d of %d are open: %w", open.Load(), row.Conns, errors.Join(err, failed))
	}

	config.Say("  all are open; the server ends")
	resumedBefore := resumed.Load()
	before := listenDrops()
	if s.drained {
		err = server.stop()
	} else {
		server.kill()
	}
	if err != nil {
		return row, err
	}
	if err := waitFor(ctx, loaded, func() bool { return open.Load() < int64(row.Conns) }); err != nil {
		return row, err
	}
	left := open.Load()
	address := server.addr
	if server, err = s.start(ctx, row.Conns, address, args); err != nil {
		return row, err
	}
	config.Say("  another server listens, %d connections are still thought to be open", left)
	begun := time.Now()
	settled, err := settle(ctx, scheme+"://"+address+"/", load.TLS)
	if err != nil {
		return row, err
	}
	defer settled.Close()
	pings := make(chan []time.Duration, 1)
	pinging, enough := context.WithCancel(ctx)
	defer enough()
	go func() { pings <- pingUntil(pinging, settled) }()

	err = all()
	row.Seconds = time.Since(begun).Seconds()
	row.Handshake = cpu(server.cmd.Process.Pid).Seconds() / float64(row.Conns) * micro
	row.Back, row.Resumed = int(open.Load()), int(resumed.Load()-resumedBefore)
	enough()
	row.addPings(<-pings)
	after := listenDrops()
	row.Overflows, row.Drops = after.overflows-before.overflows, after.drops-before.drops
	stop()
	<-loaded
	if got != nil && got.Returns != nil {
		row.Away, row.Failed = got.Returns.Away, got.Returns.Failed
	}
	config.Say("  %d of %d are back after %.1f s", row.Back, row.Conns, row.Seconds)
	return row, errors.Join(err, failed)
}

// start starts a server for so many connections, and for one that pings.
func (s storm) start(ctx context.Context, conns int, address string, more []string) (*process, error) {
	lull, err := self()
	if err != nil {
		return nil, err
	}
	args := []string{"serve", "--listen", address, "--mode", "echo", "--admin=", "--status", "0s", "--fd-tables", "private",
		"--max-conns", strconv.Itoa(conns + 1), "--reactors", strconv.Itoa(tuning.Reactors(conns))}
	return start(ctx, lull, append(args, more...)...)
}

// waitFor waits for something that the load brings about, until it has ended.
func waitFor(ctx context.Context, loaded <-chan struct{}, done func() bool) error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	late := time.After(stormPatience)
	for !done() {
		select {
		case <-tick.C:
		case <-loaded:
			return errors.New("experiment: the generator has ended")
		case <-late:
			return fmt.Errorf("experiment: gave up after %s", stormPatience)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// settle opens a connection for Pings. It tries again while the others are in its way.
func settle(ctx context.Context, url string, trust *tls.Config) (net.Conn, error) {
	var c net.Conn
	err := context.DeadlineExceeded
	for tries := 0; err != nil && tries < 10 && ctx.Err() == nil; tries++ {
		c, _, _, err = ws.Dialer{TLSConfig: trust, Timeout: startTimeout}.Dial(ctx, url)
	}
	return c, err
}

// pingUntil pings until ctx ends, and returns how long the answers took, sorted. One
// that does not come counts as abuseTimeout, and is the last.
func pingUntil(ctx context.Context, c net.Conn) (took []time.Duration) {
	in, wire := bufio.NewReader(c), masked(frame.Ping, nil)
	for err := error(nil); ctx.Err() == nil && err == nil; time.Sleep(stormPing) {
		at := time.Now()
		_ = c.SetDeadline(at.Add(abuseTimeout)) // fails only on a closed socket
		_, err = c.Write(wire)
		for op := ws.OpCode(0); err == nil && op != ws.OpPong; {
			var h ws.Header
			if h, err = ws.ReadHeader(in); err == nil {
				op = h.OpCode
				_, err = io.CopyN(io.Discard, in, h.Length)
			}
		}
		if err != nil {
			took = append(took, abuseTimeout)
			break
		}
		took = append(took, time.Since(at))
	}
	slices.Sort(took)
	return took
}

func (row *Storm) addPings(took []time.Duration) {
	if row.Pings = len(took); row.Pings > 0 {
		row.PingP50 = milliseconds(took[len(took)/2])
		row.PingP99 = milliseconds(took[len(took)*99/100])
		row.PingMost = milliseconds(took[len(took)-1])
	}
}

// dropped is what the kernel has counted since its network namespace began
// (Documentation/networking/snmp_counter.rst: TcpExtListenOverflows, TcpExtListenDrops).
type dropped struct{ overflows, drops float64 }

func listenDrops() (d dropped) {
	self, err := procfs.NewProc(os.Getpid())
	if err != nil {
		return d
	}
	stat, err := self.Netstat()
	if err != nil || stat.ListenOverflows == nil || stat.ListenDrops == nil {
		return d
	}
	return dropped{*stat.ListenOverflows, *stat.ListenDrops}
}

// WriteStorms prints rows as a Markdown table, below a line about this machine.
func WriteStorms(w io.Writer, rows []Storm) error {
	machine, err := tuning.Read("/")
	if err != nil {
		return err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "Linux %s, %d processors, %s. Server and clients on this machine.\n\n"+
		"| storm | back | all in after | with a ticket | away, p50 / p99 / last | failed tries | backlog overflows / SYN drops | server CPU each | a settled connection's Ping, p50 / p99 / max |\n"+
		"|---|--:|--:|--:|--:|--:|--:|--:|--:|\n",
		machine.Kernel, machine.Processors, runtime.Version())
	for _, r := range rows {
		fmt.Fprintf(&b, "| %s | %s of %s | %.1f s | %s | %.1f / %.1f / %.1f s | %s | %.0f / %.0f | %.1f µs | %.1f / **%.1f** / %.1f ms |\n",
			r.Name, count(float64(r.Back)), count(float64(r.Conns)), r.Seconds, count(float64(r.Resumed)), r.Away.P50/1000, r.Away.P99/1000, r.Away.Last/1000,
			count(float64(r.Failed)), r.Overflows, r.Drops, r.Handshake, r.PingP50, r.PingP99, r.PingMost)
	}
	_, err = io.WriteString(w, b.String())
	return err
}
