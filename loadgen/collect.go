package loadgen

import (
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-134acfd0/lull/loadgen/measure"
	"github.com/seed-134acfd0/lull/loadgen/result"
	"github.com/seed-134acfd0/lull/netpoll"
)

// about is what the result begins with.
func (r *run) about() result.Run {
	about := result.RunOf(r.plan)
	about.Begun, about.Workers, about.Processors, about.Size = r.begun, len(r.workers), netpoll.Processors(), r.messageSize()
	for _, p := range r.ports {
		about.Sources = max(about.Sources, len(p.sources.addrs))
	}
	return about
}

// messageSize is the size of the messages that the generator makes, in bytes.
func (r *run) messageSize() int {
	if r.largest == 0 {
		return sizeDefault
	}
	return r.largest
}

// report tells the builder and the sinks how far the run is, if it is time for that.
func (r *run) report(now time.Duration) {
	switch {
	case now-r.timed >= timesEvery:
		r.collect()
	case now-r.seen >= progressEvery:
		r.look(now)
		r.show()
	}
}

// look makes the snapshot of now, without what was timed.
func (r *run) look(now time.Duration) {
	s := &r.snap
	s.At, s.Users, s.Counts, s.Paused = now, r.plan.Users(), r.counts(), r.paused >= 0
	s.Open, s.Opening, s.Expected = s.Counts.Open(), 0, max(0, r.until-now)
	s.CPU, s.Busy, s.Times = 0, 0, measure.Histograms{}
	s.Errors, s.Limited = r.errors.List(), r.limited
	for _, w := range r.workers {
		s.Opening += int(w.public.opening.Load())
	}
}

// show gives the latest snapshot to the sinks.
func (r *run) show() {
	r.seen = r.snap.At
	for _, s := range r.config.Sinks {
		s.Snapshot(&r.snap)
	}
}

// collect asks the workers for what they have timed, and shows it.
func (r *run) collect() {
	reports := make(chan report, len(r.workers))
	r.tellAll(order{kind: orderReport, report: reports})
	var times measure.Histograms
	for range r.workers {
		if r.failed != nil {
			break // its report will not come
		}
		select {
		case one := <-reports:
			times.Merge(&one.times)
			one.times.Free()
			for f, n := range one.errors {
				r.errors.Add(measure.Error{Counter: f.counter.String(), Phase: r.snap.Phase, Text: f.text}, n)
			}
		case err := <-r.ended:
			r.fail(err)
		}
	}
	now := r.elapsed()
	r.look(now)
	used := usageNow()
	r.snap.Times = times
	r.snap.CPU, r.snap.Busy = used.share(r.used)
	r.used, r.timed = used, now
	r.builder.Snapshot(&r.snap)
	r.show()
	times.Free()
	r.snap.Times, r.snap.CPU, r.snap.Busy = measure.Histograms{}, 0, 0
}

// usage is how much processor time had been used at a time.
type usage struct {
	at  time.Time
	own time.Duration // by this process
	all float64       // by all, in seconds
}

func usageNow() usage {
	var u unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &u) // cannot fail for the own process
	return usage{at: time.Now(), own: time.Duration(u.Utime.Nano() + u.Stime.Nano()), all: busy()}
}

// busy is for how many seconds all processors have had something to do, 0 if that cannot be
// found out. It reads the first line of proc_stat(5) alone: each burst needs it.
func busy() (seconds float64) {
	f, err := os.Open("/proc/stat")
	if err != nil {
		return 0
	}
	defer f.Close()
	var line [256]byte
	n, _ := f.Read(line[:])
	var user, nice, system, idle, wait, irq, soft, steal float64
	_, err = fmt.Sscanf(string(line[:n]), "cpu %f %f %f %f %f %f %f %f", &user, &nice, &system, &idle, &wait, &irq, &soft, &steal)
	if err != nil {
		return 0
	}
	return (user + nice + system + irq + soft + steal) / userHZ
}

// userHZ is how often the kernel's clock ticks a second, in what it says to programs.
const userHZ = 100

// share is which part of all processors' time this process, and all processes, have used
// since before.
func (u usage) share(before usage) (own, all float64) {
	whole := u.at.Sub(before.at).Seconds() * float64(netpoll.Processors())
	if whole <= 0 {
		return 0, 0
	}
	return (u.own - before.own).Seconds() / whole, min(1, (u.all-before.all)/whole)
}
