package experiment

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/seed-134acfd0/lull/loadgen"
	"github.com/seed-134acfd0/lull/loadgen/measure"
)

// OutageConfig says how to kill a backend under load.
type OutageConfig struct {
	Backend string        // the program
	Before  time.Duration // under load, before it is killed
	Down    time.Duration // until it is started again
	After   time.Duration // under load again
	Say     func(format string, args ...any)
}

// Outage is what became of clients and of lull while their backend was away.
type Outage struct {
	Retries int `json:"hook_retries"` // --hook-retries

	Sent       int     `json:"sent"`
	Answered   int     `json:"answered"`
	Unanswered int     `json:"unanswered"`
	Counted    int     `json:"counted_as_lost"` // by lull
	Disordered int     `json:"disordered"`      // answers that came twice, or after a later one, or at another connection
	Closed     int     `json:"closed"`
	Noticed    float64 `json:"noticed_s"`     // from the kill until lull says that the backend is down
	Refused    string  `json:"newcomer"`      // what a handshake is answered meanwhile
	Back       float64 `json:"back_s"`        // from the start until the next answer
	Before     int64   `json:"memory_before"` // of lull, in bytes
	During     int64   `json:"memory_during"` // at the end of the outage
	End        int64   `json:"memory_end"`
}

// The load of an outage.
const (
	outageConns = 500
	outageRate  = 4_000 // messages a second
)

// MeasureOutages kills a backend under load, once where lull sends each message at most once,
// and once where it sends those again of which nobody knows whether the backend has seen them.
// On an error it returns what there is.
func MeasureOutages(ctx context.Context, config OutageConfig) (rows []Outage, err error) {
	for _, retries := range []int{0, 5} {
		config.Say("%s clients send %s messages a second; the backend is killed for %s; --hook-retries %d", count(outageConns), count(outageRate), config.Down, retries)
		row, err := measureOutage(ctx, config, retries)
		if err != nil {
			return rows, err
		}
		rows = append(rows, row)
	}
	return rows, nil
}

// outage kills the backend and starts it again while a load runs.
type outage struct {
	config    OutageConfig
	ctx       context.Context
	socket    string
	backend   *process
	lull      *process
	row       Outage
	at        time.Time // when the backend was started again
	answers   uint64    // until then
	begun     time.Time // of the load; guarded by the order of the sink's calls, as all here
	killed    bool
	restarted bool
	err       error
}

func measureOutage(ctx context.Context, config OutageConfig, retries int) (row Outage, err error) {
	dir, err := os.MkdirTemp("", "lull-outage-")
	if err != nil {
		return row, fmt.Errorf("experiment: %w", err)
	}
	defer os.RemoveAll(dir)
	o := &outage{config: config, ctx: ctx, socket: filepath.Join(dir, "backend.sock"), row: Outage{Retries: retries}}
	if o.backend, err = start(ctx, config.Backend, "-unix", o.socket); err != nil {
		return row, err
	}
	defer func() { o.backend.kill() }()
	lull, err := self()
	if err != nil {
		return row, err
	}
	o.lull, err = start(ctx, lull, "serve", "--listen", "127.0.0.1:0", "--mode", "hooks", "--hook", "unix:"+o.socket+":/",
		"--hook-retries", strconv.Itoa(retries), "--api=", "--admin", "127.0.0.1:0", "--status", "0s")
	if err != nil {
		return row, err
	}
	defer o.lull.kill()
	res, err := loadgen.Run(ctx, loadgen.Config{
		URLs: []string{"ws://" + o.lull.addr + "/"}, Conns: outageConns, Flood: outageConns, FloodRate: outageRate,
		Echo: config.Before + config.Down + config.After, Sinks: []measure.Sink{o},
	})
	switch {
	case err != nil || o.err != nil:
		return o.row, errors.Join(err, o.err)
	case !o.restarted || res.Echo == nil || res.Echo.Flood == nil:
		return o.row, errors.New("experiment: outage: the load has ended too early")
	}
	m, err := scrape(ctx, o.lull.admin)
	if err != nil {
		return o.row, err
	}
	o.row.Counted = int(m.sum("lull_hook_messages_lost_total"))
	o.row.Sent, o.row.Answered = res.Echo.Flood.Sent, res.Echo.Flood.Answered
	o.row.Unanswered = o.row.Sent - o.row.Answered
	o.row.Disordered = res.Counts["repeated"] + res.Counts["strayed"]
	o.row.Closed = outageConns - res.Open
	o.row.End = resident(o.lull.cmd.Process.Pid)
	return o.row, nil
}

