package result

import "github.com/seed-134acfd0/lull/loadgen/measure"

// Point is what happened in a part of the run, by default a second. Counts are since
// the point before. Times in which nothing was measured are nil.
type Point struct {
	Seconds  float64 `json:"s"`    // since the run began, at the part's end
	Open     int     `json:"open"` // then
	Connects int     `json:"connects"`
	In       int     `json:"messages_in"`
	Out      int     `json:"messages_out"`
	Errors   int     `json:"errors"` // connections that did not open, or ended without having been told to

	HandshakeP50 *float64 `json:"handshake_p50_ms"`
	HandshakeP99 *float64 `json:"handshake_p99_ms"`
	AnswerP50    *float64 `json:"answer_p50_ms"` // of echoes, floods' answers and broadcasts
	AnswerP99    *float64 `json:"answer_p99_ms"`
	LagP99       *float64 `json:"lag_p99_ms"` // the generator's own part
	CPU          float64  `json:"cpu"`        // the generator's part of all processors, 0 to 1
	Busy         float64  `json:"busy"`       // all processes' part, 0 to 1
}

// History is a bounded list of points.
type History = measure.History[Point]

// Join makes one point of neighbours. Of quantiles the greater is kept: the
// true one of both together is not above it.
func (a Point) Join(b Point) Point {
	return Point{
		Seconds: b.Seconds, Open: b.Open,
		Connects: a.Connects + b.Connects, In: a.In + b.In, Out: a.Out + b.Out, Errors: a.Errors + b.Errors,
		HandshakeP50: greater(a.HandshakeP50, b.HandshakeP50), HandshakeP99: greater(a.HandshakeP99, b.HandshakeP99),
		AnswerP50: greater(a.AnswerP50, b.AnswerP50), AnswerP99: greater(a.AnswerP99, b.AnswerP99),
		LagP99: greater(a.LagP99, b.LagP99), CPU: (a.CPU + b.CPU) / 2, Busy: (a.Busy + b.Busy) / 2,
	}
}

func greater(a, b *float64) *float64 {
	if a == nil || b != nil && *b > *a {
		return b
	}
	return a
}
