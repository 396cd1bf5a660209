//go:build interop

package web_test

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/seed-134acfd0/lull/internal/testkit"
	"github.com/seed-134acfd0/lull/loadgen/measure"
	"github.com/seed-134acfd0/lull/loadgen/web"
)

// story is a run of ten minutes with all that can happen: a ramp, an idle time, echoes
// with a stall in the middle, errors. The page is told of the seconds from and to, and
// of those between.
func story(p *web.Page, from, to int) {
	var counts measure.Counts
	var errors []measure.Found
	for second := range to + 1 {
		s := &measure.Snapshot{At: time.Duration(second) * time.Second, PhaseCount: 4, Users: 50_000, CPU: 0.2, Busy: 0.3}
		switch {
		case second < 200:
			s.Phase, s.Expected = "ramp", time.Duration(200-second)*time.Second
			counts[measure.Connected] += 250
			s.Opening, s.CPU, s.Busy = 40+second%7, 0.45+0.05*math.Sin(float64(second)), 0.9
			for i := range 50 {
				s.Times.Record(measure.Handshake, time.Duration(800+10*i*(1+second/40))*time.Microsecond)
			}
		case second < 300:
			s.Phase, s.PhaseIndex, s.Expected = "hold", 1, time.Duration(300-second)*time.Second
		default:
			s.Phase, s.PhaseIndex = "talk", 2
			counts[measure.Asked] += 5000
			counts[measure.BytesOut] += 160_000
			if slow := second >= 400 && second < 402; !slow {
				counts[measure.Echoes] += 5000
				counts[measure.BytesIn] += 150_000
			}
			for i := range 100 {
				s.Times.Record(measure.Echo, time.Duration(300+5*i)*time.Microsecond)
			}
			if second == 402 {
				s.Times.Record(measure.Echo, 2*time.Second)
			}
			if second == 450 {
				counts[measure.Dropped] += 12
				errors = append(errors, measure.Found{Error: measure.Error{Counter: "dropped", Phase: "talk", Text: "read: connection reset by peer <b>bold</b>"}, Count: 12})
			}
			s.Limited = []string{"ramp: the generator used 91 % of all processors"}
		}
		s.Times.Record(measure.Lag, time.Duration(20+second%9)*time.Microsecond)
		s.Counts, s.Errors = counts, errors
		s.Open = counts.Open()
		if second < from {
			continue
		}
		switch second {
		case 0, 200, 300:
			p.Phase(s.Phase)
		}
		p.Snapshot(s)
	}
}

func TestInteropPage(t *testing.T) {
	var c orders
	p := start(t, web.Options{Title: "ws://127.0.0.1:8080/", Phases: []string{"ramp", "hold", "talk", "drain"}, Control: &c})
	b := testkit.StartBrowser(t, p.URL())
	defer func() {
		if len(b.Faults) > 0 {
			t.Errorf("faults: %q", b.Faults)
		}
	}()
	b.Shows("#state", "has not begun")
	story(p, 0, 250)
	b.Shows("#state", "running")
	b.Shows("#where", "ws://127.0.0.1:8080/")
	b.Shows("#phases [aria-current]", "hold")
	b.Shows("#togo", "phase 2 of 4, for 51 s, 50 s to go; the run has taken 4:10")
	b.Shows("#connections li:first-child b", "50,000")
	b.Shows("#connections .plot text:last-of-type", "4:00")

	var progress float64
	b.Eval(`document.querySelector("#progress").value`, &progress)
	if progress < 0.5 || progress > 0.51 {
		t.Errorf("the progress is %v", progress)
	}
	if echo := b.Texts("#echo:not([hidden])"); len(echo) != 0 {
		t.Errorf("a chart of nothing: %q", echo)
	}

	story(p, 251, 600)
	b.Tell("Page.reload", nil, nil)
	b.Shows("#state", "the generator is the bottleneck")
	b.Shows("#limited li", "91 % of all processors")
	b.Shows("#phases [aria-current]", "talk")
	b.Shows("#errors", "12droppedtalkread: connection reset by peer <b>bold</b>")
	b.Shows("#messages li:nth-child(1) b", "5,000/s")
	b.Shows("#times tr:first-child td:first-child", "echo")
	if bold := b.Texts("#errors b"); len(bold) > 0 {
		t.Errorf("an error became HTML: %q", bold)
	}
	look(t, b)
	read(t, b)
	command(t, b, &c)

	if err := p.Close(); err != nil {
		t.Error(err)
	}
	b.Shows("#state", "the run has ended")
	var asleep bool
	b.Eval(`[...document.querySelectorAll("#control button, #control input")].every(e => e.disabled)`, &asleep)
	if !asleep {
		t.Error("a run that has ended takes orders")
	}
	b.Picture(t, "ended.png")
}

