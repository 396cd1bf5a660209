package result

import (
	"encoding/csv"
	"fmt"
	"io"
	"math"
	"strconv"
)

// csvColumns are the time series' columns, in order. Their names are those of the JSON.
var csvColumns = []struct {
	name string
	of   func(*Point) any
}{
	{"s", func(p *Point) any { return p.Seconds }},
	{"open", func(p *Point) any { return p.Open }},
	{"connects", func(p *Point) any { return p.Connects }},
	{"messages_in", func(p *Point) any { return p.In }},
	{"messages_out", func(p *Point) any { return p.Out }},
	{"errors", func(p *Point) any { return p.Errors }},
	{"handshake_p50_ms", func(p *Point) any { return p.HandshakeP50 }},
	{"handshake_p99_ms", func(p *Point) any { return p.HandshakeP99 }},
	{"answer_p50_ms", func(p *Point) any { return p.AnswerP50 }},
	{"answer_p99_ms", func(p *Point) any { return p.AnswerP99 }},
	{"lag_p99_ms", func(p *Point) any { return p.LagP99 }},
	{"cpu", func(p *Point) any { return p.CPU }},
	{"busy", func(p *Point) any { return p.Busy }},
}

// WriteCSV writes the time series as CSV (RFC 4180): a line with the columns' names, and
// a line for each point. What was not measured is empty.
func (r *Result) WriteCSV(w io.Writer) error {
	out := csv.NewWriter(w)
	line := []string{"phase"}
	for _, c := range csvColumns {
		line = append(line, c.name)
	}
	_ = out.Write(line) // Error has its error
	for i := range r.Timeline {
		p := &r.Timeline[i]
		line = append(line[:0], r.phaseAt(p.Seconds))
		for _, c := range csvColumns {
			line = append(line, cell(c.of(p)))
		}
		_ = out.Write(line)
	}
	out.Flush()
	return out.Error()
}

// phaseAt is the name of the phase at a time since the run began.
func (r *Result) phaseAt(seconds float64) (name string) {
	for _, p := range r.Phases {
		if p.Begun.Sub(r.Begun).Seconds() < seconds {
			name = p.Name
		}
	}
	return name
}

func cell(v any) string {
	switch v := v.(type) {
	case float64:
		return strconv.FormatFloat(math.Round(v*1000)/1000, 'f', -1, 64)
	case *float64:
		if v == nil {
			return ""
		}
		return cell(*v)
	}
	return fmt.Sprint(v)
}
