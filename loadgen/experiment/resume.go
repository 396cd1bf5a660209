package experiment

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/seed-134acfd0/lull/tuning"
)

// Resuming is what clients of `lull serve --mode rooms` do that have lost their node: they come
// to another one with the position of the last message that they have had. Two nodes share the
// rooms. Each room has a host at one of them, who says a number every second, and all other
// clients are at the other node, which ends.

// ResumeConfig says how many clients lose their node. Hosts talk for the time Before until it
// ends, and After when all are back; clients come back within Spread. The defaults are 3, 2 and
// 5 seconds.
type ResumeConfig struct {
	Conns                 int
	Before, Spread, After time.Duration
	Say                   func(format string, args ...any)
}

// Resume is one row of the table.
type Resume struct {
	Name      string  `json:"name"`
	Conns     int     `json:"conns"`
	Rooms     int     `json:"rooms"`
	Back      int     `json:"back"`                // came to the other node
	Seconds   float64 `json:"seconds"`             // from the node's end until the last was back
	Said      uint64  `json:"said"`                // messages to all rooms
	Delivered int64   `json:"delivered"`           // to all clients
	Replayed  int64   `json:"replayed"`            // of these, as they came back
	Missing   int64   `json:"missing"`             // that never came
	Twice     int64   `json:"twice"`               // that came again
	Told      int64   `json:"told"`                // clients that were told that something is missing
	Failed    int64   `json:"failed_tries"`        // to connect
	CPU       float64 `json:"server_cpu_micros"`   // of the node that stays, for each that came back, with its part of the messages
	Resident  uint64  `json:"server_resident_mib"` // of that node, at the end
}

// resumption is how the node ends.
type resumption struct {
	name    string
	drained bool // it ends gently, otherwise it is killed
}

var resumptions = []resumption{{"the node was killed", false}, {"the node was drained", true}}

const (
	perRoom       = 100                     // clients in a room, at most
	resumePace    = 4000                    // clients that come in a second
	resumeSettle  = 2500 * time.Millisecond // until positions are younger than the rooms, whatever the clocks
	resumeHistory = "100"                   // messages of a room that nodes keep
)

// Resumes lets clients lose their node, once for each way in which it can end. On an error it
// returns the rows until then.
func Resumes(ctx context.Context, config ResumeConfig) (rows []Resume, err error) {
	config.Before = cmp.Or(config.Before, 3*time.Second)
	config.Spread = cmp.Or(config.Spread, 5*time.Second)
	config.After = cmp.Or(config.After, 2*time.Second)
	machine, err := tuning.Read("/")
	if err != nil {
		return nil, err
	}
	raised := raiseLimits(machine, tuning.Demand{Conns: 2 * config.Conns, Server: true, Generator: true, Private: true, Targets: 2, Fanout: 1}, config.Say)
	defer func() { err = errors.Join(err, raised.Restore()) }()
	for _, r := range resumptions {
		config.Say("%s", r.name)
		row, err := r.run(ctx, config)
		if err != nil {
			return rows, fmt.Errorf("%s: %w", r.name, err)
		}
		rows = append(rows, row)
	}
	return rows, nil
}

