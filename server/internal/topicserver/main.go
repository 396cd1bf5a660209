// Command topicserver is a server that measures its own topics, once so many clients are
// connected; `lull bench topics` needs it. The clients only read.
//
//	topicserver -conns 15000 -out figures.json
//
// It prints the same "listening on" line as `lull serve`, measures, writes the figures as
// JSON and ends.
//
//	topicserver -conns 1000000 -reactors 4 -tables
//
// With -tables there are no clients: it measures the tables alone, in which so many
// connections of so many reactors have their topics. These may be more than the machine
// has descriptors for.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"slices"
	"syscall"
	"time"

	"github.com/prometheus/procfs"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/netpoll"
	"github.com/seed-134acfd0/lull/server"
)

// figures are what topics cost.
type figures struct {
	Conns int `json:"conns"`

	Subscriptions     int     `json:"subscriptions"`
	Topics            int     `json:"topics"`
	SubscriptionBytes float64 `json:"subscription_bytes"` // of user space: 2 of each connection, over Topics
	TopicBytes        float64 `json:"topic_bytes"`        // of user space: one topic and its one subscription

	Few struct {
		Published  int     `json:"published"` // to 10 subscribers each, 1,000 a second
		P50        float64 `json:"p50_ms"`    // until the last subscriber was sent it
		P99        float64 `json:"p99_ms"`
		Waited     float64 `json:"waited"`              // seconds that threads waited for a processor, for each that they ran
		Deliveries int     `json:"deliveries"`          // without a pause
		CPU        float64 `json:"delivery_cpu_us"`     // processor time of the server for each of these
		Broadcast  float64 `json:"broadcast_cpu_us"`    // of a broadcast's delivery, in the same run
		Idle       float64 `json:"idle_cpu_us_per_sec"` // of the server without either, which is left out
	} `json:"few"`

	Burst struct {
		Subscribers int       `json:"subscribers"`
		Topic       []float64 `json:"topic_per_second"` // deliveries, of each round
		Broadcast   []float64 `json:"broadcast_per_second"`
	} `json:"burst"`

	Churn struct {
		PerSecond float64 `json:"per_second"`      // subscribed and unsubscribed
		Turn      float64 `json:"longest_turn_ms"` // with the time in which its thread had no processor
		Waited    float64 `json:"waited"`          // seconds that threads waited for a processor, for each that they ran
	} `json:"churn"`
}

func main() {
	var c config
	flag.StringVar(&c.listen, "listen", "127.0.0.1:0", "address and port")
	flag.IntVar(&c.conns, "conns", 15_000, "connections to wait for")
	flag.IntVar(&c.reactors, "reactors", 0, "number of reactors; 0 is one for each processor, or as many as the connections need")
	flag.DurationVar(&c.during, "for", 10*time.Second, "how long to publish to few subscribers, and to subscribe and unsubscribe")
	flag.IntVar(&c.rounds, "rounds", 15, "number of bursts")
	alone := flag.Bool("tables", false, "measure the tables alone, without clients")
	out := flag.String("out", "", "file for the figures; by default the standard output, behind the address")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	measure := func() (any, error) { return run(ctx, c, os.Stdout) }
	if *alone {
		measure = func() (any, error) { return tables(c.reactors, c.conns) }
	}
	got, err := measure()
	if err == nil {
		err = write(*out, got)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "topicserver:", err)
		os.Exit(1)
	}
}

// config is what the flags say.
type config struct {
	listen                  string
	conns, reactors, rounds int
	during                  time.Duration
}

// write writes the figures to a file, or to the standard output without a path.
func write(path string, f any) error {
	text, err := json.Marshal(f)
	if err != nil {
		return err
	}
	if path == "" {
		_, err = fmt.Println(string(text))
		return err
	}
	return os.WriteFile(path, text, 0o644)
}

// run serves until everything is measured.
func run(ctx context.Context, c config, out io.Writer) (figures, error) {
	s, err := server.Listen([]string{c.listen}, server.Handler{}, server.Options{
		Reactors: c.reactors, MaxConns: c.conns, Tables: netpoll.Private, IdleTimeout: -1, Grace: 100 * time.Millisecond, MaxTopics: max(1<<20, c.conns+100),
		Log: slog.New(slog.NewTextHandler(os.Stderr, nil)),
	})
	if err != nil {
		return figures{}, err
	}
	fmt.Fprintf(out, "listening on %s (topics)\n", s.Addrs()[0])
	serving, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- s.Run(serving) }()
	defer func() { stop(); <-ended }()
	m := &measurement{config: c, ctx: ctx, s: s}
	err = m.all()
	return m.figures, err
}

type measurement struct {
	figures
	config
	ctx  context.Context
	s    *server.Server
	open []server.Conn
}

const (
	few      = 10     // subscribers of the topic that few have
	burst    = 20     // publications
	crowd    = 15_000 // subscribers of the topic that many have
	perTopic = 20     // subscriptions of each topic, when their memory is measured
	each     = 2      // of these, subscriptions of a connection
)

