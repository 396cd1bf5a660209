package agent

import "sync"

// Remote is the Control of a run that agents carry out. Any goroutine may call its
// methods, before and during the run.
type Remote struct {
	mu      sync.Mutex
	paused  bool
	rate    float64
	rates   int
	stopped bool
	changed chan struct{}
}

// NewRemote returns a Remote for one run.
func NewRemote() *Remote { return &Remote{changed: make(chan struct{}, 1)} }

// Pause makes all agents pause, or go on.
func (c *Remote) Pause(paused bool) {
	c.change(func() { c.paused = paused })
}

// SetRate changes the rate of the phase that goes on. The agents share it as they
// share the phase.
func (c *Remote) SetRate(perSecond float64) {
	c.change(func() { c.rate, c.rates = perSecond, c.rates+1 })
}

// Stop ends the run early. Its result is what there is until then.
func (c *Remote) Stop() {
	c.change(func() { c.stopped = true })
}

func (c *Remote) change(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f()
	select {
	case c.changed <- struct{}{}:
	default: // the coordinator will look
	}
}

// copyTo writes what is wanted into a run.
func (c *Remote) copyTo(r *run) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r.paused, r.rate, r.rates = c.paused, c.rate, c.rates
	r.stop = r.stop || c.stopped
	r.changed()
}
