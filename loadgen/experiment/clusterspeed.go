package experiment

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/seed-134acfd0/lull/loadgen"
	"github.com/seed-134acfd0/lull/loadgen/internal/chart"
	"github.com/seed-134acfd0/lull/loadgen/measure"
	"github.com/seed-134acfd0/lull/loadgen/result"
)

// ClusterSpeed is what publications cost on so many nodes, NATS and clients on one machine.
type ClusterSpeed struct {
	Nodes int `json:"nodes"`
	One   struct {
		Deliveries float64 `json:"deliveries_per_second"` // bursts, medians
		Cost       float64 `json:"nodes_cpu_us_per_delivery"`
	} `json:"one_room"`
	Many struct {
		Deliveries float64 `json:"deliveries_per_second"`
		Cost       float64 `json:"nodes_cpu_us_per_delivery"`
		NATS       float64 `json:"nats_cpu_us_per_publication"`
		In         float64 `json:"nats_in_bytes_per_publication"` // payloads, as NATS counts them, with hellos and tails
		Out        float64 `json:"nats_out_bytes_per_publication"`
		WireIn     float64 `json:"wire_in_bytes_per_publication"` // to and from NATS, with all headers and acknowledgements
		WireOut    float64 `json:"wire_out_bytes_per_publication"`
	} `json:"many_rooms"`
}

// clusterNodesMost is the most nodes that are measured.
const clusterNodesMost = 4

// The loads. The number of rooms has no divisor in common with numbers of nodes, so that each
// room has members on all nodes.
const (
	speedRooms  = 499
	speedConns  = 12 * speedRooms // on all nodes together
	speedBurst  = 20              // messages of a burst, to each room
	speedBursts = 10              // to the one room of all
	speedEach   = 5               // to each of many rooms
	speedSize   = 100             // bytes
)

// clusterSpending is what nodes and NATS have used.
type clusterSpending struct {
	nodes, nats float64 // seconds of processor time
	counts      natsFigures
	from, to    uint64 // bytes from NATS's machine, and to it
}

func (t *trial) spending(ctx context.Context) (s clusterSpending, err error) {
	for _, n := range t.nodes {
		s.nodes += cpu(n.cmd.Process.Pid).Seconds()
	}
	s.nats = cpu(t.nats.cmd.Process.Pid).Seconds()
	if s.from, s.to, err = t.broker.traffic(); err != nil {
		return s, err
	}
	s.counts, err = t.natsFigures(ctx)
	return s, err
}

// spent is what a load has come to, and what was used from its first message on.
type spent struct {
	deliveries   float64 // a second
	cost         float64 // µs of the nodes for each
	publications float64
	before       clusterSpending
}

// load has clients of all nodes publish in rooms.
func (t *trial) load(ctx context.Context, path string, config loadgen.Config) (s spent, err error) {
	for _, n := range t.nodes {
		config.URLs = append(config.URLs, n.room(path))
	}
	var failed error
	after, ended := 0.0, false
	config.Conns, config.Hold, config.Size, config.Burst = speedConns, time.Second, speedSize, speedBurst
	config.Sinks = []measure.Sink{measure.Funcs{OnPhase: func(phase string) {
		switch phase {
		case "broadcast":
			s.before, failed = t.spending(ctx)
		case "close":
			now, err := t.spending(ctx)
			failed = errors.Join(failed, err)
			after, ended = now.nodes, true
		}
	}}}
	got, err := loadgen.Run(ctx, config)
	switch {
	case err != nil || failed != nil:
		return s, errors.Join(err, failed)
	case !got.OK() || !ended:
		return s, fmt.Errorf("experiment: %d of %d connections, %d messages lost", got.Open, config.Conns, got.Lost)
	}
	o := outcome{load: got}
	s.deliveries = o.median(func(b result.Broadcast) float64 { return b.Deliveries })
	s.cost = (after - s.before.nodes) / o.deliveries() * micro
	s.publications = float64(max(1, config.Rooms) * config.Broadcasts)
	return s, nil
}

