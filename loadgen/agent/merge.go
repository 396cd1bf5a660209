package agent

import (
	"slices"
	"time"

	hdr "github.com/HdrHistogram/hdrhistogram-go"

	"github.com/seed-134acfd0/lull/loadgen/measure"
	"github.com/seed-134acfd0/lull/loadgen/plan"
	"github.com/seed-134acfd0/lull/loadgen/result"
)

// about is what the result of all begins with.
func (r *run) about() result.Run {
	about := result.RunOf(r.plan)
	about.Begun = r.begin
	for _, m := range r.members {
		about.Processors += m.Cores
	}
	return about
}

// merge adds to the result that was built from snapshots, which has the phases and the time
// series, what the members' own results have. Of a member that was lost, what it has
// reported counts, and what it should still have received is lost.
func (r *run) merge(all *result.Result) *result.Result {
	all.Limited = nil // what it says of a machine says a member better
	m := merger{all: all, run: r, broadcasts: make([]burst, len(r.plan.Phases))}
	for _, member := range r.members {
		m.agent(member)
		if member.result != nil {
			m.result(member)
		} else {
			m.rest(member)
		}
	}
	m.finish()
	return all
}

// index is a phase's place in the plan, or -1.
func (r *run) index(name string) int {
	return slices.IndexFunc(r.plan.Phases, func(p plan.Phase) bool { return p.Name == name })
}

// merger adds up what members have.
type merger struct {
	all        *result.Result
	run        *run
	counts     measure.Counts
	times      measure.Histograms
	errors     measure.Errors
	broadcasts []burst // one for each phase, of which those count that publish
	echo       *result.Echo
	returns    *result.Returns
	open, gone int
	lost       int
}

// burst is what was published in a phase, and what all members received of it.
type burst struct {
	result.Broadcast
	times     *hdr.Histogram
	took      time.Duration
	published int                // messages, if it is known; otherwise 0
	listened  []result.Broadcast // by members that did not publish
}

