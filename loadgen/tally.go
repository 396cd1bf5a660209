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
	Resumed                     // TLS handshakes that a session ticket shortened
	Refused                     // connects refused (ECONNREFUSED)
	Reset                       // connections that ended before the handshake did
	TimedOut                    // handshakes that were not complete in time
	Rejected                    // handshakes answered with an error or wrongly
	Failed                      // connections that this machine could not make
	Skipped                     // source ports that were taken, so that another was used
	Held                        // turns in which connections were due, but inFlight were opening already
	Dropped                     // open connections that ended without a Close frame
	Closed                      // open connections that the server closed with one
	Broken                      // open connections on which the server broke the protocol
	Stalled                     // open connections whose server did not read
	Returned                    // connections that were opened again after such an end; they count as connected too
	RetryFailed                 // tries to open one again that failed
	Sent                        // broadcasts sent
	Received                    // broadcasts received
	Missed                      // broadcasts or answers that did not come before a later one
	Repeated                    // messages received again, or after a later one
	Foreign                     // messages that no generator sent, such as a greeting
	Strayed                     // messages of another run, and answers to another connection's message
	Asked                       // messages sent that should be echoed
	Omitted                     // messages that were due while their connection still waited for an echo, and were not sent
	Echoes                      // echoes received
	Flooded                     // messages sent without waiting for answers
	Answered                    // answers to messages of flooders
	Abandoned                   // messages of flooders, unanswered when their connection ended
	DeafReceived                // broadcasts received by deaf connections, after they began to read again
	DeafMissed                  // broadcasts that deaf connections did not receive before a later one
	DeafEnded                   // deaf connections that ended
	BytesIn                     // bytes received
	OutOfRange                  // times that a histogram cannot hold; it has its least or its greatest instead
	tallies
)

var counterNames = [tallies]string{
	"connected", "resumed", "refused", "reset", "timed_out", "rejected", "failed", "skipped", "held",
	"dropped", "closed", "broken", "stalled", "returned", "retry_failed",
	"sent", "received", "missed", "repeated", "foreign", "strayed", "asked", "omitted", "echoes",
	"flooded", "answered", "abandoned", "deaf_received", "deaf_missed", "deaf_ended", "bytes_in", "out_of_range",
}

func (c Counter) String() string { return counterNames[c] }

// Histograms hold microseconds in two significant digits, up to a minute, or to a day
// for absences.
const (
	microsMax     = 60_000_000
	microsMaxAway = 86_400_000_000
	digits        = 2
)

// report is what a worker measured since the last report.
type report struct {
	handshake, broadcast, echo, flood *hdr.Histogram
	away                              *hdr.Histogram // of connections that were opened again
	lag                               *hdr.Histogram // from the end of a wait to the read of a socket that it reported
	errors                            map[string]int
}

// tally is what one worker counts. take hands over the report and empties it;
// the counters only grow.
type tally struct {
	report
	counts [tallies]uint64
}

func newHistogram() *hdr.Histogram { return hdr.New(1, microsMax, digits) }

func newReport() report {
	return report{newHistogram(), newHistogram(), newHistogram(), newHistogram(), hdr.New(1, microsMaxAway, digits), newHistogram(), map[string]int{}}
}

// take returns the report and begins a new one.
func (t *tally) take() report {
	r := t.report
	t.report = newReport()
	return r
}

// errorsKept is how many different errors a report names.
const errorsKept = 32

// fail counts a connection's end and keeps the text of its error.
func (t *tally) fail(why Counter, err error) {
	t.counts[why]++
	text := why.String() + ": " + err.Error()
	if _, known := t.errors[text]; known || len(t.errors) < errorsKept {
		t.errors[text]++
	}
}

// measure records a time, and counts one that h cannot hold: below zero, because the
// machine's clock is wrong, or above its greatest.
func (t *tally) measure(h *hdr.Histogram, d time.Duration) {
	if d < 0 || d.Microseconds() > h.HighestTrackableValue() {
		t.counts[OutOfRange]++
	}
	measure(h, d)
}

func measure(h *hdr.Histogram, d time.Duration) {
	_ = h.RecordValue(min(max(1, d.Microseconds()), h.HighestTrackableValue())) // fails only out of range
}

// merge adds other to r.
func (r *report) merge(other report) {
	r.handshake.Merge(other.handshake)
	r.broadcast.Merge(other.broadcast)
	r.echo.Merge(other.echo)
	r.flood.Merge(other.flood)
	r.away.Merge(other.away)
	r.lag.Merge(other.lag)
	for text, n := range other.errors {
		r.errors[text] += n
	}
}
