package terminal

import (
	"cmp"
	"fmt"
	"strings"

	"github.com/mattn/go-runewidth"
	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"github.com/seed-134acfd0/lull/loadgen/measure"
)

// What is shown at most, so that the rows fit onto a screen of 24.
const (
	errorsShown  = 3
	limitedShown = 2
	rowsShown    = 23
)

// A bar has from barLeast to barMost columns. A screen that is narrower has none.
const (
	barLeast = 10
	barMost  = 40
)

// rows are what v looks like on a screen of some columns, from the top. No row is
// wider.
func (v *view) rows(columns int) []string {
	if !v.Running() || v.Now.At == 0 {
		return lay(columns, noBar, []string{cmp.Or(measure.Printable(v.Now.Phase), "starting")})
	}
	var rows []string
	add := func(share float64, parts ...string) { rows = append(rows, lay(columns, share, parts)...) }
	add(v.passed(), v.phaseParts()...)
	add(v.open(), v.connectionParts()...)
	if parts := v.messageParts(); len(parts) > 0 {
		add(noBar, parts...)
	}
	for k := range measure.Kinds {
		if k != measure.Lag && v.Times[k] != nil {
			add(noBar, v.timeParts(k)...)
		}
	}
	add(noBar, v.generatorParts()...)
	for _, text := range v.Now.Limited[:min(limitedShown, len(v.Now.Limited))] {
		add(noBar, "generator-limited: "+measure.Printable(text))
	}
	for _, e := range v.Now.Errors[:min(errorsShown, len(v.Now.Errors))] {
		add(noBar, fmt.Sprintf("%s × %s in %s: %s", count(e.Count), e.Counter, measure.Printable(e.Phase), measure.Printable(e.Text)))
	}
	return rows[:min(rowsShown, len(rows))]
}

// noBar is the share of a row without a bar.
const noBar = -1.0

// passed is how much of the phase's time has passed, if that is known.
func (v *view) passed() float64 {
	if share, ok := v.Progress(); ok {
		return share
	}
	return noBar
}

// open is how many of the users are connected.
func (v *view) open() float64 {
	if v.Now.Users <= 0 {
		return noBar
	}
	return float64(v.Now.Open) / float64(v.Now.Users)
}

func (v *view) phaseParts() []string {
	parts := []string{measure.Printable(v.Now.Phase)}
	if v.Now.PhaseCount > 1 {
		parts = append(parts, fmt.Sprintf("phase %d of %d", v.Now.PhaseIndex+1, v.Now.PhaseCount))
	}
	switch {
	case v.Now.Paused:
		return append(parts, "paused")
	case v.Now.Expected > 0:
		return append(parts, period(v.Now.Expected)+" to go")
	}
	return append(parts, "for "+period(v.Took()))
}

func (v *view) connectionParts() []string {
	parts := []string{fmt.Sprintf("%s of %s open", count(v.Now.Open), count(v.Now.Users))}
	if v.Rated && v.Rates.Connects > 0 {
		parts = append(parts, rate(v.Rates.Connects))
	}
	if v.Now.Opening > 0 {
		parts = append(parts, count(v.Now.Opening)+" opening")
	}
	if n := v.Now.Failed(); n > 0 {
		parts = append(parts, count(n)+" failed")
	}
	return parts
}

func (v *view) messageParts() (parts []string) {
	if n := v.Now.Counts.Sum(measure.MessagesOut...); n > 0 {
		parts = append(parts, "sent "+count(int(n)))
		if v.Rated {
			parts = append(parts, rate(v.Rates.Out), volume(v.Rates.BytesOut))
		}
	}
	if n := v.Now.Counts.Sum(measure.MessagesIn...); n > 0 {
		parts = append(parts, "received "+count(int(n)))
		if v.Rated {
			parts = append(parts, rate(v.Rates.In), volume(v.Rates.BytesIn))
		}
	}
	return parts
}

func (v *view) timeParts(k measure.Kind) []string {
	h := v.Times[k]
	return []string{
		k.String() + " p50 " + latency(quantile(h, 50)),
		"p95 " + latency(quantile(h, 95)), "p99 " + latency(quantile(h, 99)), "p99.9 " + latency(quantile(h, 99.9)),
		"max " + latency(quantile(h, 100)),
	}
}

func (v *view) generatorParts() []string {
	parts := []string{"generator " + percent(v.Now.CPU) + " of the processors", "all programs " + percent(v.Now.Busy)}
	if h := v.Times[measure.Lag]; h != nil {
		parts = append(parts, "lag p99 "+latency(quantile(h, 99)))
	}
	return parts
}

// between separates the parts of a row, and begins a row that continues another.
const between = "  "

// lay arranges parts in rows of at most so many columns, and a bar behind the first
// part of a row that has room for it.
func lay(columns int, share float64, parts []string) (rows []string) {
	columns = max(1, columns)
	if room := min(barMost, columns-runewidth.StringWidth(strings.Join(parts, between)+between)); share != noBar && room >= barLeast {
		parts = append([]string{parts[0], bar(share, room)}, parts[1:]...)
	}
	row := ""
	for _, part := range parts {
		switch wider := row + between + part; {
		case row == "":
			row = part
		case runewidth.StringWidth(wider) <= columns:
			row = wider
		default:
			rows = append(rows, runewidth.Truncate(row, columns, "…"))
			row = between + part
		}
	}
	return append(rows, runewidth.Truncate(row, columns, "…"))
}

// barStyle is a bar of characters that every terminal has.
var barStyle = mpb.BarStyle().Lbound("[").Filler("=").Tip(">").Padding(" ").Rbound("]")

// bar is a bar of which a share, from 0 to 1, is filled.
func bar(share float64, columns int) string {
	const whole = 10000
	var b strings.Builder
	_ = barStyle.Build().Fill(&b, decor.Statistics{ // a Builder takes everything
		AvailableWidth: columns, Total: whole, Current: int64(whole * min(1, max(0, share))),
	})
	return b.String()
}
