package experiment

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"time"

	broker "github.com/nats-io/nats-server/v2/server"

	"github.com/seed-134acfd0/lull/internal/natsd"
	"github.com/seed-134acfd0/lull/loadgen"
	"github.com/seed-134acfd0/lull/loadgen/measure"
	"github.com/seed-134acfd0/lull/loadgen/result"
	"github.com/seed-134acfd0/lull/tuning"
)

// Config says what to run.
type Config struct {
	Conns      int // 0 is as many as the machine can hold, and at most ConnsAuto
	Hold       time.Duration
	Broadcasts int
	Size       int
	Rate       float64
	Compress   bool // with permessage-deflate
	TLS        bool // over TLS, with a certificate made for the run
	Rooms      int  // that the connections are in, in place of one chat; 0 is none
	Cluster    bool // with rooms: the server is in a cluster, of which it is the only node, by a NATS server in this process

	Say   func(format string, args ...any) // prints what the user should know during the run
	Sinks []measure.Sink                   // are told what the load does
}

// ConnsAuto is the most connections if Config.Conns is 0.
const ConnsAuto = 256_000

// Report is the result of an experiment.
type Report struct {
	Date    time.Time       `json:"date"`
	Machine Machine         `json:"machine"`
	Wanted  int             `json:"wanted"` // connections, 0 for as many as possible; Load.Conns are fewer if there is a Limit
	Limit   string          `json:"limit,omitempty"`
	Raised  []tuning.Change `json:"raised,omitempty"` // sysctls, for the run
	Load    *result.Result  `json:"load"`
	Costs   []Cost          `json:"costs"`
	Memory  Memory          `json:"memory"`
	Model   Model           `json:"model"`
	Samples []Sample        `json:"samples"`
}

// Machine is where it ran.
type Machine struct {
	Kernel     string `json:"kernel"`
	Go         string `json:"go"`
	Processors int    `json:"processors"`
	Memory     int64  `json:"memory_bytes"`
	Buckets    int    `json:"tcp_hash_buckets,omitempty"` // of the network namespace; 0 if unknown
}

func machineOf(m *tuning.Machine) Machine {
	return Machine{Kernel: m.Kernel, Go: runtime.Version(), Processors: m.Processors, Memory: m.Memory, Buckets: HashTable()}
}

// Model is the memory that the doctor's model predicts for the connections: both
// ends and both processes together.
type Model struct {
	Kernel int64 `json:"kernel_bytes"`
	User   int64 `json:"user_bytes"`
}

// ModelOff is by how many percent the model's memory exceeds the measured memory,
// kernel and user space together. It is negative if the model is too low.
func (r *Report) ModelOff() float64 {
	m := r.Memory
	measured := m.KernelPerConn*float64(r.Load.Open) + float64(m.ServerRSS+m.GeneratorRSS)
	return 100 * (float64(r.Model.Kernel+r.Model.User)/measured - 1)
}

// Run runs the experiment. If it fails after it has read the machine's limits, it
// returns an error together with the report until then.
func Run(ctx context.Context, config Config) (report *Report, err error) {
	machine, err := tuning.Read("/")
	if err != nil {
		return nil, err
	}
	report = &Report{
		Date:    time.Now().UTC().Truncate(time.Second),
		Wanted:  config.Conns,
		Machine: machineOf(machine),
	}
	demand := tuning.Demand{Conns: config.Conns, Server: true, Generator: true, TLS: config.TLS, Private: true, Targets: 1, Fanout: max(1, config.Size)}
	if demand.Conns == 0 {
		demand.Conns = ConnsAuto
	}
	if most, limit := machine.Largest(demand); limit != nil {
		report.Limit = fmt.Sprintf("%s allows %d: %s", limit.Name, most, limit.Fix)
		config.Say("limited to %d connections by %s\n  %s", most, limit.Name, limit.Fix)
		demand.Conns = most
	}
	if demand.Conns < 1 {
		return report, errors.New("experiment: this machine has no room for a single connection")
	}
	raised := raiseLimits(machine, demand, config.Say) // Largest has checked the limits that could stop the run
	defer func() { err = errors.Join(err, raised.Restore()) }()
	report.Raised = raised.Changes
	err = report.run(ctx, config, demand.Conns)
	if report.Load != nil {
		demand.Conns = report.Load.Open
		report.Model.Kernel, report.Model.User = machine.RAM(demand)
	}
	return report, err
}

// run starts the server, loads it and takes the figures.
func (report *Report) run(ctx context.Context, config Config, conns int) (err error) {
	lull, err := self()
	if err != nil {
		return err
	}
	mode, path := "chat", "/"
	if config.Rooms > 0 {
		mode, path = "rooms", "/room/{{.Room}}"
	}
	args := []string{"serve", "--listen", "127.0.0.1:0", "--mode", mode, "--max-conns", strconv.Itoa(conns), "--admin=", "--status", "0s"}
	if config.Cluster {
		broker, err := natsd.Start(&broker.Options{Host: "127.0.0.1", Port: broker.RANDOM_PORT})
		if err != nil {
			return fmt.Errorf("experiment: %w", err)
		}
		defer natsd.Stop(broker)
		args = append(args, "--nats", broker.ClientURL(), "--node-name", "experiment")
	}
	scheme, trust := "ws", (*tls.Config)(nil)
	if config.TLS {
		files, err := newCertificate()
		if err != nil {
			return err
		}
		defer files.remove()
		args = append(args, "--tls-cert", files.cert, "--tls-key", files.key)
		scheme, trust = "wss", files.trust
	}
	if config.Compress {
		args = append(args, "--compress", "--compress-from", "64")
	}
	server, err := start(ctx, lull, args...)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, server.stop()) }()

	config.Say("%d connections to %s", conns, server.addr)
	o := observe(server.cmd.Process.Pid)
	report.Load, err = loadgen.Run(ctx, loadgen.Config{
		URLs: []string{scheme + "://" + server.addr + path}, TLS: trust, Compress: config.Compress, Conns: conns, Rooms: config.Rooms, Rate: config.Rate,
		Hold: config.Hold, Broadcasts: config.Broadcasts, Size: config.Size,
		Sinks: append([]measure.Sink{o}, config.Sinks...),
	})
	o.Phase("end")
	report.Costs, report.Samples = o.cost(), o.samples
	report.Memory = memory(o, conns)
	return err
}
