package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/seed-134acfd0/lull/loadgen/experiment"
)

type benchCommand struct {
	Scenarios   []string `arg:"" optional:"" help:"Scenarios to run. Default: handshake, echo, broadcast-15k, burst, burst-coalesced, ping and churn. Others run only if they are named: broadcast-1m and metrics-1m (a million connections: minutes and 9 GB), workers (the default mode of handlers beside another library), tls (handshakes and echoes over TLS beside net/http, crypto/tls and that library), clicking, clicking-close, clicking-warning, flooding, blocking-inline, blocking-serial, blocking-1-worker and blocking-5-workers (slow handlers), slow-close, slow-drop-new, slow-drop-old and slow-latest (clients that do not read). abuse, which runs alone, attacks the server and prints what honest clients feel. storm, alone too, lets all clients come back at once to a new server: 200,000 after a kill and after a drain, and 20,000 over TLS (minutes and 2 GB). flat, alone too, measures what a handshake and a delivery cost at each number of connections (--conns), with the kernel's TCP hash table as it is and with a large one. reader, alone too, compares what a received broadcast costs the generator with what it costs a program that only reads. generators, alone too, measures what a connection costs lull load and other load generators that are installed, in the same jobs. topics, alone too, measures what subscriptions and publications cost among --conns connections. resume, alone too, has --conns clients of rooms lose their node and come to another one, and counts what they miss. hooks, alone too, compares how many messages a backend answers through lull with how many requests of wrk it answers straight. users, alone too, measures the memory of --conns idle connections that are more than open (--kinds): of the hooks, each with a user and a topic, and of Pusher Channels, each with a channel. outage, alone too, kills a backend under load for half a minute. daphne, alone too, compares the same Django application behind lull and gunicorn, and behind Daphne and Channels (four minutes). cluster, alone too, joins three nodes by NATS in network namespaces, breaks what can break, and checks that each message has arrived or is said to be lost; then it measures 1 to 4 nodes (four minutes). It needs root."`
	Rounds      int      `help:"Number of rounds of each scenario." default:"5" range:"1..1000"`
	Floor       string   `help:"The floor program. Default: floor, in the directory of lull." type:"path" placeholder:"FILE" env:"LULL_FLOOR_PROGRAM" predictor:"file"`
	SlowHandler string   `help:"The slowhandler program. Default: slowhandler, in the directory of lull." type:"path" placeholder:"FILE" predictor:"file"`
	Peer        string   `help:"The peer program. Default: peer, in the directory of lull." type:"path" placeholder:"FILE" predictor:"file"`
	Reader      string   `help:"The reader program. Default: reader, in the directory of lull." type:"path" placeholder:"FILE" predictor:"file"`
	TopicServer string   `help:"The topicserver program. Default: topicserver, in the directory of lull." type:"path" placeholder:"FILE" predictor:"file"`
	Backend     string   `help:"The backend program. Default: backend, in the directory of lull." type:"path" placeholder:"FILE" predictor:"file"`
	ClusterNode string   `help:"The clusternode program. Default: clusternode, in the directory of lull." type:"path" placeholder:"FILE" predictor:"file"`
	Conns       []int    `help:"Numbers of connections for flat, ascending. Default: 10000,30000,100000,300000,1000000,2000000,2500000. For topics; default: 15000. For resume; default: 20000. For users; default: 100000. For generators and daphne, the most idle connections; default: 5000 and 2000." placeholder:"N" range:"2..1073741824" example:"10000,100000" env:"LULL_BENCH_CONNS"`
	Generators  string   `help:"Directory with what loadgen/experiment/generators/install has installed from npm." default:"/var/cache/lull-generators" type:"path" placeholder:"DIR" env:"LULL_GENERATORS_DIR" predictor:"file"`
	Against     string   `help:"Another lull program, which abuse attacks too." type:"path" placeholder:"FILE" predictor:"file"`
	Kinds       []string `help:"Kinds of connections for users: hooks (a user and a topic), channel (a Pusher channel of 10), news (the same Pusher channel) and presence (a Pusher presence channel of 10). Default: all." enum:"hooks,channel,news,presence" placeholder:"KIND"`
	netnsFlag
	JSON string `help:"Write the results to this file." type:"path" placeholder:"FILE" env:"LULL_JSON_FILE" predictor:"file"`
	Plot string `help:"Draw what flat or cluster has measured into this file, as SVG." type:"path" placeholder:"FILE" predictor:"file"`
}