// run starts two nodes, lets clients come, ends the node that most are at, and waits until all
// have had all messages.
func (r resumption) run(ctx context.Context, config ResumeConfig) (row Resume, err error) {
	row = Resume{Name: r.name, Conns: config.Conns, Rooms: (config.Conns + perRoom - 1) / perRoom}
	peers, err := freeAddress()
	if err != nil {
		return row, err
	}
	stays, err := r.start(ctx, config, "stays", "--cluster", peers)
	if err != nil {
		return row, err
	}
	defer stays.kill()
	ends, err := r.start(ctx, config, "ends", "--cluster", "127.0.0.1:0", "--cluster-peers", peers)
	if err != nil {
		return row, err
	}
	defer ends.kill()

	crowd, err := newCrowd(stays.addr, ends.addr, row.Rooms, config.Conns, config.Spread)
	if err != nil {
		return row, err
	}
	defer crowd.end()
	all := int64(row.Rooms + row.Conns)
	if err := crowd.until(ctx, "all are there", func() bool { return crowd.settled.Load() == all }); err != nil {
		return row, err
	}
	wait(ctx, resumeSettle)
	crowd.talking.Store(true)
	wait(ctx, config.Before)

	config.Say("  %d clients in %d rooms; the node ends", row.Conns, row.Rooms)
	before, begun := cpu(stays.cmd.Process.Pid), time.Now()
	if r.drained {
		err = ends.stop()
	} else {
		ends.kill()
	}
	if err != nil {
		return row, err
	}
	if err := crowd.until(ctx, "all are back", func() bool { return crowd.returned.Load() == int64(row.Conns) }); err != nil {
		return row, err
	}
	row.Seconds = time.Since(begun).Seconds()
	row.CPU = (cpu(stays.cmd.Process.Pid) - before).Seconds() / float64(row.Conns) * micro
	wait(ctx, config.After)
	crowd.talking.Store(false)
	wait(ctx, 20*resumeTick) // whoever is about to say something has said it
	late := crowd.until(ctx, "all have had everything", func() bool { return crowd.heard.Load() == crowd.owed() })
	if ctx.Err() != nil {
		return row, ctx.Err()
	}
	row.Back, row.Said, row.Delivered, row.Replayed = int(crowd.returned.Load()), crowd.said(), crowd.delivered.Load(), crowd.replayed.Load()
	row.Missing, row.Twice, row.Told, row.Failed = crowd.missing.Load(), crowd.twice.Load(), crowd.told.Load(), crowd.failed.Load()
	if late != nil { // what is still to come does not come any more
		row.Missing += crowd.owed() - crowd.heard.Load()
	}
	if memory, err := tuning.MemoryOf(stays.cmd.Process.Pid); err == nil {
		row.Resident = uint64(memory.Resident) >> 20
	}
	config.Say("  %d are back after %.1f s; %d missing, %d twice", row.Back, row.Seconds, row.Missing, row.Twice)
	return row, nil
}

// start starts a node.
func (r resumption) start(ctx context.Context, config ResumeConfig, name string, more ...string) (*process, error) {
	lull, err := self()
	if err != nil {
		return nil, err
	}
	args := []string{
		"serve", "--listen", "127.0.0.1:0", "--mode", "rooms", "--history", resumeHistory, "--node-name", name, "--admin=", "--status", "0s", "--fd-tables", "private",
		"--max-conns", strconv.Itoa(config.Conns + config.Conns/perRoom + 64), "--reactors", strconv.Itoa(tuning.Reactors(config.Conns)),
	}
	if r.drained && name == "ends" {
		args = append(args, "--drain", config.Spread.String(), "--return", "1s")
	}
	return start(ctx, lull, append(args, more...)...)
}

func wait(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// until waits for what will be so soon.
func (c *crowd) until(ctx context.Context, what string, is func() bool) error {
	return until(ctx, time.Minute, what, func() (bool, error) {
		if is() {
			return true, nil
		}
		if failure := c.broken.Load(); failure != nil {
			return true, *failure
		}
		return false, fmt.Errorf("%d have settled, %d have come back, %d failed tries, the last: %v", c.settled.Load(), c.returned.Load(), c.failed.Load(), errorOf(&c.last))
	})
}

func errorOf(p *atomic.Pointer[error]) error {
	if err := p.Load(); err != nil {
		return *err
	}
	return nil
}

// WriteResumes prints rows as a Markdown table, below a line about this machine.
func WriteResumes(w io.Writer, rows []Resume) error {
	machine, err := tuning.Read("/")
	if err != nil {
		return err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "Linux %s, %d processors, %s. Both nodes and all clients on this machine.\n\n"+
		"| | back | all back after | said in the rooms | delivered | of these on coming back | missing | twice | told that some may be missing | failed tries | CPU of the other node, each |\n"+
		"|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n",
		machine.Kernel, machine.Processors, runtime.Version())
	for _, r := range rows {
		fmt.Fprintf(&b, "| %s | %s of %s | %.1f s | %s | %s | %s | **%s** | **%s** | %s | %s | %.0f µs |\n",
			r.Name, count(float64(r.Back)), count(float64(r.Conns)), r.Seconds, count(float64(r.Said)), count(float64(r.Delivered)), count(float64(r.Replayed)),
			count(float64(r.Missing)), count(float64(r.Twice)), count(float64(r.Told)), count(float64(r.Failed)), r.CPU)
	}
	_, err = io.WriteString(w, b.String())
	return err
}
