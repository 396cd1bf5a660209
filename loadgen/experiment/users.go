package experiment

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/seed-134acfd0/lull/loadgen"
	"github.com/seed-134acfd0/lull/loadgen/measure"
	"github.com/seed-134acfd0/lull/tuning"
)

// UsersConfig says how to measure the memory of connections that have users.
type UsersConfig struct {
	Backend string // the program
	Conns   []int
	Say     func(format string, args ...any)
}

// Users is the memory of idle connections of the hooks, each of another user, and all with
// one topic.
type Users struct {
	Conns      int     `json:"conns"`
	Open       int     `json:"open"`
	Memory     Memory  `json:"memory"`
	Handshakes float64 `json:"handshakes_per_second"`
	CPU        float64 `json:"handshake_cpu_us"` // of lull
}

// usersHold is how long the connections are idle, and usersRate how many open a second: a
// server in haste keeps garbage, which is not theirs.
const (
	usersHold = 5 * time.Second
	usersRate = 10_000
)

// MeasureUsers measures with each number of connections. On an error it returns what there is.
func MeasureUsers(ctx context.Context, config UsersConfig) (rows []Users, err error) {
	machine, err := tuning.Read("/")
	if err != nil {
		return nil, err
	}
	raised := raiseLimits(machine, tuning.Demand{Conns: slices.Max(config.Conns), Server: true, Generator: true, Private: true, Targets: 1, Fanout: 1}, config.Say)
	defer func() { err = errors.Join(err, raised.Restore()) }()
	for _, conns := range config.Conns {
		config.Say("%s connections with a user and a topic each", count(float64(conns)))
		row, err := measureUsers(ctx, config.Backend, conns)
		if err != nil {
			return rows, err
		}
		rows = append(rows, row)
	}
	return rows, nil
}

func measureUsers(ctx context.Context, program string, conns int) (row Users, err error) {
	backend, err := start(ctx, program, "-users")
	if err != nil {
		return row, err
	}
	defer backend.kill()
	lull, err := self()
	if err != nil {
		return row, err
	}
	server, err := start(ctx, lull, "serve", "--listen", "127.0.0.1:0", "--mode", "hooks", "--hook", "http://"+backend.addr+"/", "--hook-concurrency", "32",
		"--max-conns", strconv.Itoa(conns+10), "--max-topics", strconv.Itoa(conns+100), "--idle-timeout", "0s", "--api=", "--admin=", "--status", "0s")
	if err != nil {
		return row, err
	}
	defer server.kill()
	o := observe(server.cmd.Process.Pid)
	res, err := loadgen.Run(ctx, loadgen.Config{URLs: []string{"ws://" + server.addr + "/"}, Conns: conns, Rate: usersRate, Hold: usersHold, Sinks: []measure.Sink{o}})
	switch {
	case err != nil:
		return row, err
	case res.Open != conns:
		return row, fmt.Errorf("experiment: users: %d of %d connections are open: %v", res.Open, conns, res.Errors)
	}
	row = Users{Conns: conns, Open: res.Open, Memory: memory(o, conns), Handshakes: res.ConnectRate}
	for _, c := range o.cost() {
		if c.Phase == "ramp" {
			row.CPU = c.ServerCPU / float64(conns) * micro
		}
	}
	return row, nil
}

// WriteUsers prints what was measured.
func WriteUsers(w io.Writer, rows []Users) error {
	if len(rows) == 0 {
		return nil
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "idle connections with a user and a topic\tuser space of each, slope\tin all, of each\tkernel, both ends\thandshakes\tlull's processor time of each\t")
	for _, r := range rows {
		slope := "not measured"
		if s := r.Memory.ServerSlope; s != nil {
			slope = fmt.Sprintf("%.1f B ±%.1f", s.Bytes, s.Error)
		}
		fmt.Fprintf(t, "%s\t%s\t%.1f B\t%.0f B\t%.0f/s\t%.1f µs\t\n", count(float64(r.Conns)), slope, r.Memory.ServerPerConn, r.Memory.KernelPerConn, r.Handshakes, r.CPU)
	}
	return t.Flush()
}