func (benchCommand) Help() string {
	return `The floor program (loadgen/floor) accepts, reads and sends, and does nothing else. It sends each frame with a system
call of its own, so a server that sends frames together can take less; in burst-coalesced the floor does so too. lull and
the floor program run in turns, and the result is the ratio of the two: absolute times vary too much between runs.

Examples:
  lull bench
  lull bench echo handshake --rounds 9
  lull bench broadcast-1m --rounds 2
  lull bench abuse
  lull bench storm
  lull bench flat --conns 10000,100000,1000000 --rounds 3 --json flat.json --plot flat.svg
  lull bench generators
  lull bench topics --conns 15000,1000000
  lull bench resume
  lull bench hooks --rounds 3
  lull bench users --conns 100000,1000000
  sudo lull bench cluster --json cluster.json --plot cluster.svg`
}

// Validate checks the names of scenarios.
func (c *benchCommand) Validate() error {
	alone := c.alone()
	switch {
	case len(c.Conns) > 0 && (alone == nil || alone.takes == 0):
		return errors.New("--conns: can only be used with flat, topics, resume, users, generators or daphne")
	case len(c.Conns) > 1 && alone.takes == 1:
		return errors.New("--conns: must be one number with generators, daphne and resume")
	case len(c.Kinds) > 0 && (alone == nil || alone.name != "users"):
		return errors.New("--kinds: can only be used with users")
	case c.Plot != "" && (alone == nil || !alone.plots):
		return errors.New("--plot: can only be used with flat or cluster")
	}
	if !slices.IsSorted(c.Conns) {
		return fmt.Errorf("--conns: must be ascending, as in %s", "--conns=10000,100000")
	}
	if alone != nil {
		return nil
	}
	for _, name := range c.Scenarios {
		if !slices.Contains(experiment.ScenarioNames(), name) {
			var names []string
			for _, b := range benchesAlone {
				names = append(names, b.name)
			}
			return fmt.Errorf("unknown scenario %q: must be one of %s; or, alone, %s", name, strings.Join(experiment.ScenarioNames(), ", "), strings.Join(names, ", "))
		}
	}
	return nil
}

// benchAlone is a bench that runs alone.
type benchAlone struct {
	name  string
	run   func(c *benchCommand, ctx context.Context, conns []int) error
	conns []int // numbers of connections, if --conns says nothing
	takes int   // how many numbers --conns may have
	large bool  // it needs a large TCP hash table for that many, and makes no namespace itself
	plots bool
}

const anyNumber = math.MaxInt

var benchesAlone = []benchAlone{
	{name: "abuse", run: (*benchCommand).abuse},
	{name: "storm", run: (*benchCommand).storm, conns: []int{stormConns}, large: true},
	{name: "flat", run: (*benchCommand).flat, conns: []int{10_000, 30_000, 100_000, 300_000, 1_000_000, 2_000_000, 2_500_000}, takes: anyNumber, plots: true},
	{name: "reader", run: (*benchCommand).reader},
	{name: "generators", run: (*benchCommand).generators, conns: []int{5_000}, takes: 1},
	{name: "topics", run: (*benchCommand).topics, conns: []int{15_000}, takes: anyNumber, large: true},
	{name: "resume", run: (*benchCommand).resume, conns: []int{20_000}, takes: 1, large: true},
	{name: "hooks", run: (*benchCommand).hooks},
	{name: "users", run: (*benchCommand).users, conns: []int{100_000}, takes: anyNumber, large: true},
	{name: "outage", run: (*benchCommand).outage},
	{name: "daphne", run: (*benchCommand).daphne, conns: []int{2_000}, takes: 1},
	{name: "cluster", run: (*benchCommand).cluster, plots: true},
}

// alone is the bench that is the only one that was named and runs alone, or nil.
func (c *benchCommand) alone() *benchAlone {
	for i := range benchesAlone {
		if slices.Equal(c.Scenarios, []string{benchesAlone[i].name}) {
			return &benchesAlone[i]
		}
	}
	return nil
}

