package experiment

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"
	"html/template"
	"io"
	"os"
	"path/filepath"
	"strings"
	text "text/template"

	"github.com/dustin/go-humanize"

	"github.com/seed-134acfd0/lull/loadgen/internal/chart"
	"github.com/seed-134acfd0/lull/loadgen/result"
)

//go:embed report.md.tmpl
var markdownTemplate string

//go:embed report.html.tmpl
var htmlTemplate string

var functions = map[string]any{
	"comma": func(n int) string { return humanize.Comma(int64(n)) },
	"bytes": func(n int64) string { return humanize.IBytes(uint64(max(0, n))) },
	"per":   func(bytes float64) string { return humanize.FormatFloat("#,###.#", bytes) + " B" },
	"f0":    func(v float64) string { return humanize.FormatFloat("#,###.", v) },
	"f1":    func(v float64) string { return humanize.FormatFloat("#,###.#", v) },
	"f2":    func(v float64) string { return humanize.FormatFloat("#,###.##", v) },
	"t1":    func(of result.Latency, ms float64) string { return measured(of, "#,###.#", ms) },
	"t2":    func(of result.Latency, ms float64) string { return measured(of, "#,###.##", ms) },
	"cell":  func(text string) string { return strings.NewReplacer("|", `\|`, "\n", " ").Replace(text) },
	"inc":   func(i int) int { return i + 1 },
	"style": func() template.CSS { return chart.Style },
}

var (
	markdown = text.Must(text.New("report.md").Funcs(functions).Parse(markdownTemplate))
	page     = template.Must(template.New("report.html").Funcs(functions).Parse(htmlTemplate))
)

// measured is a time, or a dash if nothing was timed.
func measured(of result.Latency, format string, ms float64) string {
	if of.Count == 0 {
		return "–"
	}
	return humanize.FormatFloat(format, ms)
}

// PublishedRuns are the runs to compare with.
func (r *Report) PublishedRuns() []PublishedRun { return PublishedRuns }

// BytesTotal is the memory of all open connections' server side: all of the server's
// resident memory, and half of what the kernel needs for both ends.
func (r *Report) BytesTotal() int64 {
	return r.Memory.ServerRSS + int64(r.Memory.KernelPerConn/2*float64(r.Load.Open))
}

// Sockets is how many sockets the open connections have on this machine.
func (r *Report) Sockets() int { return 2 * r.Load.Open }

// UserPerConnection is the server's resident memory, divided by the connections.
func (r *Report) UserPerConnection() float64 {
	return float64(r.Memory.ServerRSS) / float64(max(1, r.Load.Open))
}

// BytesPerConnection is BytesTotal, divided by the connections.
func (r *Report) BytesPerConnection() float64 {
	return float64(r.BytesTotal()) / float64(max(1, r.Load.Open))
}

// WriteMarkdown prints the report as Markdown.
func (r *Report) WriteMarkdown(w io.Writer) error { return markdown.Execute(w, r) }

// Save writes report.json, report.md and report.html into a folder. It creates the
// folder if it does not exist.
func (r *Report) Save(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("experiment: %w", err)
	}
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("experiment: %w", err)
	}
	var md, html bytes.Buffer
	if err := r.WriteMarkdown(&md); err != nil {
		return fmt.Errorf("experiment: %w", err)
	}
	if err := r.writeHTML(&html); err != nil {
		return err
	}
	for name, content := range map[string][]byte{"report.json": append(data, '\n'), "report.md": md.Bytes(), "report.html": html.Bytes()} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
			return fmt.Errorf("experiment: %w", err)
		}
	}
	return nil
}

func (r *Report) writeHTML(w io.Writer) error {
	data := struct {
		*Report
		Connections, MemoryChart, Latency template.HTML
	}{Report: r}
	var err error
	if data.Connections, err = r.drawConnections(); err != nil {
		return err
	}
	if data.MemoryChart, err = r.drawMemory(); err != nil {
		return err
	}
	if len(r.Load.Broadcasts) > 0 {
		if data.Latency, err = r.drawLatency(); err != nil {
			return err
		}
	}
	if err := page.Execute(w, data); err != nil {
		return fmt.Errorf("experiment: %w", err)
	}
	return nil
}
