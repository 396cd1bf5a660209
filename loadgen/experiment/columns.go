package experiment

import (
	"fmt"
	"io"
	"text/tabwriter"
)

// line is a line of a table that has a column for each row of a measurement.
type line[Row any] struct {
	name string
	of   func(*Row) string
}

// writeColumns writes such a table, or nothing if there are no rows.
func writeColumns[Row any](w io.Writer, rows []Row, lines []line[Row]) error {
	if len(rows) == 0 {
		return nil
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, l := range lines {
		fmt.Fprint(t, l.name)
		for i := range rows {
			fmt.Fprint(t, "\t", l.of(&rows[i]))
		}
		fmt.Fprintln(t)
	}
	return t.Flush()
}
