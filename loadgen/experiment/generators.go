package experiment

import (
	"bytes"
	"context"
	"embed"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"text/template"
	"time"

	"github.com/seed-134acfd0/lull/tuning"
)

// What a connection costs other load generators, in the same jobs as lull's: idle
// connections that are held, and connections that send and wait for the echo.

//go:embed generators/*.tmpl
var generatorFiles embed.FS

// GeneratorsConfig says how large the jobs are.
type GeneratorsConfig struct {
	Conns int    // the most idle connections
	Dir   string // where generators/install has put what comes from npm
	Say   func(format string, args ...any)
}

// generator is a load generator.
type generator struct {
	name    string
	program string
	install string // how to install it
	file    string // the template of its job, empty for none
	version []string
	args    func(job) []string

	// many is for a generator that needs so little that it would drown in what the
	// program itself needs: jobs have so many times as many connections and messages;
	// 0 is once.
	many struct{ conns, messages int }
}

// job is what a generator has to do. Its fields are for the templates.
type job struct {
	Host, Port, URL string
	Conns           int
	Rate            int     // connections a second
	Seconds         float64 // how long it takes to open them
	Messages        int     // of each connection; the next one follows the echo
	Text            string
	Hold            time.Duration // how long the connections are idle
	File            string        // the job, as the generator's file has it
	Dir             string        // for what the generator writes
}

const (
	generatorRate   = 1000                               // connections a second
	generatorText   = `{"m":"123456789012345678901234"}` // 32 bytes of JSON, which artillery wants
	echoConns       = 100
	echoMessages    = 200 // of each connection, and twice and three times as many
	serverSpare     = 100 // connections that the server takes beyond those of the job
	generatorHold   = 2 * time.Second
	generatorEvery  = 100 * time.Millisecond
	generatorLate   = time.Minute // beyond the time that the rate allows
	hourLong        = "1h"        // until it is killed
	generatorLeaves = 5 * time.Second
)

var generators = []generator{
	{
		name: "lull", version: []string{"version"}, many: struct{ conns, messages int }{5, 25},
		args: func(j job) []string {
			args := []string{"load", "--url", j.URL, "--conns", fmt.Sprint(j.Conns), "--rate", fmt.Sprint(j.Rate)}
			if j.Messages > 0 {
				return append(args, "--active", fmt.Sprint(j.Conns), "--echo", hourLong, "--size", fmt.Sprint(len(j.Text)))
			}
			return append(args, "--hold", hourLong)
		},
	},
	{
		name: "tsung", program: "tsung", file: "tsung.xml.tmpl", version: []string{"-v"}, install: "apt-get install tsung",
		args: func(j job) []string { return []string{"-f", j.File, "-l", j.Dir, "start"} },
	},
	{
		name: "k6", program: "k6", file: "k6.js.tmpl", version: []string{"version"}, install: "go install go.k6.io/k6@latest",
		args: func(j job) []string { return []string{"run", "--quiet", "--no-usage-report", j.File} },
	},
	{
		name: "artillery", program: "artillery", file: "artillery.yml.tmpl", version: []string{"version"}, install: "npm install artillery",
		args: func(j job) []string { return []string{"run", j.File} },
	},
	{
		name: "thor", program: "thor", file: "thor.js.tmpl", version: []string{"--version"}, install: "npm install thor, which needs git and access to its dependencies' repositories",
		args: func(j job) []string {
			return []string{"--amount", fmt.Sprint(j.Conns), "--concurrent", fmt.Sprint(j.Rate), "--messages", fmt.Sprint(max(1, j.Messages)),
				"--protocol", "13", "--generator", j.File, j.URL}
		},
	},
}