func (m *measurement) all() error {
	m.figures.Conns = m.conns
	if err := m.until("all are connected", func() bool { return m.s.Stats().Opened >= uint64(m.conns) }); err != nil {
		return err
	}
	m.open = slices.Collect(m.s.Conns())
	if len(m.open) != m.conns {
		return fmt.Errorf("%d of %d connections are open", len(m.open), m.conns)
	}
	for _, measure := range []func() error{m.memory, m.few, m.bursts, m.churn} {
		if err := measure(); err != nil {
			return err
		}
	}
	return nil
}

// until waits for what will be so soon.
func (m *measurement) until(what string, is func() bool) error {
	for deadline := time.Now().Add(5 * time.Minute); !is(); time.Sleep(time.Millisecond) {
		if m.ctx.Err() != nil {
			return m.ctx.Err()
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("not so after 5 minutes: %s", what)
		}
	}
	return nil
}

// subscribe has connections subscribe, or unsubscribe, and waits until they have.
func (m *measurement) subscribe(n int, topic func(i int) (server.Conn, string), on bool) error {
	want := m.s.Stats().Subscriptions
	for i := range n {
		c, name := topic(i)
		do := c.Subscribe
		if !on {
			do = c.Unsubscribe
		}
		if err := accepted(func() error { return do(name) }); err != nil {
			return err
		}
	}
	if on {
		want += n
	} else {
		want -= n
	}
	return m.until(fmt.Sprint(want, " subscriptions"), func() bool { return m.s.Stats().Subscriptions == want })
}

// accepted asks for something until there is room for it, and returns any other error.
func accepted(ask func() error) error {
	for {
		if err := ask(); !errors.Is(err, server.ErrBackpressure) {
			return err
		}
		time.Sleep(100 * time.Microsecond)
	}
}

// memory measures what subscriptions and topics take.
func (m *measurement) memory() error {
	m.Subscriptions, m.Topics = each*m.conns, each*m.conns/perTopic
	subscriptions := func(i int) (server.Conn, string) {
		return m.open[i/each], fmt.Sprintf("room:%07d", i%m.Topics)
	}
	own := func(i int) (server.Conn, string) { return m.open[i], fmt.Sprintf("user:%07d", i) }
	var err error
	if m.SubscriptionBytes, err = m.grown(m.Subscriptions, subscriptions); err != nil {
		return err
	}
	m.TopicBytes, err = m.grown(m.conns, own)
	return err
}

// grown is by how many bytes each of n subscriptions lets the process grow.
func (m *measurement) grown(n int, topic func(i int) (server.Conn, string)) (float64, error) {
	before, err := anonymous()
	if err != nil {
		return 0, err
	}
	if err := m.subscribe(n, topic, true); err != nil {
		return 0, err
	}
	after, err := anonymous()
	if err != nil {
		return 0, err
	}
	return (after - before) / float64(n), m.subscribe(n, topic, false)
}

// anonymous is how much memory the process has that is backed by no file, in bytes,
// without garbage.
func anonymous() (float64, error) {
	debug.FreeOSMemory()
	self, err := procfs.Self()
	if err != nil {
		return 0, err
	}
	rollup, err := self.ProcSMapsRollup()
	return float64(rollup.Anonymous), err
}

// cpu is the processor time that the process has used.
func cpu() time.Duration {
	var used syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &used) // fails only for bad arguments
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

// scheduling is how long the process's threads have run, and how long they could have run
// and had no processor.
type scheduling struct{ ran, waited uint64 } // nanoseconds

func schedule() (s scheduling, err error) {
	threads, err := procfs.AllThreads(os.Getpid())
	if err != nil {
		return s, err
	}
	for _, t := range threads {
		if stat, err := t.Schedstat(); err == nil { // otherwise it has ended
			s.ran += stat.RunningNanoseconds
			s.waited += stat.WaitingNanoseconds
		}
	}
	return s, nil
}

// since is how many seconds threads have waited for a processor, for each that they have
// run, since then.
func (s scheduling) since() (float64, error) {
	now, err := schedule()
	return float64(now.waited-s.waited) / float64(now.ran-s.ran), err
}

