//go:build interop

package web_test

import (
	"encoding/json"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/seed-134acfd0/lull/internal/testkit"
	"github.com/seed-134acfd0/lull/loadgen/web"
)

// The arithmetic of charts, row by row.
func TestInteropCharts(t *testing.T) {
	b := testkit.StartBrowser(t, start(t, web.Options{}).URL())
	b.Shows("#state", "has not begun")
	for script, want := range map[string]string{
		`[0, 59.9, 61, 3599, 3600, 90061].map(clock)`: `["0:00","0:59","1:01","59:59","1:00:00","25:01:01"]`,
		`steps(0, 1, 4)`:                       `[0,0.5,1]`,
		`steps(0, 105000, 4)`:                  `[0,50000,100000]`,
		`steps(0, 4, 4)`:                       `[0,1,2,3,4]`,
		`decades(0.3, 20)`:                     `[0.1,1,10,100]`,
		`decades(1, 1)`:                        `[1,10]`,
		`thin([[1, 5], [2, 9], [3, null]], 3)`: `[[1,5],[2,9],[3,null]]`,
		`thin([[1, 5], [2, 9], [3, null], [4, null], [5, 1]], 3)`: `[[2,9],[4,null],[5,1]]`, // no peak vanishes
		// A line ends where nothing was measured for long, and a lone point is seen.
		`(() => {
			const spec = { id: "test", title: "Test", format: String, series: [{ name: "value", column: "v" }] };
			const c = newChart(byId("charts"), spec);
			const v = [1, 1, null, 1, null, null, null, null, 1];
			c.draw(v.map((v, i) => [i, v]), { at: 0, v: 1 }, []);
			return document.querySelectorAll("#test path.s0")[1].getAttribute("d").replaceAll(/[^ML]/g, "");
		})()`: `"MLLM"`,
		// What was never measured is not drawn, if it need not be.
		`(() => {
			const c = newChart(byId("charts"), { id: "none", title: "None", format: String, optional: true, log: true, series: [{ name: "value", column: "v" }] });
			c.draw([[0, null], [1, null]], { at: 0, v: 1 }, []);
			return byId("none").hidden;
		})()`: `true`,
	} {
		var got json.RawMessage
		if b.Eval(script, &got); string(got) != want {
			t.Errorf("%s is %s, want %s", script, got, want)
		}
	}
}

// wire is an address that leads to a page, until it is cut.
type wire struct {
	net.Listener
	mu    sync.Mutex
	conns []net.Conn
}

// newWire leads from addr to p.
func newWire(t *testing.T, addr string, p *web.Page) *wire {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{Listener: l}
	t.Cleanup(w.cut)
	go func() {
		for {
			here, err := l.Accept()
			if err != nil {
				return
			}
			there, err := net.Dial("tcp", strings.Trim(strings.TrimPrefix(p.URL(), "http://"), "/"))
			if err != nil {
				here.Close()
				continue
			}
			w.mu.Lock()
			w.conns = append(w.conns, here, there)
			w.mu.Unlock()
			go io.Copy(there, here)
			go io.Copy(here, there)
		}
	}()
	return w
}

func (w *wire) cut() {
	w.Close()
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.conns {
		c.Close()
	}
}

// A generator that dies says nothing. The page says so, keeps what it has, and shows
// the next run that comes.
func TestInteropPageOfAGeneratorThatDies(t *testing.T) {
	first, second := start(t, web.Options{Title: "first"}), start(t, web.Options{Title: "second"})
	first.Phase("ramp")
	run(first, 0, 20)
	second.Phase("hold")
	run(second, 0, 3)
	w := newWire(t, "127.0.0.1:0", first)
	addr := w.Addr().String()
	b := testkit.StartBrowser(t, "http://"+addr+"/")
	b.Shows("#where", "first")
	b.Shows("#connections li:first-child b", "2,000")
	w.cut()
	b.Shows("#state", "the run does not answer")
	b.Shows("#connections li:first-child b", "2,000")
	newWire(t, addr, second)
	b.Shows("#where", "second")
	b.Shows("#state", "running")
	b.Shows("#connections li:first-child b", "300")
	b.Faults = slices.DeleteFunc(b.Faults, func(fault string) bool { return strings.Contains(fault, "net::ERR_") })
	if len(b.Faults) > 0 {
		t.Errorf("faults: %q", b.Faults)
	}
}