// measureSpeed measures what publications cost on the nodes of a lab.
func measureSpeed(ctx context.Context, l *lab, config ClusterConfig) (row ClusterSpeed, err error) {
	lull, err := self()
	if err != nil {
		return row, err
	}
	t, err := newTrial(ctx, l, config.Node)
	if err != nil {
		return row, err
	}
	defer t.close()
	if err := t.serveAll(ctx, lull); err != nil {
		return row, err
	}
	row.Nodes = len(t.nodes)
	one, err := t.load(ctx, "all", loadgen.Config{Broadcasts: speedBursts * speedBurst})
	if err != nil {
		return row, err
	}
	row.One.Deliveries, row.One.Cost = one.deliveries, one.cost
	many, err := t.load(ctx, "{{.Room}}", loadgen.Config{Rooms: speedRooms, Broadcasts: speedEach * speedBurst})
	if err == nil {
		err = sleep(ctx, 2*time.Second) // until the rooms have fallen silent, which nodes tell
	}
	if err != nil {
		return row, err
	}
	after, err := t.spending(ctx)
	row.Many.Deliveries, row.Many.Cost = many.deliveries, many.cost
	row.Many.NATS = (after.nats - many.before.nats) / many.publications * micro
	row.Many.In = float64(after.counts.InBytes-many.before.counts.InBytes) / many.publications
	row.Many.Out = float64(after.counts.OutBytes-many.before.counts.OutBytes) / many.publications
	row.Many.WireIn = float64(after.to-many.before.to) / many.publications
	row.Many.WireOut = float64(after.from-many.before.from) / many.publications
	return row, err
}

// writeSpeeds prints the speeds as a Markdown table.
func (c *Cluster) writeSpeeds(w io.Writer) error {
	if len(c.Speeds) == 0 {
		return nil
	}
	_, err := fmt.Fprintf(w, "\n%s connections on all nodes together, bursts of %d messages of %d bytes; processor time of all nodes together. Bytes are for each publication, in to NATS and out of it.\n\n"+
		"| nodes | one room of all: deliveries/s | processor time of a delivery | %d rooms of 12: deliveries/s | processor time of a delivery | NATS' processor time of a publication | payload in, out | on the wire in, out |\n"+
		"|--:|--:|--:|--:|--:|--:|--:|--:|\n", count(speedConns), speedBurst, speedSize, speedRooms)
	for _, s := range c.Speeds {
		_, e := fmt.Fprintf(w, "| %d | %s | %.2f µs | %s | %.2f µs | %.1f µs | %.0f, %.0f B | %.0f, %.0f B |\n", s.Nodes, count(s.One.Deliveries), s.One.Cost,
			count(s.Many.Deliveries), s.Many.Cost, s.Many.NATS, s.Many.In, s.Many.Out, s.Many.WireIn, s.Many.WireOut)
		err = errors.Join(err, e)
	}
	return err
}

// WritePlot draws speeds and bytes by the number of nodes, as SVG.
func (c *Cluster) WritePlot(w io.Writer) error {
	x := chart.Axis{Name: "nodes"}
	line := func(name string, of func(s *ClusterSpeed) float64) chart.Line {
		l := chart.Line{Name: name, Dots: true}
		for i := range c.Speeds {
			l.Add(float64(c.Speeds[i].Nodes), of(&c.Speeds[i]))
		}
		return l
	}
	for _, s := range c.Speeds {
		x.Ticks = append(x.Ticks, chart.Tick{At: float64(s.Nodes), Label: fmt.Sprint(s.Nodes)})
	}
	return chart.WritePanels(w, x,
		chart.Panel{Title: "Deliveries a second, all nodes, NATS and clients on one machine", Y: chart.Axis{Name: "deliveries/s", Format: chart.Count}, Lines: []chart.Line{
			line("one room of all", func(s *ClusterSpeed) float64 { return s.One.Deliveries }),
			line(fmt.Sprintf("%d rooms of 12", speedRooms), func(s *ClusterSpeed) float64 { return s.Many.Deliveries }),
		}},
		chart.Panel{Title: "Bytes of NATS for a publication of 100 bytes to a room with members on all nodes", Y: chart.Axis{Name: "bytes", Format: number}, Lines: []chart.Line{
			line("to NATS, payload", func(s *ClusterSpeed) float64 { return s.Many.In }),
			line("from NATS, payload", func(s *ClusterSpeed) float64 { return s.Many.Out }),
			line("from NATS, on the wire", func(s *ClusterSpeed) float64 { return s.Many.WireOut }),
		}},
		chart.Panel{Title: "Processor time", Y: chart.Axis{Name: "µs", Format: number}, Lines: []chart.Line{
			line("nodes, a delivery in one room", func(s *ClusterSpeed) float64 { return s.One.Cost }),
			line("nodes, a delivery in many rooms", func(s *ClusterSpeed) float64 { return s.Many.Cost }),
			line("NATS, a publication", func(s *ClusterSpeed) float64 { return s.Many.NATS }),
		}},
	)
}
