//go:build interop

package result

import (
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/seed-134acfd0/lull/internal/testkit"
)

func TestInteropResultPage(t *testing.T) {
	r := lively(1, 1)
	r.Expected = r.Check(thresholds(t, "p99(handshake)<50ms,lost=0,p99(tls)<1ms"))
	look(t, r.WriteHTML, 5)
}

func TestInteropComparePage(t *testing.T) {
	look(t, Compare(Side{"a.json", []*Result{lively(1, 1)}}, Side{"b.json", []*Result{lively(2, 1.3)}}).WriteHTML, 4)
}

// look opens a page and checks its layout on screens and phones, in light and dark.
func look(t *testing.T, write func(io.Writer) error, charts int) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "page.html")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := write(f); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	b := testkit.StartBrowser(t, "file://"+path)
	testkit.Eventually(t, "the page is loaded", func() bool {
		var state string
		b.Eval(`document.querySelector("h1") ? document.readyState : ""`, &state)
		return state == "complete"
	})
	curves := map[string]bool{}
	b.OnScreens(t, func(width int, scheme string) {
		var laid struct {
			Charts int
			Text   float64 // the height of the axes' text, in pixels
		}
		b.Eval(`(() => {
			const shown = [...document.querySelectorAll("figure svg")].filter(s => s.getBoundingClientRect().width > 0);
			return { charts: shown.length, text: Math.max(...[...shown[0].querySelectorAll("text")].map(t => t.getBoundingClientRect().height)) };
		})()`, &laid)
		if laid.Charts != charts || laid.Text < 9 {
			t.Errorf("on a screen of %d: %+v", width, laid)
		}
		if back, want := b.Style("body", "background-color"), map[string]string{"light": "rgb(255, 255, 255)", "dark": "rgb(20, 23, 26)"}[scheme]; back != want {
			t.Errorf("in %s the background is %s", scheme, back)
		}
		curves[b.Style("path.c0", "stroke")] = true
	})
	if len(curves) != 2 {
		t.Errorf("curves have the colours %v", curves)
	}
	if len(b.Faults) > 0 {
		t.Errorf("faults: %q", b.Faults)
	}
}