// GeneratorCost is what a generator needs.
type GeneratorCost struct {
	Name    string         `json:"name"`
	Version string         `json:"version,omitempty"`
	Missing string         `json:"missing,omitempty"` // how to install it; then there are no figures
	Failed  string         `json:"failed,omitempty"`  // why there are no figures
	Runs    []GeneratorRun `json:"runs,omitempty"`

	Memory    float64 `json:"bytes_per_connection"` // user space: the slope of the runs
	Error     float64 `json:"bytes_per_connection_standard_error"`
	Connected float64 `json:"cpu_micros_per_connection"`            // opened and held
	Echoed    float64 `json:"cpu_micros_per_echoed_message"`        // sent and received
	Whole     float64 `json:"cpu_micros_per_connection_with_start"` // of the largest idle job
}

// GeneratorRun is one job of one size.
type GeneratorRun struct {
	Conns    int     `json:"conns"`
	Messages int     `json:"messages"`
	Bytes    int64   `json:"bytes"` // of all of the generator's processes, with their share of what they share
	CPU      float64 `json:"cpu_seconds"`
}

// Generators runs the jobs with each generator that there is. If one fails its row
// says so, and the others run. On an error it returns the rows until then.
func Generators(ctx context.Context, config GeneratorsConfig) ([]GeneratorCost, error) {
	stop, err := adoptOrphans()
	if err != nil {
		return nil, err
	}
	defer stop()
	var rows []GeneratorCost
	for _, g := range generators {
		row := GeneratorCost{Name: g.name}
		program, err := g.find(config.Dir)
		if err != nil {
			row.Missing = g.install
			config.Say("%s is missing: %s", g.name, g.install)
			rows = append(rows, row)
			continue
		}
		row.Version = g.versionOf(program)
		err = row.measure(ctx, config, g, program)
		if ctx.Err() != nil {
			return rows, ctx.Err()
		}
		if err != nil {
			row.Failed = err.Error()
		}
		rows = append(rows, row)
	}
	return rows, nil
}

// find looks for the generator's program: beside what npm has installed, then in
// PATH.
func (g generator) find(dir string) (string, error) {
	if g.program == "" {
		return self()
	}
	if path, err := exec.LookPath(filepath.Join(dir, "node_modules", ".bin", g.program)); err == nil {
		return path, nil
	}
	return exec.LookPath(g.program)
}

// versionOf is the last word that the program prints about its version which begins
// with a number or a v and a number.
func (g generator) versionOf(program string) (version string) {
	out, _ := exec.Command(program, g.version...).CombinedOutput() // nothing is known if it fails
	for _, word := range strings.Fields(string(out)) {
		if bare := strings.TrimPrefix(word, "v"); version == "" && bare != "" && bare[0] >= '0' && bare[0] <= '9' {
			version = strings.TrimRight(bare, ",")
		}
	}
	return version
}

// measure runs the jobs in three sizes and computes the slopes.
func (row *GeneratorCost) measure(ctx context.Context, config GeneratorsConfig, g generator, program string) error {
	var idle, echo []GeneratorRun
	for size := range 3 {
		j := job{Conns: max(1, config.Conns*max(1, g.many.conns)>>(2-size)), Rate: generatorRate, Hold: generatorHold}
		config.Say("%s: %d idle connections", g.name, j.Conns)
		run, err := g.tried(ctx, config, program, j)
		if err != nil {
			return err
		}
		idle = append(idle, run)
	}
	for size := range 3 {
		j := job{Conns: echoConns, Rate: generatorRate, Messages: echoMessages * (size + 1) * max(1, g.many.messages), Text: generatorText}
		config.Say("%s: %d echoes", g.name, j.Conns*j.Messages)
		run, err := g.tried(ctx, config, program, j)
		if err != nil {
			return err
		}
		echo = append(echo, run)
	}
	row.Runs, row.Whole = append(idle, echo...), idle[len(idle)-1].CPU/float64(idle[len(idle)-1].Conns)*micro
	conns := func(r GeneratorRun) float64 { return float64(r.Conns) }
	row.Memory, row.Error = incline(idle, conns, func(r GeneratorRun) float64 { return float64(r.Bytes) })
	row.Connected, _ = incline(idle, conns, func(r GeneratorRun) float64 { return r.CPU * micro })
	row.Echoed, _ = incline(echo, func(r GeneratorRun) float64 { return float64(r.Messages) }, func(r GeneratorRun) float64 { return r.CPU * micro })
	return nil
}

