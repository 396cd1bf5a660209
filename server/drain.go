package server

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/netpoll"
	"github.com/seed-134acfd0/lull/server/internal/gate"
)

// leaving is a server's drain, as any goroutine sees it.
type leaving struct {
	once  sync.Once
	asked chan struct{} // closed by Drain
	began atomic.Int64  // a time of the server's clock; zero before
	shut  atomic.Bool   // nobody is let in any more
}

// Drain ends the server gently: for Options.DrainDelay it goes on as before, but is not
// ready (Stats.Draining), so that balancers can notice. Then handshakes get 503, and the
// connections are asked to leave, spread evenly over Options.DrainTime, with code 1012
// (service restart) and a reason that tells the client when to come back, such as
// "retry=12.3s". What a connection has sent before is handled first, and what it is owed
// goes out first, while the time lasts. Run returns when all have left, or Options.Grace after the last was
// asked. If Run's context ends meanwhile, all that are left are asked at once.
//
// Any goroutine may call it. It does not wait, and a second call does nothing.
func (s *Server) Drain() {
	s.leaving.once.Do(func() {
		s.leaving.began.Store(int64(max(1, s.clock.Now())))
		close(s.leaving.asked)
	})
}

// draining reports whether Drain was called, and how long the closes will take yet.
func (s *Server) draining() (togo time.Duration, ok bool) {
	began := time.Duration(s.leaving.began.Load())
	o := &s.options
	return max(0, began+o.DrainDelay+o.DrainTime-s.clock.Now()), began > 0
}

// drain waits for Drain, and returns when its time is over or nobody is left, or when
// ctx ends.
func (s *Server) drain(ctx context.Context) {
	select {
	case <-s.leaving.asked:
	case <-ctx.Done():
		return
	}
	o := &s.options
	s.journal.add(slog.LevelInfo, "draining", "connections", s.gate.Open(), "delay", o.DrainDelay, "time", o.DrainTime)
	select {
	case <-time.After(o.DrainDelay):
	case <-ctx.Done():
		return
	}
	s.leaving.shut.Store(true)
	s.tell(opDrain)
	over := time.After(o.DrainTime)
	tick := time.NewTicker(netpoll.TickLength)
	defer tick.Stop()
	for s.gate.Open() > 0 {
		select {
		case <-tick.C:
		case <-over:
			return
		case <-ctx.Done():
			return
		}
	}
}

// rejectLeaving is the answer to a handshake of a server that drains: those who are
// refused come back as those who are closed do, at random.
func (s *Server) rejectLeaving() *Reject {
	return s.admission.refuse(gate.Verdict{Reason: gate.Draining, Wait: max(time.Second, s.options.comeBack())})
}

// comeBack is a random part of DrainReturn.
func (o *Options) comeBack() time.Duration {
	return rand.N(max(0, o.DrainReturn) + 1).Round(100 * time.Millisecond)
}

// drain asks a reactor's connections to leave at the server's end. Its hand goes round
// the slots, as the sweep's does, and stops at as many connections as are due by now.
//
// A slot does not say when its connection was opened, but generations are numbered as
// connections are accepted. So connections leave in cohorts: a sample of generations,
// sorted, parts all into cohorts of about the same size, and in each lap the hand stops
// at those of one cohort, in the order of their slots.
type drain struct {
	*conns
	in     *input
	closer *closer

	begun bool
	last  bool          // the reactor ends when nobody is left
	began time.Duration // when the closes did, by the clock's time
	over  time.Duration // how long they take
	first int           // connections that were open then

	newest uint32   // the generation given out last then
	cuts   []uint32 // the highest rank of this cohort and of those to come
	hand   int      // the slot it looked at last
	looked netpoll.Tick
	unseen int // slots that it may look at in this tick
}

const (
	cohorts   = 64 // that leave one after the other
	cohortsOf = 16 // sampled generations for each
)

// begin begins to ask the connections that are open, over a time.
func (d *drain) begin() {
	d.begun = true
	d.began, d.over, d.first = d.time, d.server.options.DrainTime, d.open
	d.newest = d.slots.LastGen()
	d.cuts = d.cohorts()
	d.hand, d.unseen = -1, d.slots.High()*len(d.cuts)
}