// numbers are the numbers of connections of a bench that runs alone.
func (c *benchCommand) numbers(alone *benchAlone) []int {
	if len(c.Conns) == 0 {
		return alone.conns
	}
	return c.Conns
}

func (c *benchCommand) Run(ctx context.Context) error {
	if most := c.mostConns(); most >= namespaceFrom {
		if ran, err := c.again(most); ran {
			return err
		}
	}
	if alone := c.alone(); alone != nil {
		return alone.run(c, ctx, c.numbers(alone))
	}
	rows, err := experiment.Bench(ctx, experiment.BenchConfig{
		Floor: cmp.Or(c.Floor, besideLull("floor")), SlowHandler: cmp.Or(c.SlowHandler, besideLull("slowhandler")), Peer: cmp.Or(c.Peer, besideLull("peer")),
		Rounds: c.Rounds, Scenarios: c.Scenarios, Say: say,
	})
	if err != nil {
		return err
	}
	if c.JSON != "" {
		if err := writeJSON(c.JSON, rows); err != nil {
			return err
		}
	}
	return experiment.WriteRows(os.Stdout, rows)
}

// namespaceFrom is from how many connections on a bench may run in a network namespace
// of its own.
const namespaceFrom = 100_000

// mostConns is how many connections are open at once that need a large TCP hash table.
func (c *benchCommand) mostConns() int {
	alone := c.alone()
	switch {
	case alone == nil:
		return experiment.MostConns(c.Scenarios)
	case alone.large:
		return slices.Max(c.numbers(alone))
	}
	return 0
}

// report writes the rows that there are, as JSON if that is wanted. err is why there are no more.
func report[Row any](c *benchCommand, rows []Row, write func(io.Writer, []Row) error, err error) error {
	if c.JSON != "" && len(rows) > 0 {
		err = errors.Join(err, writeJSON(c.JSON, rows))
	}
	return errors.Join(err, write(os.Stdout, rows))
}

// abuse attacks the server and prints the harm.
func (c *benchCommand) abuse(ctx context.Context, _ []int) error {
	rows, err := experiment.Abuse(ctx, experiment.AbuseConfig{
		Against: c.Against, SlowHandler: cmp.Or(c.SlowHandler, besideLull("slowhandler")), Say: say,
	})
	return errors.Join(err, experiment.WriteHarms(os.Stdout, rows)) // those that there are
}

// The clients of the storms.
const (
	stormConns    = 200_000
	stormTLSConns = 20_000
)

// storm lets clients come back and prints how that went.
func (c *benchCommand) storm(ctx context.Context, _ []int) error {
	rows, err := experiment.Storms(ctx, experiment.StormConfig{Conns: stormConns, TLSConns: stormTLSConns, Say: say})
	return report(c, rows, experiment.WriteStorms, err)
}

// flat measures what connections cost at each of their numbers.
func (c *benchCommand) flat(ctx context.Context, conns []int) error {
	flat, err := experiment.MeasureFlat(ctx, experiment.FlatConfig{Conns: conns, Rounds: c.Rounds, Say: say})
	if flat == nil {
		return err
	}
	if c.JSON != "" {
		err = errors.Join(err, writeJSON(c.JSON, flat))
	}
	if c.Plot != "" {
		err = errors.Join(err, writeFile(c.Plot, flat.WritePlot))
	}
	return errors.Join(err, flat.WriteMarkdown(os.Stdout)) // what there is
}

// The load of reader.
const (
	readerConns    = 15_000
	readerMessages = 50
)

// reader compares the generator with a program that only reads.
func (c *benchCommand) reader(ctx context.Context, _ []int) error {
	compared, err := experiment.CompareReader(ctx, experiment.ReaderConfig{
		Reader: cmp.Or(c.Reader, besideLull("reader")), Conns: readerConns, Count: readerMessages, Rounds: c.Rounds, Say: say,
	})
	if err == nil && c.JSON != "" {
		err = writeJSON(c.JSON, compared)
	}
	return errors.Join(err, compared.WriteText(os.Stdout)) // the rounds that there are
}

