package result

import (
	"bytes"
	"fmt"
	"io"
	"math"
	"strconv"

	"github.com/dustin/go-humanize"
)

func (s Side) String() string {
	if n := len(s.Results); n > 1 {
		return fmt.Sprintf("%s (%d results, medians)", s.Name, n)
	}
	return s.Name
}

// Cells are a row's values, their ratio, and the verdict, as people read them.
func (r Row) Cells() []string {
	write := func(v *float64) string {
		switch {
		case v == nil:
			return "–"
		case *v >= 100 || *v == math.Trunc(*v):
			return humanize.Comma(int64(math.Round(*v)))
		}
		return strconv.FormatFloat(*v, 'g', 3, 64)
	}
	ratio := "–"
	if x := r.Ratio(); !math.IsNaN(x) {
		ratio = strconv.FormatFloat(x, 'f', 2, 64)
	}
	return []string{write(r.A), write(r.B), ratio, r.Verdict.String()}
}

// Basis says what the verdicts are founded on.
func (c *Comparison) Basis() string {
	if min(len(c.A.Results), len(c.B.Results)) >= spreadLeast {
		return "Beyond the noise is a figure that is higher, or lower, in every result of B than in every result of A."
	}
	return fmt.Sprintf("Beyond the noise is what the number of values of one run tells. Runs differ by more than that: give %d results a side, or more.", spreadLeast)
}

// WriteText writes the comparison as a table for people.
func (c *Comparison) WriteText(w io.Writer) error {
	var b bytes.Buffer
	fmt.Fprintf(&b, "A  %s\nB  %s\n\n", c.A, c.B)
	const line = "%-30s %12s %12s %7s  %s\n"
	fmt.Fprintf(&b, line, "", "A", "B", "B/A", "beyond the noise")
	for _, r := range c.Rows {
		cells := r.Cells()
		fmt.Fprintf(&b, line, r.Name, cells[0], cells[1], cells[2], cells[3])
	}
	fmt.Fprintf(&b, "\n%s\n", c.Basis())
	for _, warning := range c.Warnings {
		fmt.Fprintf(&b, "careful: %s\n", warning)
	}
	_, err := w.Write(b.Bytes())
	return err
}