// hurry asks all that are left, handshakes included. Then the reactor ends.
func (d *drain) hurry() {
	d.last, d.over = true, 0
	d.cuts = []uint32{math.MaxUint32}
	d.hand, d.unseen = -1, d.slots.High()
}

// rank is c's place in the order of leaving.
func (d *drain) rank(c *conn) uint32 {
	age := d.newest - c.Gen
	if d.server.options.DrainNewestFirst {
		return age
	}
	return ^age
}

// cohorts samples the open connections and returns the highest rank of each cohort. The
// last cohort is everybody.
func (d *drain) cohorts() []uint32 {
	var ranks, cuts []uint32
	high := d.slots.High()
	for i, n := 0, min(high, cohorts*cohortsOf); i < n; i++ {
		if c := d.slots.At(i * high / n); c != nil && c.state == stateOpen {
			ranks = append(ranks, d.rank(c))
		}
	}
	slices.Sort(ranks)
	for i, n := 1, min(len(ranks), cohorts); i < n; i++ {
		cuts = append(cuts, ranks[i*len(ranks)/n-1])
	}
	return append(cuts, math.MaxUint32)
}

// due is how many connections have to be asked by now, so that those which stay become
// fewer along a line. Reactors that have few do not ask them at the same moments.
func (d *drain) due() int {
	stay := 0
	if left := d.began + d.over - d.time; left > 0 {
		shift := (float64(d.index) + 0.5) / float64(len(d.server.reactors))
		stay = int(float64(d.first)*float64(left)/float64(d.over) + shift)
	}
	return d.open - d.leaving - stay
}

// advance lets the hand go round in each tick, once for each cohort.
func (d *drain) advance() {
	if d.tick != d.looked && (d.begun || d.last) {
		d.looked, d.unseen = d.tick, d.slots.High()*len(d.cuts)
	}
}

// busy reports whether the hand has to move.
func (d *drain) busy() bool { return d.unseen > 0 && (d.last || d.due() > 0) }

// next moves the hand on, and asks the connection there to leave if its turn has come.
// It reports whether it has.
func (d *drain) next() bool {
	d.unseen--
	if d.hand++; d.hand >= d.slots.High() {
		if d.hand = 0; len(d.cuts) > 1 {
			d.cuts = d.cuts[1:]
		}
	}
	c := d.slots.At(d.hand)
	switch {
	case c == nil || c.is(flagDying):
	case c.is(flagLeaving) && !d.last: // it was asked already
	case c.state == stateOpen && d.rank(c) <= d.cuts[0]:
		d.ask(c)
		return true
	case !d.last:
	case c.state == stateProxy, c.state == stateTLS:
		d.mark(c, gone(ErrShutdown))
		return true
	case c.state == stateRequest, c.state == stateAsking:
		d.mark(c, fate{kind: fateReject, cause: d.server.rejectLeaving()})
		return true
	}
	return false
}

// ask reads what c has sent, and has our Close frame sent when that was handled. If it
// has sent more than a read may handle, it is asked in a later lap. In the end nothing is
// waited for.
func (d *drain) ask(c *conn) {
	f := fate{kind: fateLeave, code: frame.GoingAway, cause: errLeaving}
	if d.begun {
		f.code, f.cause = frame.ServiceRestart, retry(d.server.options.comeBack())
	}
	if d.last {
		d.closer.dismiss(c, f)
		return
	}
	if !c.is(flagUnread) {
		d.in.read(c)
	}
	x := d.sides.of(c)
	if c.is(flagDying) || c.state != stateOpen || x != nil && x.input.Rest() > 0 {
		return
	}
	c.flags |= flagLeaving
	d.leaving++
	d.finish(c, f)
}

var errLeaving = errors.New("the server is shutting down")

// retry is a Close frame's reason that tells when to come back.
type retry time.Duration

func (r retry) Error() string {
	return "retry=" + strconv.FormatFloat(time.Duration(r).Seconds(), 'f', -1, 64) + "s"
}
