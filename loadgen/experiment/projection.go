package experiment

import (
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
)

// Projection is what one connection costs a server, for computing what other machines
// hold. It is computed from a [Flat].
type Projection struct {
	Conns     int     // at which the costs were measured
	Kernel    float64 // bytes of a connection's end
	User      float64 // bytes of a connection: the slope of the points
	Base      float64 // bytes of the server without connections
	Handshake float64 // µs of processor time
	Delivery  float64 // µs of processor time
}

// What the projection takes for granted.
const (
	projectedReserve = 1 << 30      // memory for everything else, bytes
	projectedUnsent  = 1097         // memory of a message of 32 bytes that waits in the kernel, bytes
	projectedWire    = 34 + 66      // bytes of its frame, and of the headers of TCP with timestamps, IP and Ethernet
	projectedPorts   = 65535 - 1023 // source ports of an address for each target
	projectedShare   = 0.7          // of what a machine of several holds, so that the others can take over when one fails
	projectedMany    = 10_000_000   // connections over several machines
)

// cloud is a machine to project to.
var cloud = struct {
	name       string
	processors float64
	memory     float64 // bytes
	network    float64 // bits a second
}{"m4.xlarge", 4, 16 << 30, 750e6}

// Project computes a projection from the most connections that were measured, with
// the large table if there is one.
func (f *Flat) Project() (p Projection, err error) {
	points := f.best()
	if len(points) < 2 {
		return p, errors.New("experiment: a projection needs measurements of at least two numbers of connections")
	}
	var conns, resident []float64
	for _, point := range points {
		conns, resident = append(conns, float64(point.Conns)), append(resident, float64(point.Median().ServerRSS))
	}
	last := points[len(points)-1]
	m := last.Median()
	p = Projection{Conns: last.Conns, Kernel: m.Kernel / 2, Handshake: m.HandshakeServer, Delivery: m.DeliveryServer}
	p.User, _ = regress(conns, resident)
	p.Base = mean(resident) - p.User*mean(conns)
	return p, nil
}

// each is the memory of a connection, in bytes.
func (p Projection) each() float64 { return p.Kernel + p.User }

// holds is how many connections a machine holds, of which each needs so many more
// bytes.
func (p Projection) holds(memory, more float64) float64 {
	return math.Floor((memory - projectedReserve - p.Base) / (p.each() + more))
}

// projected is a row: a quantity, and how it is computed.
type projected struct{ what, how, is string }

// rows computes all quantities.
func (p Projection) rows() (one, several []projected) {
	took := func(conns, micros float64) string {
		return number(conns*micros/micro/cloud.processors) + " s"
	}
	wire := func(conns float64) string { return number(conns*projectedWire*8/cloud.network) + " s" }
	n := func(v float64) string { return count(v) }
	idle, unsent := p.holds(cloud.memory, 0), p.holds(cloud.memory, projectedUnsent)
	one = []projected{
		{"memory of a connection", fmt.Sprintf("kernel %s B + user space %s B", number(p.Kernel), number(p.User)), number(p.each()) + " B"},
		{"connections, idle", fmt.Sprintf("(16 GiB − 1 GiB − %s) ÷ %s B", size(p.Base), number(p.each())), n(idle)},
		{"connections, each with a message that waits in the kernel", fmt.Sprintf("(16 GiB − 1 GiB − %s) ÷ (%s + %d B)", size(p.Base), number(p.each()), projectedUnsent), n(unsent)},
		{"to connect as many", fmt.Sprintf("%s × %s µs ÷ 4", n(unsent), number(p.Handshake)), took(unsent, p.Handshake)},
		{"a broadcast to them: processors", fmt.Sprintf("%s × %s µs ÷ 4", n(unsent), number(p.Delivery)), took(unsent, p.Delivery)},
		{"the same: network", fmt.Sprintf("%s × %d B × 8 ÷ 750 Mbit/s", n(unsent), projectedWire), wire(unsent)},
	}
	machines := math.Ceil(projectedMany / (projectedShare * unsent))
	each := math.Ceil(projectedMany / machines)
	several = []projected{
		{"machines", fmt.Sprintf("10,000,000 ÷ (0.7 × %s)", n(unsent)), n(machines)},
		{"connections on each", fmt.Sprintf("10,000,000 ÷ %s", n(machines)), n(each)},
		{"on each, when one has failed", fmt.Sprintf("10,000,000 ÷ %s, of %s that it holds", n(machines-1), n(unsent)), n(math.Ceil(projectedMany / max(1, machines-1)))},
		{"to connect all", fmt.Sprintf("%s × %s µs ÷ 4, on all at once", n(each), number(p.Handshake)), took(each, p.Handshake)},
		{"a broadcast to all: processors", fmt.Sprintf("%s × %s µs ÷ 4, on all at once", n(each), number(p.Delivery)), took(each, p.Delivery)},
		{"the same: network", fmt.Sprintf("%s × %d B × 8 ÷ 750 Mbit/s", n(each), projectedWire), wire(each)},
		{"source addresses of all clients together, at least", fmt.Sprintf("%s ÷ %s ports for each target", n(each), n(projectedPorts)), n(math.Ceil(each / projectedPorts))},
	}
	return one, several
}

// WriteProjection prints the projection to an m4.xlarge, and to 10,000,000
// connections over several, as Markdown tables with their arithmetic.
func (f *Flat) WriteProjection(w io.Writer) error {
	p, err := f.Project()
	if err != nil {
		return err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "Costs of a connection measured at %s connections: a handshake %s µs, a delivery %s µs of the server's processor time.\n",
		count(float64(p.Conns)), number(p.Handshake), number(p.Delivery))
	one, several := p.rows()
	for _, part := range []struct {
		title string
		rows  []projected
	}{{"one " + cloud.name, one}, {"10,000,000 connections over several of them", several}} {
		fmt.Fprintf(&b, "\n| %s | how it is computed | |\n|---|---|--:|\n", part.title)
		for _, r := range part.rows {
			fmt.Fprintf(&b, "| %s | %s | %s |\n", r.what, r.how, r.is)
		}
	}
	_, err = io.WriteString(w, b.String())
	return err
}