// agent names a member in the result.
func (m *merger) agent(member *member) {
	agent := result.Agent{
		Name: member.label, Users: member.share.Users, Processors: member.Cores,
		ClockAhead: milliseconds(member.clock.Offset), ClockExactTo: milliseconds(member.clock.Trip / 2), Lost: member.lost,
	}
	if member.drift != nil {
		drift := milliseconds(*member.drift)
		agent.ClockDrift = &drift
	}
	m.all.Agents = append(m.all.Agents, agent)
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// result adds a member's result.
func (m *merger) result(member *member) {
	r, all := member.result, m.all
	counts := countsOf(r.Counts)
	m.counts.Add(&counts)
	m.times.Merge(&r.Histograms)
	m.errors.Merge(r.Errors)
	m.open += r.Open
	m.gone += r.Gone
	m.lost += r.Lost
	all.Workers += r.Workers
	all.Sources += r.Sources
	all.Size = max(all.Size, r.Size)
	all.Interrupted = all.Interrupted || r.Interrupted
	if r.Early != "" && all.Early == "" {
		all.Early = member.label + ": " + printableText(r.Early)
	}
	for _, l := range r.Limited[:min(len(r.Limited), limitedMax)] {
		all.Limited = append(all.Limited, member.label+": "+printableText(l))
	}
	if r.Probe != nil && all.Probe == nil {
		all.Probe = r.Probe // one member alone has it
	}
	m.addBroadcasts(member.ID, r)
	m.addEcho(r.Echo)
	if r.Returns != nil {
		if m.returns == nil {
			m.returns = &result.Returns{}
		}
		m.returns.Count += r.Returns.Count
		m.returns.Failed += r.Returns.Failed
	}
}

// addBroadcasts adds a member's broadcasts. One that listens has one in each phase that
// publishes; the one that publishes may have several.
func (m *merger) addBroadcasts(id string, r *result.Result) {
	for j := range r.Broadcasts {
		one := &r.Broadcasts[j]
		i := m.run.index(one.Phase)
		if i < 0 {
			continue
		}
		b := &m.broadcasts[i]
		b.Phase = one.Phase
		b.add(one)
		if id != m.run.publishers[i] {
			b.listened = append(b.listened, *one)
		}
	}
	for j := range r.Phases {
		if i := m.run.index(r.Phases[j].Name); i >= 0 && id == m.run.publishers[i] {
			m.broadcasts[i].published = int(r.Phases[j].Counts[measure.Sent])
		}
	}
}

// correct takes back what those who listened expected and nobody published, because the
// phase ended before. They expect all messages of the phase.
func (b *burst) correct() (notLost int) {
	for _, l := range b.listened {
		b.Messages = max(b.Messages, l.Messages)
	}
	if b.published == 0 {
		return 0
	}
	b.Messages = b.published
	for _, l := range b.listened {
		if l.Messages <= b.published {
			continue
		}
		expected := l.Expected / l.Messages * b.published
		b.Expected -= l.Expected - expected
		notLost += max(0, l.Expected-l.Received) - max(0, expected-l.Received)
	}
	return notLost
}

// add adds what one member received.
func (b *burst) add(one *result.Broadcast) {
	b.Expected += one.Expected
	b.Received += one.Received
	if one.Deliveries > 0 {
		b.took = max(b.took, time.Duration(float64(one.Received)/one.Deliveries*float64(time.Second)))
	}
	if b.times == nil {
		b.times = measure.NewHistogram()
	}
	for _, bar := range one.Histogram {
		_ = b.times.RecordValues(int64(bar.UpTo*1000+0.5), bar.Count) // it is from such a histogram
	}
	if one.Lag.P99 > b.Lag.P99 {
		b.Lag = one.Lag // the worst member's
	}
}

func (m *merger) addEcho(one *result.Echo) {
	if one == nil {
		return
	}
	if m.echo == nil {
		m.echo = &result.Echo{}
	}
	m.echo.Active += one.Active
	m.echo.Messages += one.Messages
	m.echo.Rate += one.Rate
	if one.Flood == nil {
		return
	}
	if m.echo.Flood == nil {
		m.echo.Flood = &result.Flood{}
	}
	m.echo.Flood.Conns += one.Flood.Conns
}

// rest adds what is known of a member without a result.
func (m *merger) rest(member *member) {
	counts := member.counts()
	m.counts.Add(&counts)
	m.times.Merge(&member.all)
	m.lost += unanswered(&counts) + member.missing()
	if member.latest != nil {
		m.errors.Merge(member.latest.Errors)
		m.all.Limited = append(m.all.Limited, member.latest.Limited...)
	}
	m.errors.Add(measure.Error{Counter: measure.Vanished.String(), Text: member.label + " was lost: " + member.lost}, int(counts[measure.Vanished]))
	m.all.Limited = append(m.all.Limited, member.obituary())
}

// unanswered is how many messages have no answer.
func unanswered(c *measure.Counts) int {
	return max(0, int(c.Sum(measure.Asked, measure.Flooded))-int(c.Sum(measure.Echoes, measure.Answered, measure.Abandoned)))
}

// finish writes the sums into the result.
func (m *merger) finish() {
	all := m.all
	all.Counts, all.Histograms, all.Errors = m.counts.Map(), m.times, m.errors.List()
	for i := range m.broadcasts {
		m.lost -= m.broadcasts[i].correct()
	}
	all.Open, all.Gone, all.Lost = m.open, m.gone, m.lost
	all.Handshake, all.TLS = result.LatencyOf(m.times[measure.Handshake]), result.LatencyOf(m.times[measure.TLS])
	all.Pong, all.Lag = result.LatencyOf(m.times[measure.Pong]), result.LatencyOf(m.times[measure.Lag])
	all.Broadcasts = nil
	for _, b := range m.broadcasts {
		if b.times == nil {
			continue
		}
		b.Latency, b.Histogram = result.LatencyOf(b.times), result.Bars(b.times)
		if b.took > 0 {
			b.Deliveries = float64(b.Received) / b.took.Seconds()
		}
		all.Broadcasts = append(all.Broadcasts, b.Broadcast)
	}
	if all.Echo = m.echo; m.echo != nil {
		m.echo.Latency, m.echo.Lag = result.LatencyOf(m.times[measure.Echo]), all.Lag
		if f := m.echo.Flood; f != nil {
			f.Sent, f.Answered, f.Abandoned = int(m.counts[measure.Flooded]), int(m.counts[measure.Answered]), int(m.counts[measure.Abandoned])
			f.Latency = result.LatencyOf(m.times[measure.Flood])
		}
	}
	if all.Returns = m.returns; m.returns != nil {
		m.returns.Away = result.LatencyOf(m.times[measure.Away])
	}
	all.Limited = distinct(all.Limited)
	all.Valid = len(all.Limited) == 0
}

// countsOf reads counts by name.
func countsOf(names map[string]int) (c measure.Counts) {
	for i := range c {
		c[i] = uint64(max(0, names[measure.Counter(i).String()]))
	}
	return c
}

// distinct keeps the first of each.
func distinct(list []string) (once []string) {
	for _, s := range list {
		if !slices.Contains(once, s) {
			once = append(once, s)
		}
	}
	return once
}
