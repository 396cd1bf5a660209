package plan

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/seed-134acfd0/lull/loadgen/measure"
)

// Threshold is what has to come of a run, such as "p99(handshake) < 50ms" or
// "lost = 0".
type Threshold struct {
	// Figure is a count such as "lost"; a quantile, "p50", "p99.9", "min" or "max"; "rate";
	// or "valid", which is 1 unless the generator was the bottleneck.
	Figure string  `json:"figure"`
	Of     string  `json:"of,omitempty"` // of a quantile: a kind of times, such as "handshake"; of a rate: connects, messages or deliveries
	Op     string  `json:"op"`           // "<", "<=", "=", ">=" or ">"
	Value  float64 `json:"value"`        // times in milliseconds, rates a second
}

// ThresholdsMax is how many thresholds there can be.
const ThresholdsMax = 100

// thresholdText is the longest text of a threshold, in bytes.
const thresholdText = 200

var (
	thresholdForm = regexp.MustCompile(`^([a-z0-9_.]+)(?:\(([a-z_]+)\))?\s*(<=|>=|<|>|=)\s*(\S+)$`)
	quantileForm  = regexp.MustCompile(`^p[0-9]{1,2}(\.[0-9]{1,6})?$`)

	rates  = []string{"connects", "messages", "deliveries"}
	counts = func() []string {
		names := []string{"lost", "open", "errors"} // of a result; the others are counters
		for c := range measure.Counters {
			names = append(names, c.String())
		}
		return names
	}()
	kinds = func() (names []string) {
		for k := range measure.Kinds {
			names = append(names, k.String())
		}
		return names
	}()
)

// ParseThresholds reads thresholds with commas between them, such as
// "p99(handshake)<50ms,lost=0".
func ParseThresholds(text string) (all []Threshold, err error) {
	for one := range strings.SplitSeq(text, ",") {
		if len(all) == ThresholdsMax {
			return nil, fmt.Errorf("there can be at most %d thresholds", ThresholdsMax)
		}
		t, err := ParseThreshold(one)
		if err != nil {
			return nil, err
		}
		all = append(all, t)
	}
	return all, nil
}

// ParseThreshold reads one. An error says what can be written.
func ParseThreshold(text string) (t Threshold, err error) {
	text = strings.TrimSpace(text)
	if text == "valid" {
		return Threshold{Figure: text, Op: "=", Value: 1}, nil
	}
	m := thresholdForm.FindStringSubmatch(text)
	if m == nil || len(text) > thresholdText {
		return t, fmt.Errorf("%.40q is no threshold: it has to be a figure, one of < <= = >= >, and a value, as in p99(handshake)<50ms, lost=0, rate(connects)>=1000 or valid", text)
	}
	t = Threshold{Figure: m[1], Of: m[2], Op: m[3]}
	if err := t.known(); err != nil {
		return t, err
	}
	t.Value, err = t.read(m[4])
	return t, err
}

// known reports what is wrong with a threshold's figure.
func (t Threshold) known() error {
	list := func(names []string) string { return strings.Join(names, ", ") }
	switch {
	case t.isTime():
		if !slices.Contains(kinds, t.Of) {
			return fmt.Errorf("there are no times %q: %s(…) can be of %s", t.Of, t.Figure, list(kinds))
		}
	case t.Figure == "rate":
		if !slices.Contains(rates, t.Of) {
			return fmt.Errorf("there is no rate of %q: rate(…) can be of %s", t.Of, list(rates))
		}
	case t.Of != "":
		return fmt.Errorf("there is no %s(%s): of times there are p50, p99.9 and so on, min and max; and there is rate(…)", t.Figure, t.Of)
	case t.Figure != "valid" && !slices.Contains(counts, t.Figure):
		return fmt.Errorf("there is no figure %q: it can be %s; p99(…), min(…) or max(…) of %s; rate(…) of %s; or valid", t.Figure, list(counts), list(kinds), list(rates))
	}
	return nil
}

// isTime reports whether the figure is one of a distribution of times.
func (t Threshold) isTime() bool {
	return t.Figure == "min" || t.Figure == "max" || quantileForm.MatchString(t.Figure)
}

// read reads a value.
func (t Threshold) read(text string) (float64, error) {
	if t.isTime() {
		d, err := time.ParseDuration(text)
		if err != nil || d < 0 {
			return 0, fmt.Errorf("%s(%s) is a time: %q has to be one like 50ms, 800us or 1.5s", t.Figure, t.Of, text)
		}
		return float64(d) / float64(time.Millisecond), nil
	}
	v, err := strconv.ParseFloat(strings.TrimSuffix(text, "/s"), 64)
	if err != nil || !(v >= 0 && v <= 1e18) {
		return 0, fmt.Errorf("%s is a number: %q has to be one like 0 or 1000", t.name(), text)
	}
	return v, nil
}

func (t Threshold) name() string {
	if t.Of == "" {
		return t.Figure
	}
	return t.Figure + "(" + t.Of + ")"
}

// Holds reports whether a measured value is as it has to be.
func (t Threshold) Holds(v float64) bool {
	switch t.Op {
	case "<":
		return v < t.Value
	case "<=":
		return v <= t.Value
	case ">=":
		return v >= t.Value
	case ">":
		return v > t.Value
	}
	return v == t.Value
}

// Write is a value of the threshold's figure as people read it.
func (t Threshold) Write(v float64) string {
	switch {
	case t.isTime():
		return strconv.FormatFloat(v, 'f', -1, 64) + "ms"
	case t.Figure == "rate":
		return strconv.FormatFloat(v, 'f', 1, 64) + "/s"
	}
	return strconv.FormatFloat(v, 'f', -1, 64)
}

// String is the threshold as ParseThreshold reads it.
func (t Threshold) String() string {
	digits := strconv.FormatFloat(t.Value, 'f', -1, 64)
	if t.isTime() {
		digits += "ms"
	}
	return t.name() + t.Op + digits
}
