package result

import (
	"bytes"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/seed-134acfd0/lull/loadgen/measure"
)

// meanings explain the counters that the report for people shows if they are not zero.
// Their order is the report's.
var meanings = []struct {
	counter measure.Counter
	text    string
}{
	{measure.Refused, "nobody listens at the address"},
	{measure.Reset, "connections that ended before the handshake did"},
	{measure.TimedOut, "handshakes that were not complete in time"},
	{measure.Rejected, "handshakes answered with an error, or wrongly"},
	{measure.Failed, "connections that this machine could not make"},
	{measure.NoPort, "connections for which this machine had no source port left: give it more source addresses (--sources)"},
	{measure.Dropped, "open connections that ended without a Close frame"},
	{measure.Closed, "open connections that the server closed with one"},
	{measure.Broken, "open connections on which the server broke the protocol"},
	{measure.Stalled, "open connections whose server did not read"},
	{measure.DeafEnded, "deaf connections that ended"},
	{measure.HalfEnded, "connections without a handshake that the server has ended"},
	{measure.Vanished, "open connections of a machine that was lost; what became of them is not known"},
	{measure.Missed, "messages or answers that did not come before a later one"},
	{measure.Repeated, "messages that came again, or after a later one"},
	{measure.Foreign, "messages that no generator sent and nobody waits for, such as a greeting"},
	{measure.Strayed, "messages of another run, and answers to another connection's message"},
	{measure.Mismatched, "messages that came in an answer's place, and are none"},
	{measure.Unanswered, "messages whose answer did not come in time"},
	{measure.Abandoned, "messages whose connection ended before their answer came"},
	{measure.Unponged, "Pings without a Pong"},
	{measure.Omitted, "messages that were due while their connection still waited for an answer, and were not sent"},
	{measure.OutOfRange, "times below zero or above a day, because a clock was set"},
}

// WriteText prints r for people.
func (r *Result) WriteText(w io.Writer) error {
	var b bytes.Buffer
	r.writeConnections(&b)
	r.writeMessages(&b)
	r.writeTimes(&b)
	r.writePhases(&b)
	r.writeAgents(&b)
	r.writeJudgement(&b)
	_, err := w.Write(b.Bytes())
	return err
}

// row writes a figure behind its name.
func row(b *bytes.Buffer, name, format string, args ...any) {
	fmt.Fprintf(b, "%-13s %s\n", measure.Printable(name), measure.Printable(fmt.Sprintf(format, args...)))
}

func (r *Result) writeConnections(b *bytes.Buffer) {
	row(b, "connections", "%d of %d open, %.0f a second", r.Open, r.Conns-r.Gone, r.ConnectRate)
	if r.Gone > 0 {
		row(b, "  gone", "%-8d users that were to leave, and did", r.Gone)
	}
	if n := r.count(measure.Resumed); n > 0 {
		row(b, "  resumed", "%-8d TLS handshakes that a session ticket shortened", n)
	}
	if back := r.Returns; back != nil {
		row(b, "  returned", "%-8d connections opened again, after %d tries that failed", back.Count, back.Failed)
	}
	for _, m := range meanings {
		if n := r.count(m.counter); n > 0 {
			row(b, "  "+m.counter.String(), "%-8d %s", n, m.text)
		}
	}
	for _, e := range r.Errors {
		fmt.Fprintf(b, "  %d × %s\n", e.Count, measure.Printable(e.String()))
	}
}

// broadcastsShown is how many broadcasts have rows of their own.
const broadcastsShown = 20

func (r *Result) writeMessages(b *bytes.Buffer) {
	for i, one := range r.Broadcasts[:min(len(r.Broadcasts), broadcastsShown)] {
		row(b, fmt.Sprintf("broadcast %d", i+1), "%d of %d received, %.0f a second", one.Received, one.Expected, one.Deliveries)
	}
	if more := len(r.Broadcasts) - broadcastsShown; more > 0 {
		row(b, "  and", "%d more", more)
	}
	if n := r.count(measure.DeafReceived) + r.count(measure.DeafEnded); n > 0 {
		row(b, "deaf", "%d messages received in the end, %d not, %d connections ended",
			r.count(measure.DeafReceived), r.count(measure.DeafMissed), r.count(measure.DeafEnded))
	}
	if e := r.Echo; e != nil {
		row(b, "echo", "%d messages, %.0f a second", e.Messages, e.Rate)
		if f := e.Flood; f != nil {
			row(b, "flood", "%d connections: %d messages sent, %d answered, %d abandoned", f.Conns, f.Sent, f.Answered, f.Abandoned)
		}
	}
	if n := r.count(measure.Pinged); n > 0 {
		row(b, "pings", "%d sent, %d answered", n, r.count(measure.Ponged))
	}
	if len(r.Broadcasts) > 0 || r.Echo != nil || r.Lost > 0 {
		row(b, "lost", "%d messages and answers", r.Lost)
	}
}

