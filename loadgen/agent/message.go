package agent

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/seed-134acfd0/lull/loadgen/measure"
	"github.com/seed-134acfd0/lull/loadgen/plan"
)

// The limits of what is sent.
const (
	messageMax = 1 << 20   // bytes of a message; NATS' default max_payload
	partMax    = 256 << 10 // bytes of a part of something longer
	jobMax     = 64 << 20  // bytes of a job
	resultMax  = 64 << 20  // bytes of a result
	agentsMax  = 1000      // agents of a run
	nameMax    = 64        // bytes of an agent's name
	errorMax   = 1000      // bytes of an error's text
)

// The subjects.
const (
	helloSubject = "lull.hello"
	agentPrefix  = "lull.agent."
	runPrefix    = "lull.run."
)

// Machine is an agent and its machine.
type Machine struct {
	ID        string `json:"id"`   // random
	Name      string `json:"name"` // the host's, as a rule
	Version   string `json:"version"`
	Addresses int    `json:"addresses"` // source addresses
	Memory    int64  `json:"memory"`    // bytes
	plan.Machine
}

// request is what a coordinator asks one agent.
type request struct {
	Op      op      `json:"op"`
	Run     string  `json:"run,omitempty"`
	Version string  `json:"version,omitempty"` // of opJoin
	Part    *part   `json:"part,omitempty"`    // of opJob
	Orders  *orders `json:"orders,omitempty"`  // of opOrders
}

type op string

const (
	opClock  op = "clock"  // what time is it?
	opJoin   op = "join"   // take part in a run
	opJob    op = "job"    // a part of the job
	opOrders op = "orders" // no reply
)

// reply is the answer to a request.
type reply struct {
	Error string `json:"error,omitempty"`
	Clock int64  `json:"clock,omitempty"` // nanoseconds since 1970
}

// job is what an agent has to do. All agents of a run get the same, each with its index,
// and each divides the plan by itself.
type job struct {
	Plan     *plan.Plan     `json:"plan"`
	Machines []plan.Machine `json:"machines"`
	Index    int            `json:"index"` // the agent's own, among Machines
	RunID    uint16         `json:"run_id"`
	Settings Settings       `json:"settings"`
}

// Settings are what the engines of all machines are told beside the plan.
type Settings struct {
	Timeout  time.Duration `json:"timeout,omitempty"`  // of a connection's handshakes together; 0 is the engine's default
	Patience time.Duration `json:"patience,omitempty"` // for messages that do not come; 0 is the engine's default
	Segment  int           `json:"segment,omitempty"`  // maximum TCP segment size, in bytes; 0 is the route's
	CA       []byte        `json:"ca,omitempty"`       // authorities of wss:// servers, in PEM; empty is each machine's own
	Insecure bool          `json:"insecure,omitempty"` // accept any certificate
	Resume   bool          `json:"resume,omitempty"`   // resume TLS sessions with a ticket
}

// report is what an agent tells its coordinator.
type report struct {
	Agent   string `json:"agent"`
	Number  uint64 `json:"number"`  // of the report; one that comes after a later one does not count
	Waiting int    `json:"waiting"` // the phase at whose barrier it waits; -1 is none
	// Batch numbers the times in Snapshot. They are sent until the coordinator has
	// answered, and the same number has the same times.
	Batch    uint64            `json:"batch,omitempty"`
	Snapshot *measure.Snapshot `json:"snapshot,omitempty"`
	Part     *part             `json:"part,omitempty"`  // of the result
	Error    string            `json:"error,omitempty"` // why it ended without a result
}

// orders are what a coordinator wants of an agent. Times are by the agent's clock, in
// nanoseconds since 1970.
type orders struct {
	Run    string `json:"run"`
	Number uint64 `json:"number"`          // of these orders; older ones that come later do not count
	Begin  int64  `json:"begin,omitempty"` // when the run begins; 0 is not known yet
	Go     int    `json:"go"`              // the last phase that may begin; -1 is none
	At     int64  `json:"at,omitempty"`    // when phase Go begins
	// Publisher is the ID of the agent that publishes in phase Go, if that publishes: the
	// plan's, or another one if that was lost.
	Publisher string  `json:"publisher,omitempty"`
	Orphaned  bool    `json:"orphaned,omitempty"` // that agent is lost, or has ended
	Paused    bool    `json:"paused,omitempty"`
	Rate      float64 `json:"rate,omitempty"`  // since it was last changed; rateOfOthers if the agent sends nothing
	Rates     int     `json:"rates,omitempty"` // how often it was changed
	Stop      bool    `json:"stop,omitempty"`  // end the run early, with a result
	Over      string  `json:"over,omitempty"`  // the run is over for this agent, and why
}

// rateOfOthers says that a changed rate is not for this agent.
const rateOfOthers = -1

// encode is a message in JSON. It fails only on what has no JSON, such as a figure that
// is not a number.
func encode(message any) ([]byte, error) {
	b, err := json.Marshal(message)
	if err != nil {
		return nil, fmt.Errorf("agent: %w", err)
	}
	if len(b) > messageMax {
		return nil, fmt.Errorf("agent: a message of %d bytes is longer than %d", len(b), messageMax)
	}
	return b, nil
}

// decode reads a message.
func decode(b []byte, message any) error {
	if len(b) > messageMax {
		return fmt.Errorf("agent: a message of %d bytes is longer than %d", len(b), messageMax)
	}
	if err := json.Unmarshal(b, message); err != nil {
		return fmt.Errorf("agent: a message cannot be read: %w", err)
	}
	return nil
}
