package agent

import (
	"context"
	"time"

	"github.com/seed-134acfd0/lull/loadgen/measure"
	"github.com/seed-134acfd0/lull/loadgen/plan"
	"github.com/seed-134acfd0/lull/loadgen/result"
)

// Engine carries out one machine's share of one run.
type Engine interface {
	// Run puts the load on the servers, and returns the result. When ctx ends, it closes
	// its connections and returns the result until then. t.Sink has all that was timed
	// before a call of t.Barrier, and before Run returns.
	Run(ctx context.Context, t Task) (*result.Result, error)
	Control
}

// Control changes a run while it goes on. Any goroutine may call its methods.
type Control interface {
	Pause(paused bool)
	SetRate(perSecond float64)
	Stop()                   // end it early, with a result
	LosePublisher(phase int) // the machine is lost that publishes in a phase, by its index: wait for nothing of it
}

// Task is what an engine has to do.
type Task struct {
	Plan     *plan.Plan // this machine's share, which the engine may only read
	Settings Settings
	First    int    // number of this machine's first user
	RunID    uint16 // of all machines
	Begin    time.Time
	Sink     measure.Sink
	// Barrier is called before each phase. It returns when all machines may begin it, or
	// an error when ctx has ended. It changes who publishes in the phase (Phase.Listen)
	// if the machine that was to do so is lost.
	Barrier func(ctx context.Context, phase int) error
}