// generators measures what a connection costs load generators.
func (c *benchCommand) generators(ctx context.Context, conns []int) error {
	rows, err := experiment.Generators(ctx, experiment.GeneratorsConfig{Conns: conns[0], Dir: c.Generators, Say: say})
	return report(c, rows, experiment.WriteGenerators, err)
}

// topics measures what topics cost.
func (c *benchCommand) topics(ctx context.Context, conns []int) error {
	measured, err := experiment.MeasureTopics(ctx, experiment.TopicsConfig{
		Server: cmp.Or(c.TopicServer, besideLull("topicserver")), Conns: conns, Say: say,
	})
	if c.JSON != "" && len(measured.Tables) > 0 {
		err = errors.Join(err, writeJSON(c.JSON, measured))
	}
	return errors.Join(err, measured.WriteText(os.Stdout)) // what there is
}

// resume lets clients lose their node and prints what they missed.
func (c *benchCommand) resume(ctx context.Context, conns []int) error {
	rows, err := experiment.Resumes(ctx, experiment.ResumeConfig{Conns: conns[0], Say: say})
	return report(c, rows, experiment.WriteResumes, err)
}

// The load of hooks.
const (
	hooksConns = 64
	hooksTime  = 5 * time.Second
)

// hooks measures what lull costs between clients and a backend.
func (c *benchCommand) hooks(ctx context.Context, _ []int) error {
	measured, err := experiment.MeasureHooks(ctx, experiment.HooksConfig{
		Backend: cmp.Or(c.Backend, besideLull("backend")), Conns: hooksConns, Time: hooksTime, Rounds: c.Rounds, Say: say,
	})
	if c.JSON != "" && len(measured.Straight) > 0 {
		err = errors.Join(err, writeJSON(c.JSON, measured))
	}
	return errors.Join(err, measured.WriteText(os.Stdout)) // the rounds that there are
}

// users measures the memory of connections of the hooks and of Pusher Channels.
func (c *benchCommand) users(ctx context.Context, conns []int) error {
	rows, err := experiment.MeasureUsers(ctx, experiment.UsersConfig{Backend: cmp.Or(c.Backend, besideLull("backend")), Conns: conns, Kinds: c.Kinds, Say: say})
	return report(c, rows, experiment.WriteUsers, err)
}

// outage kills a backend under load for half a minute.
func (c *benchCommand) outage(ctx context.Context, _ []int) error {
	rows, err := experiment.MeasureOutages(ctx, experiment.OutageConfig{
		Backend: cmp.Or(c.Backend, besideLull("backend")), Before: 5 * time.Second, Down: 30 * time.Second, After: 15 * time.Second, Say: say,
	})
	return report(c, rows, experiment.WriteOutages, err)
}

// daphne compares lull and gunicorn with Daphne and Channels.
func (c *benchCommand) daphne(ctx context.Context, conns []int) error {
	sides, err := experiment.MeasureDaphne(ctx, experiment.DaphneConfig{Conns: conns[0], Clicked: time.Minute, Say: say})
	return report(c, sides, func(w io.Writer, sides []experiment.DaphneSide) error {
		return experiment.WriteDaphne(w, sides, conns[0])
	}, err)
}

// cluster tries and measures several nodes. The bridges between them are in a namespace of
// their own, which ends with the run.
func (c *benchCommand) cluster(ctx context.Context, _ []int) error {
	if c.Netns != "no" {
		space, err := experiment.NewNamespace(1 << 16)
		if err != nil {
			say("skipped: the nodes' network namespaces cannot be made, which needs root: %v", err)
			return nil
		}
		return runIn(space)
	}
	measured, err := experiment.MeasureCluster(ctx, experiment.ClusterConfig{Node: cmp.Or(c.ClusterNode, besideLull("clusternode")), Say: say})
	if measured != nil && c.JSON != "" {
		err = errors.Join(err, writeJSON(c.JSON, measured))
	}
	if measured != nil && len(measured.Speeds) > 1 && c.Plot != "" {
		err = errors.Join(err, writeFile(c.Plot, measured.WritePlot))
	}
	return errors.Join(err, measured.WriteText(os.Stdout)) // what there is
}

// besideLull is a program in the directory of this one.
func besideLull(name string) string {
	lull, err := os.Executable()
	if err != nil {
		return name
	}
	return filepath.Join(filepath.Dir(lull), name)
}
