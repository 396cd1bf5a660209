package chart

import (
	"encoding/xml"
	"html/template"
	"io"
	"math"
	"regexp"
	"strings"
	"testing"
)

func TestScalesEndWithARoundNumber(t *testing.T) {
	rows := []struct {
		highest, want float64
	}{
		{0, 1}, {-5, 1}, {1, 1}, {1.01, 1.5}, {9, 10}, {10, 10}, {11, 15}, {23_456, 25_000}, {61, 80}, {99, 100},
		{1_000_001, 1_500_000}, {0.03, 0.03}, {0.031, 0.04},
	}
	for _, r := range rows {
		got := top([]Line{{Y: []float64{0, r.highest, -1}}, {Y: []float64{1e12}, Second: true}, {}}, false)
		if math.Abs(got-r.want) > r.want*1e-9 {
			t.Errorf("up to %v: the scale ends at %v, want %v", r.highest, got, r.want)
		}
	}
	if got := top(nil, false); got != 1 {
		t.Errorf("nothing: the scale ends at %v", got)
	}
}

func TestNumbersAreFormatted(t *testing.T) {
	for got, want := range map[string]string{
		Seconds(12.34): "12.3 s", Count(1_234_567.8): "1,234,567", Size(1 << 20): "1.0 MiB", Size(-5): "0 B",
		Percent(49.6): "50 %", Millis(1234.5678): "1,234.568 ms",
		Axis{}.format(1.5): "1.5",
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func draw(t *testing.T, lines ...Line) template.HTML {
	t.Helper()
	html, err := Draw(Axis{Name: "time", Format: Seconds}, Axis{Name: "users"}, Axis{Name: "rate"}, lines...)
	if err != nil {
		t.Fatal(err)
	}
	return html
}

func TestAChartTakesItsColoursFromTheStyleSheet(t *testing.T) {
	html := string(draw(t, Line{Name: "<a>", X: []float64{0, 1}, Y: []float64{1, 2}}, Line{Name: "b", X: []float64{0, 1}, Y: []float64{1, 2}, Dashed: true}, Line{Name: "c", X: []float64{0, 1}, Y: []float64{1, 2}, Second: true}))
	for _, own := range regexp.MustCompile(`style="[^"]*"`).FindAllString(html, -1) {
		if !strings.Contains(own, "stroke:rgba(255,255,255,0.0);fill:none") {
			t.Errorf("a colour of its own that can be seen: %s", own)
		}
	}
	if strings.Contains(html, "NaN") || strings.Contains(html, "<a>") {
		t.Error(html)
	}
	for _, want := range []string{`<i class="c0"></i>&lt;a&gt;`, `<i class="c0 dashed"></i>b`, `<i class="c1"></i>c`} {
		if !strings.Contains(html, want) {
			t.Errorf("%s is missing", want)
		}
	}
	for _, class := range regexp.MustCompile(`class="(c\d|axis|paper|wide|narrow)`).FindAllStringSubmatch(html, -1) {
		if !strings.Contains(string(Style), "."+class[1]) {
			t.Errorf("the style sheet has no .%s", class[1])
		}
	}
	d := xml.NewDecoder(strings.NewReader(html))
	for {
		if _, err := d.Token(); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

// What was not measured is a gap, and what was measured once between gaps can be seen.
func TestACurveHasGaps(t *testing.T) {
	nan := math.NaN()
	l := Line{X: []float64{0, 1, 2, 3, 4, 5}, Y: []float64{nan, 1, nan, 2, 3, nan}}
	parts := l.parts()
	if len(parts) != 2 || len(parts[0].XValues) != 1 || len(parts[1].XValues) != 2 || parts[1].XValues[0] != 3 {
		t.Errorf("%+v", parts)
	}
	if html := string(draw(t, l)); strings.Count(html, "<circle") != len(shapes) || strings.Contains(html, "NaN") {
		t.Error(html)
	}
	for why, none := range map[string]Line{"all gaps": {X: []float64{0, 1}, Y: []float64{nan, nan}}, "a point": {X: []float64{0}, Y: []float64{1}}, "nothing": {}} {
		if html := string(draw(t, none)); !strings.Contains(html, "nothing to draw") {
			t.Errorf("%s: %s", why, html)
		}
	}
}

func TestPowersOfTenEncloseTheCurves(t *testing.T) {
	got := Powers(Millis, Line{Y: []float64{-1.5, math.NaN(), 0.2}}, Line{Y: []float64{1.1}})
	if len(got) != 5 || got[0] != (Tick{-2, "0.01 ms"}) || got[4] != (Tick{2, "100 ms"}) {
		t.Errorf("%v", got)
	}
	if one := Powers(Millis, Line{Y: []float64{1}}); len(one) != 2 {
		t.Errorf("a scale of %v has no length", one)
	}
	if none := Powers(Millis, Line{}); none != nil {
		t.Errorf("%v", none)
	}
}
