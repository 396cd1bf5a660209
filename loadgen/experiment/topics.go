package experiment

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"github.com/seed-134acfd0/lull/loadgen"
	"github.com/seed-134acfd0/lull/loadgen/result"
	"github.com/seed-134acfd0/lull/tuning"
)

// TopicsConfig says how to measure topics.
type TopicsConfig struct {
	Server string // the topicserver program
	Conns  []int
	Say    func(format string, args ...any)
}

// Topics is what topics cost. The server measures itself (server/internal/topicserver); the
// generator's users only read.
type Topics struct {
	Tables []TopicTables `json:"tables"`
	Among  []TopicsAmong `json:"among"`
}

// TopicTables is what the tables alone take, without sockets, so that there may be as few
// reactors as a machine with more descriptors needs.
type TopicTables struct {
	Conns             int     `json:"conns"`
	Reactors          int     `json:"reactors"`
	Subscriptions     int     `json:"subscriptions"`
	Topics            int     `json:"topics"`
	SubscriptionBytes float64 `json:"subscription_bytes"`
}

// TopicsAmong is what topics cost among so many connections.
type TopicsAmong struct {
	Conns             int     `json:"conns"`
	Subscriptions     int     `json:"subscriptions"`
	Topics            int     `json:"topics"`
	SubscriptionBytes float64 `json:"subscription_bytes"` // of user space, of each of Subscriptions over Topics
	TopicBytes        float64 `json:"topic_bytes"`        // of user space, of a topic with one subscriber, of Conns of them

	Few struct {
		Published int     `json:"published"` // to 10 subscribers each
		P50       float64 `json:"p50_ms"`    // until the last was sent it
		P99       float64 `json:"p99_ms"`
		Waited    float64 `json:"waited"`          // seconds that the server's threads waited for a processor, for each that they ran
		CPU       float64 `json:"delivery_cpu_us"` // of the server
		Broadcast float64 `json:"broadcast_cpu_us"`
	} `json:"few"`

	Burst struct {
		Subscribers int       `json:"subscribers"`
		Topic       []float64 `json:"topic_per_second"` // deliveries of bursts of 20, of each round
		Broadcast   []float64 `json:"broadcast_per_second"`
	} `json:"burst"`

	Churn struct {
		PerSecond float64 `json:"per_second"`      // subscribed, and unsubscribed
		Turn      float64 `json:"longest_turn_ms"` // with the time in which its thread had no processor
		Waited    float64 `json:"waited"`          // as that of Few
	} `json:"churn"`
}

// What the tables are measured with: as many reactors as small and large machines have
// processors, and as many as a million connections need with 20,000 descriptors in each table.
const tablesConns = 1_000_000

var tablesReactors = []int{2, 4, 16, 51}

// MeasureTopics measures the tables, and topics with each number of connections. On an
// error it returns what there is.
func MeasureTopics(ctx context.Context, config TopicsConfig) (measured Topics, err error) {
	for _, reactors := range tablesReactors {
		config.Say("the tables of %d reactors", reactors)
		tables, err := measureTables(ctx, config.Server, reactors)
		if err != nil {
			return measured, err
		}
		measured.Tables = append(measured.Tables, tables)
	}
	most := 0
	for _, n := range config.Conns {
		most = max(most, n)
	}
	machine, err := tuning.Read("/")
	if err != nil {
		return measured, err
	}
	raised := raiseLimits(machine, tuning.Demand{Conns: most, Server: true, Generator: true, Private: true, Targets: 1, Fanout: 1}, config.Say)
	defer func() { err = errors.Join(err, raised.Restore()) }()
	for _, conns := range config.Conns {
		config.Say("topics among %d connections", conns)
		row, err := measureTopics(ctx, config.Server, conns)
		if err != nil {
			return measured, err
		}
		measured.Among = append(measured.Among, row)
	}
	return measured, nil
}

func measureTables(ctx context.Context, program string, reactors int) (tables TopicTables, err error) {
	var stderr tail
	cmd := exec.CommandContext(ctx, program, "-tables", "-conns", strconv.Itoa(tablesConns), "-reactors", strconv.Itoa(reactors))
	cmd.Stderr = &stderr
	text, err := cmd.Output()
	if err == nil {
		err = json.Unmarshal(text, &tables)
	}
	if err != nil {
		return tables, fmt.Errorf("experiment: %s: %w\n%s", program, err, stderr.String())
	}
	return tables, nil
}