// generatorTries is how often a generator may try a job: tsung stops short of its
// users at times.
const generatorTries = 2

// tried runs a job, and once more if it fails.
func (g generator) tried(ctx context.Context, config GeneratorsConfig, program string, j job) (run GeneratorRun, err error) {
	for range generatorTries {
		if run, err = g.run(ctx, program, j); err == nil || ctx.Err() != nil {
			break
		}
		config.Say("  %v", err)
	}
	return run, err
}

// incline is the slope of the straight line through runs, by least squares, and its
// standard error.
func incline(runs []GeneratorRun, x, y func(GeneratorRun) float64) (slope, standardError float64) {
	var xs, ys []float64
	for _, r := range runs {
		xs, ys = append(xs, x(r)), append(ys, y(r))
	}
	return regress(xs, ys)
}

// write fills in the job's file.
func (g generator) write(j *job) error {
	if g.file == "" {
		return nil
	}
	name := "generators/" + g.file
	t, err := template.ParseFS(generatorFiles, name)
	if err != nil {
		return fmt.Errorf("experiment: %w", err)
	}
	j.File = filepath.Join(j.Dir, strings.TrimSuffix(g.file, ".tmpl"))
	var b bytes.Buffer
	if err := t.Execute(&b, j); err != nil {
		return fmt.Errorf("experiment: %w", err)
	}
	return os.WriteFile(j.File, b.Bytes(), 0o600)
}

// run does one job with a server of its own, and kills the generator when it is
// done.
func (g generator) run(ctx context.Context, program string, j job) (result GeneratorRun, err error) {
	lull, err := self()
	if err != nil {
		return result, err
	}
	server, err := start(ctx, lull, "serve", "--listen", "127.0.0.1:0", "--mode", "echo", "--admin=127.0.0.1:0", "--status", "0s",
		"--origin", "any", "--fd-tables", "private", "--max-conns", fmt.Sprint(j.Conns+serverSpare), "--reactors", fmt.Sprint(tuning.Reactors(j.Conns+serverSpare)))
	if err != nil {
		return result, err
	}
	defer server.kill()
	if j.Dir, err = os.MkdirTemp("", "lull-generator-"); err != nil {
		return result, fmt.Errorf("experiment: %w", err)
	}
	defer os.RemoveAll(j.Dir)
	j.URL, j.Seconds = "ws://"+server.addr+"/", math.Ceil(float64(j.Conns)/float64(j.Rate))
	if j.Host, j.Port, err = net.SplitHostPort(server.addr); err != nil {
		return result, fmt.Errorf("experiment: %w", err)
	}
	if err := g.write(&j); err != nil {
		return result, err
	}
	var said tail
	cmd := exec.Command(program, g.args(j)...)
	cmd.Dir, cmd.Env = j.Dir, append(os.Environ(), "HOME="+j.Dir) // it may leave files there
	cmd.Stdout, cmd.Stderr = &said, &said
	cmd.WaitDelay = generatorLeaves // for what outlives it and has its output open
	if err := cmd.Start(); err != nil {
		return result, fmt.Errorf("experiment: start %s: %w", g.name, err)
	}
	defer func() {
		killDescendants(server.cmd.Process.Pid)
		_ = cmd.Wait() // it was killed
		reapOrphans(server.cmd.Process.Pid)
	}()
	result, err = j.watch(ctx, server)
	if err != nil {
		err = fmt.Errorf("experiment: %s: %w\n%s", g.name, err, said.String())
	}
	return result, err
}