// read reads values of another time, by keyboard and for a screen reader.
func read(t *testing.T, b *testkit.Browser) {
	t.Helper()
	var label string
	b.Eval(`(() => {
		const plot = document.querySelector("#connections .plot");
		plot.focus();
		for (const key of ["Home", "ArrowRight"]) plot.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
		return plot.getAttribute("aria-label");
	})()`, &label)
	if !strings.HasPrefix(label, "Connections, at 0:") || !strings.Contains(label, "wanted 50,000") {
		t.Errorf("the label of a time is %q", label)
	}
	b.Eval(`(() => { document.activeElement.blur(); return document.querySelector("#connections .plot").getAttribute("aria-label"); })()`, &label)
	if !strings.HasPrefix(label, "Connections, now: open") {
		t.Errorf("the label of now is %q", label)
	}
	var unnamed []string
	b.Eval(`[...document.querySelectorAll("button, input, [role=img], table, progress")].filter(e =>
		!(e.textContent.trim() || e.getAttribute("aria-label") || e.labels?.length)).map(e => e.outerHTML)`, &unnamed)
	if len(unnamed) > 0 {
		t.Errorf("without a name for a screen reader: %q", unnamed)
	}
}

// command gives each order.
func command(t *testing.T, b *testkit.Browser, c *orders) {
	t.Helper()
	done := func(want, says string) {
		t.Helper()
		b.Shows("#said", says)
		if does := c.take(); does != want {
			t.Errorf("it does %q, not %q", does, want)
		}
	}
	b.Eval(`document.querySelector("#pause").click()`, nil)
	done("pause=true", "The run pauses.")
	b.Eval(`document.querySelector("#rate").value = "2500"; document.querySelector("#control").requestSubmit()`, nil)
	done("rate=2500", "2,500 a second")
	b.Eval(`document.querySelector("#stop").click()`, nil)
	b.Shows("#stop.sure", "Really stop?")
	if does := c.take(); does != "" {
		t.Errorf("one click does %q", does)
	}
	b.Eval(`document.querySelector("#stop").click()`, nil)
	done("stop", "The run stops.")
}

// look checks the layout on screens and phones, in light and dark.
func look(t *testing.T, b *testkit.Browser) {
	t.Helper()
	lines := map[string]string{"light": "rgb(47, 125, 140)", "dark": "rgb(102, 184, 199)"}
	columns := map[int]int{1280: 2, 360: 1}
	b.OnScreens(t, func(width int, scheme string) {
		b.Eval(`dispatchEvent(new Event("resize")); new Promise(requestAnimationFrame)`, nil) // charts are drawn for this width
		if line := b.Style("#connections path.s0", "stroke"); line != lines[scheme] {
			t.Errorf("in %s lines are %s", scheme, line)
		}
		if n := len(strings.Fields(b.Style("#charts", "grid-template-columns"))); n != columns[width] {
			t.Errorf("%d columns of charts on a screen of %d", n, width)
		}
	})
}