func measureTopics(ctx context.Context, program string, conns int) (row TopicsAmong, err error) {
	dir, err := os.MkdirTemp("", "lull-topics-")
	if err != nil {
		return row, fmt.Errorf("experiment: %w", err)
	}
	defer os.RemoveAll(dir)
	figures := filepath.Join(dir, "figures.json")
	server, err := start(ctx, program, "-conns", strconv.Itoa(conns), "-out", figures)
	if err != nil {
		return row, err
	}
	loading, stop := context.WithCancel(ctx)
	loaded := make(chan error, 1)
	go func() {
		_, err := loadgen.Run(loading, loadgen.Config{URLs: []string{"ws://" + server.addr + "/"}, Conns: conns, Hold: 24 * time.Hour})
		loaded <- err
	}()
	select {
	case <-server.exited:
		err = server.end
	case err = <-loaded:
		server.kill()
		stop()
		return row, fmt.Errorf("experiment: topics: the load has ended: %w", err)
	case <-ctx.Done():
		server.kill()
		err = ctx.Err()
	}
	stop()
	<-loaded // the connections are lost, as they must be
	if err != nil {
		return row, fmt.Errorf("experiment: %s: %w\n%s", program, err, server.stderr.String())
	}
	text, err := os.ReadFile(figures)
	if err == nil {
		err = json.Unmarshal(text, &row)
	}
	if err != nil {
		return row, fmt.Errorf("experiment: %s: %w", program, err)
	}
	return row, nil
}

// WriteText prints what was measured.
func (t Topics) WriteText(w io.Writer) error {
	return errors.Join(
		writeColumns(w, t.Tables, []line[TopicTables]{
			{"reactors, without sockets", func(r *TopicTables) string { return strconv.Itoa(r.Reactors) }},
			{"connections", func(r *TopicTables) string { return strconv.Itoa(r.Conns) }},
			{"tables' memory of a subscription", func(r *TopicTables) string {
				return fmt.Sprintf("%.1f B (%d over %d topics)", r.SubscriptionBytes, r.Subscriptions, r.Topics)
			}},
		}),
		writeColumns(w, t.Among, []line[TopicsAmong]{
			{"connections", func(r *TopicsAmong) string { return strconv.Itoa(r.Conns) }},
			{"user space of a subscription", func(r *TopicsAmong) string {
				return fmt.Sprintf("%.1f B (%d over %d topics)", r.SubscriptionBytes, r.Subscriptions, r.Topics)
			}},
			{"user space of a topic with one subscriber", func(r *TopicsAmong) string { return fmt.Sprintf("%.1f B (%d of them)", r.TopicBytes, r.Conns) }},
			{"publication to 10, until the last was sent it", func(r *TopicsAmong) string {
				return fmt.Sprintf("p50 %.2f ms, p99 %.2f ms (%d of them)", r.Few.P50, r.Few.P99, r.Few.Published)
			}},
			{"meanwhile, waiting for a processor", func(r *TopicsAmong) string { return waited(r.Few.Waited) }},
			{"server's processor time for each of the 10", func(r *TopicsAmong) string {
				return fmt.Sprintf("%.2f µs; of a broadcast %.2f µs; ratio %.2f", r.Few.CPU, r.Few.Broadcast, r.Few.CPU/r.Few.Broadcast)
			}},
			{"burst of 20 to one topic", func(r *TopicsAmong) string {
				text := fmt.Sprintf("%.0f k deliveries/s to %d", result.Median(r.Burst.Topic)/1000, r.Burst.Subscribers)
				if len(r.Burst.Broadcast) > 0 {
					text += fmt.Sprintf("; broadcast %.0f k/s", result.Median(r.Burst.Broadcast)/1000)
				}
				return text
			}},
			{"subscribing and unsubscribing", func(r *TopicsAmong) string {
				return fmt.Sprintf("%.0f k/s each, longest turn below %.1f ms", r.Churn.PerSecond/1000, r.Churn.Turn)
			}},
			{"meanwhile, waiting for a processor", func(r *TopicsAmong) string { return waited(r.Churn.Waited) }},
		}))
}

func waited(seconds float64) string {
	return fmt.Sprintf("threads %.2f s for each second that they ran", seconds)
}