// timed is a row of the table of times.
type timed struct {
	Name string
	Latency
}

// times are what was timed, and what should have been.
func (r *Result) times() []timed {
	rows := []timed{{"handshake", r.Handshake}}
	add := func(name string, l Latency, wanted bool) {
		if wanted {
			rows = append(rows, timed{name, l})
		}
	}
	add("  of it TLS", r.TLS, r.TLS.Count > 0)
	if r.Returns != nil {
		add("away", r.Returns.Away, true)
	}
	for i, one := range r.Broadcasts[:min(len(r.Broadcasts), broadcastsShown)] {
		add(fmt.Sprintf("broadcast %d", i+1), one.Latency, true)
	}
	add("broadcasts", LatencyOf(r.Histograms[measure.Broadcast]), len(r.Broadcasts) > 1)
	if p := r.Probe; p != nil {
		add("ping, idle", p.Idle, true)
		add("ping, busy", p.Busy, true)
	}
	if e := r.Echo; e != nil {
		add("echo", e.Latency, e.Active > 0 || e.Flood == nil)
		if e.Flood != nil {
			add("flood", e.Flood.Latency, true)
		}
	}
	add("ping", r.Pong, r.count(measure.Pinged) > 0)
	add("generator lag", r.Lag, r.Lag.Count > 0)
	return rows
}

func (r *Result) writeTimes(b *bytes.Buffer) {
	const column = "%9s"
	fmt.Fprintf(b, "\n%-13s"+strings.Repeat(column, 8)+"\n", "times in ms", "count", "first", "p50", "p90", "p95", "p99", "p99.9", "last")
	for _, t := range r.times() {
		fmt.Fprintf(b, "%-13s", t.Name)
		for _, figure := range t.Figures() {
			fmt.Fprintf(b, column, figure)
		}
		b.WriteByte('\n')
	}
}

// Figures are the columns of a table of times: the count, and milliseconds from the first to
// the last, or "–".
func (l Latency) Figures() []string {
	all := []string{strconv.FormatInt(l.Count, 10)}
	for _, v := range []float64{l.First, l.P50, l.P90, l.P95, l.P99, l.P999, l.Last} {
		if l.Count == 0 {
			all = append(all, "–")
		} else {
			all = append(all, strconv.FormatFloat(v, 'f', 2, 64))
		}
	}
	return all
}

func (r *Result) writePhases(b *bytes.Buffer) {
	if len(r.Phases) == 0 {
		return
	}
	b.WriteByte('\n')
	for _, p := range r.Phases {
		row(b, p.Name, "%.2f s, %.2f s of processor time", p.Seconds, p.CPUSeconds)
	}
}

func (r *Result) writeAgents(b *bytes.Buffer) {
	if len(r.Agents) == 0 {
		return
	}
	b.WriteByte('\n')
	for _, a := range r.Agents {
		row(b, a.Name, "%s", a)
	}
}

// String says what an agent had and how its clock went.
func (a Agent) String() string {
	if a.Lost != "" {
		return fmt.Sprintf("%d users, lost: %s", a.Users, a.Lost)
	}
	text := fmt.Sprintf("%d users; its clock was %+.1f ms off, exact to %.1f ms", a.Users, a.ClockAhead, a.ClockExactTo)
	if a.ClockDrift != nil {
		text += fmt.Sprintf(", and drifted by %+.1f ms", *a.ClockDrift)
	}
	return text
}

func (r *Result) writeJudgement(b *bytes.Buffer) {
	var lines []string
	for _, c := range r.Expected {
		lines = append(lines, c.String())
	}
	if mistake := r.mistake(); mistake != "" {
		lines = append(lines, mistake)
	}
	for _, l := range r.Limited {
		lines = append(lines, "generator-limited: "+measure.Printable(l))
	}
	if len(r.Limited) > 0 {
		lines = append(lines, "not valid: such figures measure the generator, or this machine, and not the server")
	}
	if r.Early != "" {
		lines = append(lines, "ended early: "+measure.Printable(r.Early))
	}
	if r.Interrupted {
		lines = append(lines, "interrupted")
	}
	if len(lines) > 0 {
		fmt.Fprintf(b, "\n%s\n", strings.Join(lines, "\n"))
	}
}
