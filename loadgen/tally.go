package loadgen

import (
	"time"

	hdr "github.com/HdrHistogram/hdrhistogram-go"
)

// Counter names something that a worker counts.
type Counter int

// What is counted.
const (
	Connected    Counter = iota // handshakes complete and correct
	Refused                     // connections that nobody accepted
	Reset                       // connections that ended before the handshake did
	TimedOut                    // handshakes that were not complete in time
	Rejected                    // handshakes answered with an error or wrongly
	Failed                      // connections that this machine could not make
	Skipped                     // ports that were taken, so that another was used
	Held                        // times that connections were due but too many on their way
	Dropped                     // open connections that ended without a Close frame
	Closed                      // open connections that the server closed with one
	Broken                      // open connections on which the server broke the protocol
	Stalled                     // open connections whose server did not read
	Sent                        // broadcasts sent
	Received                    // broadcasts received
	Missed                      // broadcasts that were passed over by a later one
	Repeated                    // broadcasts received again, or late
	Foreign                     // messages that are none of ours
	Asked                       // messages sent that should be echoed
	Echoes                      // echoes received
	Flooded                     // messages sent without waiting for answers
	Answered                    // answers to them
	Abandoned                   // of these messages, unanswered when their connection ended
	DeafReceived                // broadcasts received by connections that were deaf, once they were not
	DeafMissed                  // broadcasts that they never received
	DeafEnded                   // deaf connections that ended
	BytesIn                     // bytes received
	tallies
)

var counterNames = [tallies]string{
	"connected", "refused", "reset", "timed_out", "rejected", "failed", "skipped", "held",
	"dropped", "closed", "broken", "stalled",
	"sent", "received", "missed", "repeated", "foreign", "asked", "echoes",
	"flooded", "answered", "abandoned", "deaf_received", "deaf_missed", "deaf_ended", "bytes_in",
}

func (c Counter) String() string { return counterNames[c] }

// Histograms hold microseconds in two significant digits, up to a minute.
const (
	microsMax = 60_000_000
	digits    = 2
)

// report is what a worker measured since the last report.
type report struct {
	handshake, broadcast, echo, flood *hdr.Histogram
	lag                               *hdr.Histogram // how long an event waited for its turn with us
	errors                            map[string]int
}

// tally is what one worker counts. Counters only grow; the rest is handed over
// by take.
type tally struct {
	report
	counts [tallies]uint64
}

func newHistogram() *hdr.Histogram { return hdr.New(1, microsMax, digits) }

func newReport() report {
	return report{newHistogram(), newHistogram(), newHistogram(), newHistogram(), newHistogram(), map[string]int{}}
}

// take returns the report and begins a new one.
func (t *tally) take() report {
	r := t.report
	t.report = newReport()
	return r
}

// errorsKept bounds the different errors that a report names.
const errorsKept = 32

func (t *tally) fail(why Counter, err error) {
	t.counts[why]++
	text := why.String() + ": " + err.Error()
	if _, known := t.errors[text]; known || len(t.errors) < errorsKept {
		t.errors[text]++
	}
}

func record(h *hdr.Histogram, d time.Duration) {
	_ = h.RecordValue(min(max(1, d.Microseconds()), microsMax)) // in range, so it takes it
}

// merge adds other to r.
func (r *report) merge(other report) {
	r.handshake.Merge(other.handshake)
	r.broadcast.Merge(other.broadcast)
	r.echo.Merge(other.echo)
	r.flood.Merge(other.flood)
	r.lag.Merge(other.lag)
	for text, n := range other.errors {
		r.errors[text] += n
	}
}