// watch waits until the job is done: until all connections are open and have been
// idle for a while, or until the server has received all messages.
func (j job) watch(ctx context.Context, server *process) (r GeneratorRun, err error) {
	late := time.After(time.Duration(j.Seconds)*time.Second + generatorLate)
	tick := time.NewTicker(generatorEvery)
	defer tick.Stop()
	var all time.Time // when all were open
	for {
		m, err := scrape(ctx, server.admin)
		if err != nil {
			return r, err
		}
		var processes int
		if r, processes = usageOf(server.cmd.Process.Pid); processes == 0 {
			return r, errors.New("it has ended")
		}
		r.Conns, r.Messages = int(m[`lull_connections{state="open"}`]), int(m.sum("lull_messages_received_total"))
		if all.IsZero() && r.Conns >= j.Conns {
			all = time.Now()
		}
		switch {
		case j.Messages > 0 && r.Messages >= j.Conns*j.Messages:
			return r, nil
		case j.Messages == 0 && r.Conns >= j.Conns && time.Since(all) > j.Hold:
			return r, nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return r, ctx.Err()
		case <-late:
			return r, fmt.Errorf("%d of %d connections, %d of %d messages, and no more come", r.Conns, j.Conns, r.Messages, j.Conns*j.Messages)
		}
	}
}

// costsLess is by how many times lull should need less than each other generator.
const costsLess = 100

// WriteGenerators prints rows as a Markdown table, below a line about this machine.
// Generators without figures are named below it.
func WriteGenerators(w io.Writer, rows []GeneratorCost) error {
	machine, err := tuning.Read("/")
	if err != nil {
		return err
	}
	var b, rest strings.Builder
	fmt.Fprintf(&b, "Linux %s, %d processors, %s. Memory is user space; processor time is the generator's. Slopes over three sizes of each job;\n"+
		"in brackets, how many times what lull needs.\n\n"+
		"| generator | memory of a connection | processor time of a connection | the same with its share of the start | processor time of an echoed message | connections |\n"+
		"|---|--:|--:|--:|--:|--:|\n", machine.Kernel, machine.Processors, runtime.Version())
	var lull *GeneratorCost
	for i, r := range rows {
		switch {
		case r.Missing != "":
			fmt.Fprintf(&rest, "\n%s was not measured, because it is not installed: %s.\n", r.Name, r.Missing)
			continue
		case r.Failed != "":
			reason, _, _ := strings.Cut(r.Failed, "\n")
			fmt.Fprintf(&rest, "\n%s was not measured: %s.\n", r.Name, reason)
			continue
		case r.Name == "lull":
			lull = &rows[i]
		}
		cell := func(unit string, of func(*GeneratorCost) float64) string {
			text := number(of(&r)) + " " + unit
			if lull == nil || r.Name == "lull" {
				return text
			}
			times := number(of(&r)/of(lull)) + " ×"
			if of(&r) >= costsLess*of(lull) {
				times = "**" + times + "**"
			}
			return text + " (" + times + ")"
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s |\n", strings.TrimSpace(r.Name+" "+r.Version),
			cell(fmt.Sprintf("± %s B", number(r.Error)), func(c *GeneratorCost) float64 { return c.Memory }),
			cell("µs", func(c *GeneratorCost) float64 { return c.Connected }),
			cell("µs", func(c *GeneratorCost) float64 { return c.Whole }),
			cell("µs", func(c *GeneratorCost) float64 { return c.Echoed }), count(float64(r.most())))
	}
	fmt.Fprintf(&b, "\nBold: at least %d times what lull needs.\n%s", costsLess, rest.String())
	_, err = io.WriteString(w, b.String())
	return err
}

// most is how many connections the largest job had.
func (row *GeneratorCost) most() (conns int) {
	for _, run := range row.Runs {
		conns = max(conns, run.Conns)
	}
	return conns
}