// Phase takes note of the load's begin.
func (o *outage) Phase(name string) {
	if name == "echo" {
		o.begun = time.Now()
	}
}

// Snapshot kills the backend and starts it again when it is time. The load goes on
// meanwhile: its sinks have a goroutine of their own.
func (o *outage) Snapshot(now *measure.Snapshot) {
	if o.begun.IsZero() || o.err != nil {
		return
	}
	answers := now.Counts.Sum(measure.Answered, measure.Echoes)
	since := time.Since(o.begun) - o.config.Before
	switch {
	case !o.killed && since >= 0:
		o.kill()
	case o.killed && !o.restarted && since >= o.config.Down:
		o.restart(answers)
	case o.restarted && o.row.Back == 0 && answers > o.answers:
		o.row.Back = time.Since(o.at).Seconds()
	}
}

func (o *outage) kill() {
	o.killed = true
	pid := o.lull.cmd.Process.Pid
	o.row.Before = resident(pid)
	o.backend.kill()
	killed := time.Now()
	for o.err == nil && o.row.Noticed == 0 {
		m, err := scrape(o.ctx, o.lull.admin)
		if o.err = err; m.sum("lull_hook_down") > 0 {
			o.row.Noticed = time.Since(killed).Seconds()
		} else if time.Since(killed) > o.config.Down/2 {
			o.err = errors.New("experiment: outage: lull does not notice that the backend is down")
		}
	}
	request, err := http.NewRequestWithContext(o.ctx, http.MethodGet, "http://"+o.lull.addr+"/", nil)
	if err != nil {
		o.err = errors.Join(o.err, err)
		return
	}
	for name, value := range map[string]string{"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="} {
		request.Header.Set(name, value)
	}
	answer, err := scraper.Do(request)
	if err != nil {
		o.err = errors.Join(o.err, err)
		return
	}
	answer.Body.Close()
	o.row.Refused = fmt.Sprintf("%d, Retry-After: %s", answer.StatusCode, answer.Header.Get("Retry-After"))
}

func (o *outage) restart(answers uint64) {
	o.restarted, o.answers = true, answers
	o.row.During = resident(o.lull.cmd.Process.Pid)
	_ = os.Remove(o.socket) // of the one that was killed
	o.backend, o.err = start(o.ctx, o.config.Backend, "-unix", o.socket)
	o.at = time.Now()
}

// WriteOutages prints what was measured.
func WriteOutages(w io.Writer, rows []Outage) error {
	return writeColumns(w, rows, []line[Outage]{
		{"", func(o *Outage) string { return fmt.Sprintf("--hook-retries %d", o.Retries) }},
		{"messages sent", func(o *Outage) string { return count(float64(o.Sent)) }},
		{"answered", func(o *Outage) string { return count(float64(o.Answered)) }},
		{"unanswered, and counted as lost", func(o *Outage) string { return fmt.Sprintf("%d, %d", o.Unanswered, o.Counted) }},
		{"answered twice or out of order", func(o *Outage) string { return strconv.Itoa(o.Disordered) }},
		{"connections closed", func(o *Outage) string { return fmt.Sprintf("%d of %s", o.Closed, count(outageConns)) }},
		{"from the kill until lull says so", func(o *Outage) string { return fmt.Sprintf("%.2f s", o.Noticed) }},
		{"a handshake meanwhile", func(o *Outage) string { return o.Refused }},
		{"from the start until the next answer", func(o *Outage) string { return fmt.Sprintf("%.1f s", o.Back) }},
		{"lull's memory before, during, after", func(o *Outage) string {
			return fmt.Sprintf("%.1f, %.1f, %.1f MiB", float64(o.Before)/mebi, float64(o.During)/mebi, float64(o.End)/mebi)
		}},
	})
}