// few measures publications to few subscribers among all connections, beside broadcasts.
func (m *measurement) few() error {
	const topics = 50
	n := min(topics, m.conns/few)
	member := func(i int) (server.Conn, string) {
		return m.open[i*(m.conns/(n*few))], fmt.Sprint("few:", i%n)
	}
	if err := m.subscribe(n*few, member, true); err != nil {
		return err
	}
	data := slices.Repeat([]byte("x"), 100)
	idle, quiet := cpu(), time.Now()
	time.Sleep(m.during / 5)
	idling := (cpu() - idle).Seconds() / time.Since(quiet).Seconds()
	m.Few.Idle = idling * 1e6

	// At a rate that leaves everybody asleep in between: what is felt.
	published := 0
	took := make(chan time.Duration, 64)
	publish := func() error {
		published++
		at := time.Now()
		return m.s.PublishAs(server.Kind{}, fmt.Sprint("few:", published%n), frame.Binary, data, func(r server.Receipt) {
			took <- r.Last.Sub(at)
		})
	}
	before, err := schedule()
	if err != nil {
		return err
	}
	var latencies []time.Duration
	next := time.NewTicker(time.Millisecond)
	defer next.Stop()
	for began := time.Now(); time.Since(began) < m.during; {
		<-next.C
		if err := publish(); err != nil {
			return err
		}
		latencies = append(latencies, <-took)
	}
	if m.Few.Waited, err = before.since(); err != nil {
		return err
	}
	slices.Sort(latencies)
	m.Few.P50, m.Few.P99 = ms(latencies[len(latencies)/2]), ms(latencies[len(latencies)*99/100])
	m.Few.Published = published

	// Without a pause, as a broadcast goes on without one: what it costs. Each topic has
	// one publication on its way, so that none travel together.
	published = 0
	began, used := time.Now(), cpu()
	for time.Since(began) < m.during || published < n {
		if published >= n {
			<-took
		}
		if err := publish(); err != nil {
			return err
		}
	}
	for range n {
		<-took
	}
	used = cpu() - used
	m.Few.Deliveries = published * few
	m.Few.CPU = (used.Seconds() - idling*time.Since(began).Seconds()) * 1e6 / float64(m.Few.Deliveries)

	broadcasts := max(2, 300_000/m.conns)
	began, used = time.Now(), cpu()
	for range broadcasts {
		if _, err := m.sent(func(receipt func(server.Receipt)) error {
			return m.s.BroadcastAs(server.Kind{}, frame.Binary, data, receipt)
		}, 1); err != nil {
			return err
		}
	}
	used = cpu() - used
	m.Few.Broadcast = (used.Seconds() - idling*time.Since(began).Seconds()) * 1e6 / float64(broadcasts*m.conns)
	return m.subscribe(n*few, member, false)
}

func ms(d time.Duration) float64 { return d.Seconds() * 1000 }

// sent publishes n messages and waits until all have been sent.
func (m *measurement) sent(publish func(receipt func(server.Receipt)) error, n int) (deliveries int, err error) {
	receipts := make(chan server.Receipt, n)
	for range n {
		if err := accepted(func() error { return publish(func(r server.Receipt) { receipts <- r }) }); err != nil {
			return 0, err
		}
	}
	for range n {
		r := <-receipts
		deliveries += r.Sent + r.Queued
		if r.Dropped+r.Closed > 0 {
			return 0, fmt.Errorf("a publication was not sent to everybody: %+v", r)
		}
	}
	return deliveries, nil
}

// bursts measures bursts to one topic of many, and broadcasts of the same connections if
// there are no others.
func (m *measurement) bursts() error {
	m.Burst.Subscribers = min(crowd, m.conns)
	member := func(i int) (server.Conn, string) { return m.open[i], "crowd" }
	if err := m.subscribe(m.Burst.Subscribers, member, true); err != nil {
		return err
	}
	data := slices.Repeat([]byte("x"), 100)
	rate := func(publish func(receipt func(server.Receipt)) error) (float64, error) {
		time.Sleep(200 * time.Millisecond) // until the clients have read what came before
		began := time.Now()
		n, err := m.sent(publish, burst)
		return float64(n) / time.Since(began).Seconds(), err
	}
	for range m.rounds {
		topic, err := rate(func(receipt func(server.Receipt)) error {
			return m.s.PublishAs(server.Kind{}, "crowd", frame.Binary, data, receipt)
		})
		if err != nil {
			return err
		}
		m.Burst.Topic = append(m.Burst.Topic, topic)
		if m.conns > crowd {
			continue
		}
		all, err := rate(func(receipt func(server.Receipt)) error {
			return m.s.BroadcastAs(server.Kind{}, frame.Binary, data, receipt)
		})
		if err != nil {
			return err
		}
		m.Burst.Broadcast = append(m.Burst.Broadcast, all)
	}
	return m.subscribe(m.Burst.Subscribers, member, false)
}

// churn subscribes and unsubscribes 100,000 times a second, and looks how long a turn of
// the loop takes meanwhile.
func (m *measurement) churn() error {
	const perSecond, batch = 100_000, 100
	before := m.s.Stats().TurnTime
	scheduled, err := schedule()
	if err != nil {
		return err
	}
	began, done := time.Now(), 0
	for time.Since(began) < m.during {
		for range batch {
			c, name := m.open[done%m.conns], fmt.Sprint("churn:", done%50_000)
			for _, do := range []func(string) error{c.Subscribe, c.Unsubscribe} {
				if err := accepted(func() error { return do(name) }); err != nil {
					return err
				}
			}
			done++
		}
		time.Sleep(time.Until(began.Add(time.Duration(done) * time.Second / perSecond)))
	}
	m.Churn.PerSecond = float64(done) / time.Since(began).Seconds()
	if m.Churn.Waited, err = scheduled.since(); err != nil {
		return err
	}
	after := m.s.Stats().TurnTime
	for i := range after.Buckets {
		if after.Buckets[i] > before.Buckets[i] {
			m.Churn.Turn = float64(uint64(1)<<i) / 1000 // the bucket's upper bound, in microseconds
		}
	}
	return m.until("all have unsubscribed", func() bool { return m.s.Stats().Subscriptions == 0 })
}
