package measure

import (
	"encoding/json"
	"fmt"
	"slices"
)

// Counter names something that a generator counts.
type Counter int

// What is counted. A user is a connection together with those that replace it after
// it has ended.
const (
	Connected    Counter = iota // handshakes complete and correct
	Resumed                     // TLS handshakes that a session ticket shortened
	Refused                     // connects refused (ECONNREFUSED)
	Reset                       // connections that ended before the handshake did
	TimedOut                    // handshakes that were not complete in time
	Rejected                    // handshakes answered with an error or wrongly
	Failed                      // connections that this machine could not make
	NoPort                      // connections for which no source port was left
	Skipped                     // source ports that were taken, so that another was used
	Held                        // turns in which connections were due, but as many as may be were opening already
	Dropped                     // open connections that ended without a Close frame
	Closed                      // open connections that the server closed with one
	Broken                      // open connections on which the server broke the protocol
	Stalled                     // open connections whose server did not read
	Returned                    // connections that were opened again after such an end; they count as connected too
	RetryFailed                 // tries to open one again that failed
	HalfOpen                    // connections that are open, and whose handshake is never sent
	HalfEnded                   // of these, those that the server has ended
	Left                        // connections that the generator ended: churn, storms, drains, a script's end
	Recalled                    // of these, those that are opened again
	Finished                    // scripts that came to their end
	Sent                        // messages published, which all should receive
	Received                    // such messages received
	Overheard                   // such messages, received by users that need not receive them
	Missed                      // messages or answers that did not come before a later one
	Repeated                    // messages received again, or after a later one
	Foreign                     // messages that no generator sent and nobody waits for, such as a greeting
	Strayed                     // messages of another run, and answers to another connection's message
	Asked                       // messages sent that should be answered, by users that wait for each answer
	Omitted                     // messages that were due while their connection still waited for an answer, and were not sent
	Echoes                      // answers to these
	Flooded                     // messages sent by users that do not wait
	Answered                    // answers to these
	Abandoned                   // messages unanswered when their connection ended
	Unanswered                  // messages whose answer did not come in time
	Mismatched                  // messages that came in an answer's place and are none
	Told                        // messages sent that nobody should answer
	DeafReceived                // published messages received by deaf connections, after they began to read again
	DeafMissed                  // published messages that deaf connections did not receive before a later one
	DeafEnded                   // deaf connections that ended
	Vanished                    // open connections of a machine that was lost; what became of them is not known
	Pinged                      // Pings sent
	Ponged                      // Pongs received that answer one
	Unponged                    // Pings unanswered when their connection ended, or at the end
	BytesIn                     // bytes received
	BytesOut                    // bytes sent
	OutOfRange                  // times that a histogram cannot hold; it has its least or its greatest instead
	Counters                    // how many counters there are
)

var counterNames = [Counters]string{
	"connected", "resumed", "refused", "reset", "timed_out", "rejected", "failed", "no_port", "skipped", "held",
	"dropped", "closed", "broken", "stalled", "returned", "retry_failed", "half_open", "half_ended", "left", "recalled", "finished",
	"sent", "received", "overheard", "missed", "repeated", "foreign", "strayed", "asked", "omitted", "echoes",
	"flooded", "answered", "abandoned", "unanswered", "mismatched", "told",
	"deaf_received", "deaf_missed", "deaf_ended", "vanished", "pinged", "ponged", "unponged", "bytes_in", "bytes_out", "out_of_range",
}

// String is the counter's name in results and metrics, such as "timed_out".
func (c Counter) String() string { return counterNames[c] }

// The counters of connections that did not open, and of those that did not stay
// open.
var (
	OpenFailures = []Counter{Refused, Reset, TimedOut, Rejected, Failed, NoPort}
	StayFailures = []Counter{Dropped, Closed, Broken, Stalled, DeafEnded, Vanished}
)

// The counters of messages, each of which counts in one of them.
var (
	MessagesOut = []Counter{Sent, Asked, Flooded, Told}
	MessagesIn  = []Counter{Received, Overheard, DeafReceived, Echoes, Answered, Repeated, Foreign, Strayed, Mismatched}
)

// Counts has a number for each counter.
type Counts [Counters]uint64

// Sum adds some of the counts up.
func (c *Counts) Sum(counters ...Counter) (n uint64) {
	for _, counter := range counters {
		n += c[counter]
	}
	return n
}

// Add adds other to c.
func (c *Counts) Add(other *Counts) {
	for i, n := range other {
		c[i] += n
	}
}

// Sub returns what c has more than an earlier value of itself.
func (c *Counts) Sub(earlier *Counts) (d Counts) {
	for i, n := range c {
		d[i] = n - earlier[i]
	}
	return d
}

// Open is the number of connections that are open now.
func (c *Counts) Open() int {
	return int(c[Connected]) - int(c.Sum(StayFailures...)) - int(c[Left])
}

// Map has the counts by name, those of zero too.
func (c *Counts) Map() map[string]int {
	m := make(map[string]int, Counters)
	for i, n := range c {
		m[Counter(i).String()] = int(n)
	}
	return m
}

// MarshalJSON writes the counts that are not zero, by name.
func (c Counts) MarshalJSON() ([]byte, error) {
	m := map[string]uint64{}
	for i, n := range c {
		if n != 0 {
			m[Counter(i).String()] = n
		}
	}
	return json.Marshal(m)
}

// UnmarshalJSON reads what MarshalJSON wrote. It refuses counters that it does not
// know, which are those of another version.
func (c *Counts) UnmarshalJSON(b []byte) error {
	var m map[string]uint64
	if err := json.Unmarshal(b, &m); err != nil {
		return err
	}
	*c = Counts{}
	for name, n := range m {
		i := slices.Index(counterNames[:], name)
		if i < 0 {
			return fmt.Errorf("measure: there is no counter %q", name)
		}
		c[i] = n
	}
	return nil
}
