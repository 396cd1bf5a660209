package result

import (
	"encoding/csv"
	"encoding/xml"
	"errors"
	"io"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/seed-134acfd0/lull/loadgen/measure"
)

func TestTheTimeSeriesAsCSV(t *testing.T) {
	golden(t, "example.csv", example().WriteCSV)
	var b strings.Builder
	if err := example().WriteCSV(&b); err != nil {
		t.Fatal(err)
	}
	rows, err := csv.NewReader(strings.NewReader(b.String())).ReadAll()
	if err != nil || len(rows) != 1+len(example().Timeline) || !slices.Contains(rows[0], "handshake_p99_ms") {
		t.Errorf("%v, %v", rows, err)
	}
}

// checkPage checks that a page is well-formed and needs nothing but itself.
func checkPage(t *testing.T, write func(io.Writer) error) string {
	t.Helper()
	var b strings.Builder
	if err := write(&b); err != nil {
		t.Fatal(err)
	}
	html := b.String()
	d := xml.NewDecoder(strings.NewReader(html))
	d.Strict, d.AutoClose, d.Entity = false, append(slices.Clone(xml.HTMLAutoClose), "meta", "th", "td", "br"), xml.HTMLEntity
	for {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("%v in\n%s", err, html)
		}
	}
	for _, url := range regexp.MustCompile(`(?:\S+\s*=\s*)?\S*https?://[^"'\s)]*`).FindAllString(html, -1) {
		if !strings.HasPrefix(url, "xmlns") {
			t.Errorf("the page refers to %s", url)
		}
	}
	for _, tag := range []string{"<script", "<link", "<img", "<iframe", "@import", "url(", "NaN", "Inf"} {
		if strings.Contains(html, tag) {
			t.Errorf("the page has %s", tag)
		}
	}
	return html
}

func TestThePageShowsWhatWasMeasured(t *testing.T) {
	r := example()
	r.Expected = r.Check(thresholds(t, "lost=0"))
	html := checkPage(t, r.WriteHTML)
	for _, text := range []string{
		"example: 997 of 1,000 connections open", "ws://127.0.0.1:8080/", "Not valid", "talk: worker 1 was late", "not met: lost=0: it is 1049",
		"handshake p99", "Distributions", "p99.9", "connection refused", "timed_out", "ping, busy",
	} {
		if !strings.Contains(html, text) {
			t.Errorf("%q is missing", text)
		}
	}
	if n := strings.Count(html, "<figure"); n != 5 {
		t.Errorf("%d charts", n)
	}
	if html := checkPage(t, chat().WriteHTML); !strings.Contains(html, "a chat") {
		t.Error("the chat is not recognised")
	}
	for why, r := range map[string]*Result{"nothing": newLoad(Run{}).Result(End{}), "nobody": nobody(), "empty": {}} {
		if html := checkPage(t, r.WriteHTML); !strings.Contains(html, "nothing to draw") && why != "nobody" {
			t.Errorf("%s: charts of nothing", why)
		}
	}
}

// A server decides what its errors say, and what is in its address.
func TestThePageQuotesWhatComesFromElsewhere(t *testing.T) {
	const evil = `<script>alert("1")</script>`
	r := example()
	r.Name, r.URLs, r.Early, r.Limited = evil, []string{evil}, evil, []string{evil}
	r.Errors = []measure.Found{{Error: measure.Error{Counter: evil, Phase: evil, Text: evil}, Count: 1}}
	r.Phases[0].Name, r.Agents = evil, []Agent{{Name: evil, Lost: evil}}
	checkPage(t, r.WriteHTML)
}
