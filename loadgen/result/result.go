package result

import (
	"time"

	"github.com/seed-134acfd0/lull/loadgen/measure"
)

// Schema and Version say what a file is. A file of another version is refused, because
// its figures may mean something else.
const (
	Schema  = "lull.load"
	Version = 2
)

// Result is the outcome of a run.
type Result struct {
	Schema  string    `json:"schema"`
	Version int       `json:"version"`
	Name    string    `json:"name,omitempty"` // of the plan
	Begun   time.Time `json:"begun"`
	Seconds float64   `json:"seconds"` // until all connections were closed

	// What was wanted.
	Conns      int      `json:"conns"`
	URLs       []string `json:"urls"`
	Workers    int      `json:"workers"`
	Sources    int      `json:"source_addresses"`
	Processors int      `json:"processors"` // of the generator's machine, or machines
	Size       int      `json:"message_bytes"`
	Rate       float64  `json:"rate_wanted_per_second,omitempty"`

	// What came of it. Messages and connections are counted, and times are measured,
	// until the connections are closed.
	Open        int             `json:"open"` // at the end, before closing
	Gone        int             `json:"gone"` // users that were to leave, and did
	Lost        int             `json:"lost"` // broadcasts and answers that did not arrive
	ConnectRate float64         `json:"connects_per_second"`
	Counts      map[string]int  `json:"counts"`
	Handshake   Latency         `json:"handshake_ms"`     // from when a connection was meant to begin to the response
	TLS         Latency         `json:"tls_ms"`           // of that, TLS's handshake
	Pong        Latency         `json:"pong_ms"`          // from a Ping of the load's connections to its Pong
	Lag         Latency         `json:"generator_lag_ms"` // the generator's own part: how long a readable socket waited for it
	Broadcasts  []Broadcast     `json:"broadcasts,omitempty"`
	Probe       *Probe          `json:"probe,omitempty"`
	Echo        *Echo           `json:"echo,omitempty"`
	Returns     *Returns        `json:"returns,omitempty"` // nil if connections that end are not opened again
	Phases      []Phase         `json:"phases"`
	Errors      []measure.Found `json:"errors,omitempty"` // the most frequent first

	// What to think of it.
	Interrupted bool   `json:"interrupted,omitempty"`
	Early       string `json:"ended_early,omitempty"` // why the run ended before its last phase
	// Limited says where the generator was the bottleneck. Those figures measure
	// the generator and not the server, so the result is not valid.
	Limited  []string `json:"generator_limited,omitempty"`
	Valid    bool     `json:"valid"`
	Expected []Check  `json:"expected,omitempty"` // thresholds, and whether they were met
	Agents   []Agent  `json:"agents,omitempty"`   // the machines that carried it out, if there were several

	// What other figures can be computed from.
	Timeline   []Point            `json:"series"` // at most measure.PointsMax
	Histograms measure.Histograms `json:"histograms"`
}

// Agent is one of several machines that carried out a run.
type Agent struct {
	Name       string `json:"name"`
	Users      int    `json:"users"` // its share
	Processors int    `json:"processors"`
	// How much its clock showed more than the coordinator's, which its times are corrected
	// by; how exactly that is known; and how much it changed until the end.
	ClockAhead   float64  `json:"clock_ahead_ms"`
	ClockExactTo float64  `json:"clock_exact_to_ms"`
	ClockDrift   *float64 `json:"clock_drift_ms"` // nil if it was not measured
	Lost         string   `json:"lost,omitempty"` // why it took no part any more, or empty
}

// Phase is a part of the run and what it cost the generator.
type Phase struct {
	Name       string             `json:"name"`
	Begun      time.Time          `json:"begun"`
	Seconds    float64            `json:"seconds"`
	CPUSeconds float64            `json:"cpu_seconds"`
	Counts     measure.Counts     `json:"counts"`             // in this phase
	Times      map[string]Latency `json:"times_ms,omitempty"` // by kind, in this phase
}

// Broadcast is one burst of broadcast messages, at least one.
type Broadcast struct {
	Phase      string  `json:"phase,omitempty"` // in which it was
	Messages   int     `json:"messages"`
	Expected   int     `json:"expected"` // deliveries
	Received   int     `json:"received"`
	Deliveries float64 `json:"deliveries_per_second"`
	Latency    Latency `json:"latency_ms"`
	// Lag is the generator's own part of the latency: how long a socket that
	// epoll reported as readable waited until the generator read it.
	Lag       Latency `json:"generator_lag_ms"`
	Histogram []Bar   `json:"histogram"`
}

// Bar is one bucket of a distribution.
type Bar struct {
	UpTo  float64 `json:"up_to_ms"`
	Count int64   `json:"count"`
}

// Probe is how long Pings of an uninvolved connection took: while the server was
// idle, and during the broadcasts, or the echoes if there were no broadcasts.
type Probe struct {
	Idle Latency `json:"idle_ms"`
	Busy Latency `json:"busy_ms"`
}

// Returns are the connections that the server has ended, and that were opened again.
type Returns struct {
	Count  int     `json:"count"`
	Failed int     `json:"failed_tries"`
	Away   Latency `json:"away_ms"` // from the end until it was open again
}

// Echo is what users sent that expect answers.
type Echo struct {
	Active   int     `json:"active"`
	Messages int     `json:"messages"`
	Rate     float64 `json:"messages_per_second"`
	Latency  Latency `json:"latency_ms"`
	Lag      Latency `json:"generator_lag_ms"`
	// Flood is nil if no users sent without waiting for answers.
	Flood *Flood `json:"flood,omitempty"`
}

// Flood is what users sent that do not wait for answers, and what became of it.
type Flood struct {
	Conns     int     `json:"conns"`
	Sent      int     `json:"sent"`
	Answered  int     `json:"answered"`
	Abandoned int     `json:"abandoned"` // unanswered when their connection ended
	Latency   Latency `json:"latency_ms"`
}

// OK reports whether every connection was opened and stayed open, came back, or left
// because it was to; and every message arrived once, and none of another run or
// connection. A server may send messages of its own, such as a greeting.
func (r *Result) OK() bool {
	wrong := r.count(measure.Missed) + r.count(measure.Repeated) + r.count(measure.Strayed) + r.count(measure.Broken)
	held := r.Open + r.count(measure.HalfOpen) - r.count(measure.HalfEnded)
	return !r.Interrupted && r.Early == "" && held == r.Conns-r.Gone && r.Lost == 0 && wrong == 0 && r.asExpected()
}

func (r *Result) asExpected() bool {
	for _, c := range r.Expected {
		if !c.Met {
			return false
		}
	}
	return true
}

func (r *Result) count(c measure.Counter) int { return r.Counts[c.String()] }
