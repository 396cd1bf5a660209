package main

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"

	"github.com/seed-134acfd0/lull/loadgen"
)

// newLog writes text for people if stderr is a terminal, and JSON otherwise.
func newLog() *slog.Logger {
	if isTerminal(os.Stderr) {
		return slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	return slog.New(slog.NewJSONHandler(os.Stderr, nil))
}

func isTerminal(f *os.File) bool { return term.IsTerminal(int(f.Fd())) }

// say tells a person what is going on. It does not mix with a command's output,
// which goes to stdout.
func say(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }

func printJSON(w io.Writer, value any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(value)
}

func writeJSON(path string, value any) error {
	b, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(b, '\n'), 0o644)
}

// progress shows how far a load is: as a bar on a terminal, as log lines
// otherwise.
type progress struct {
	bar  *progressbar.ProgressBar // nil if stderr is no terminal
	log  *slog.Logger
	said time.Duration // when the last line was logged
}

// progressEvery is the time between two lines.
const progressEvery = 5 * time.Second

func newProgress(conns int) *progress {
	p := &progress{log: newLog()}
	if isTerminal(os.Stderr) {
		p.bar = progressbar.NewOptions(conns, progressbar.OptionSetWriter(os.Stderr),
			progressbar.OptionShowCount(), progressbar.OptionSetWidth(30), progressbar.OptionClearOnFinish())
	}
	return p
}

func (p *progress) phase(name string) {
	if p.bar != nil {
		p.bar.Describe(name)
		return
	}
	p.log.Info("phase", "name", name)
}

func (p *progress) progress(now loadgen.Progress) {
	if p.bar != nil {
		_ = p.bar.Set(now.Open) // the terminal may have gone
		p.bar.Describe(describe(now))
		return
	}
	if now.Elapsed-p.said >= progressEvery {
		p.said = now.Elapsed
		p.log.Info("progress", "phase", now.Phase, "open", now.Open, "opening", now.Opening, "failed", now.Failed, "received", now.Received)
	}
}

func (p *progress) end() {
	if p.bar != nil {
		_ = p.bar.Finish()
	}
}

func describe(now loadgen.Progress) string {
	text := now.Phase
	if now.Failed > 0 {
		text += fmt.Sprintf(", %d failed", now.Failed)
	}
	if now.Received > 0 {
		text += fmt.Sprintf(", %d messages", now.Received)
	}
	return text
}
