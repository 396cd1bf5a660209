//go:build interop

package testkit

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Browser is a Chromium that gets its commands over two pipes, as JSON messages that
// end with a zero byte (the Chrome DevTools Protocol). It ends when the pipes are
// closed, so at the latest with this process, even if that is killed.
type Browser struct {
	t        testing.TB
	commands *os.File
	answers  *bufio.Reader
	session  string // of the page
	asked    int
	Faults   []string // exceptions, and what the page's policy forbids
}

// browserPatience is much longer than a test of the page takes.
const browserPatience = 2 * time.Minute

// StartBrowser starts one and opens a page.
func StartBrowser(t *testing.T, url string) *Browser {
	t.Helper()
	theirCommands, commands, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	answers, theirAnswers, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	profile := t.TempDir()
	var stderr bytes.Buffer
	cmd := exec.CommandContext(t.Context(), "chromium",
		"--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
		"--disable-background-networking", "--disable-component-update", "--disable-sync",
		"--remote-debugging-pipe", "--user-data-dir="+profile, "about:blank")
	cmd.Env = append(os.Environ(), "HOME="+profile)
	cmd.ExtraFiles = []*os.File{theirCommands, theirAnswers}
	cmd.Stderr = &stderr
	cmd.WaitDelay = browserPatience
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	if err := cmd.Start(); err != nil {
		t.Fatalf("a browser is missing: %v; server/testdata/interop/install, run as root, installs it", err)
	}
	theirCommands.Close()
	theirAnswers.Close()
	t.Cleanup(func() {
		commands.Close()
		_ = cmd.Wait() // an error means only that it was killed
		answers.Close()
		if t.Failed() {
			t.Logf("the browser printed:\n%s", stderr.String())
		}
	})
	if err := answers.SetReadDeadline(time.Now().Add(browserPatience)); err != nil {
		t.Fatal(err)
	}
	b := &Browser{t: t, commands: commands, answers: bufio.NewReader(answers)}
	var target struct{ TargetID string }
	b.Tell("Target.createTarget", map[string]any{"url": "about:blank"}, &target)
	var attached struct{ SessionID string }
	b.Tell("Target.attachToTarget", map[string]any{"targetId": target.TargetID, "flatten": true}, &attached)
	b.session = attached.SessionID
	b.Tell("Runtime.enable", nil, nil)
	b.Tell("Log.enable", nil, nil)
	b.Tell("Page.navigate", map[string]any{"url": url}, nil)
	return b
}

// Tell sends a command and waits until it is done.
func (b *Browser) Tell(method string, params map[string]any, result any) {
	b.t.Helper()
	b.asked++
	command, err := json.Marshal(struct {
		ID      int            `json:"id"`
		Session string         `json:"sessionId,omitempty"`
		Method  string         `json:"method"`
		Params  map[string]any `json:"params,omitempty"`
	}{b.asked, b.session, method, params})
	if err != nil {
		b.t.Fatal(err)
	}
	if _, err := b.commands.Write(append(command, 0)); err != nil {
		b.t.Fatalf("%s: %v", method, err)
	}
	for {
		text, err := b.answers.ReadBytes(0)
		if err != nil {
			b.t.Fatalf("%s: %v", method, err)
		}
		var answer struct {
			ID     int
			Result json.RawMessage
			Error  json.RawMessage
			Method string
			Params json.RawMessage
		}
		if err := json.Unmarshal(text[:len(text)-1], &answer); err != nil {
			b.t.Fatalf("%s: %v in %s", method, err, text)
		}
		switch {
		case answer.Method == "Runtime.exceptionThrown" || answer.Method == "Log.entryAdded":
			b.Faults = append(b.Faults, string(answer.Params))
		case answer.ID != b.asked:
		case answer.Error != nil:
			b.t.Fatalf("%s: %s", method, answer.Error)
		case result == nil:
			return
		default:
			if err := json.Unmarshal(answer.Result, result); err != nil {
				b.t.Fatalf("%s: %v in %s", method, err, answer.Result)
			}
			return
		}
	}
}

// Eval reads what a script in the page returns into v.
func (b *Browser) Eval(script string, v any) {
	b.t.Helper()
	var done struct {
		Result           struct{ Value json.RawMessage }
		ExceptionDetails json.RawMessage
	}
	b.Tell("Runtime.evaluate", map[string]any{"expression": script, "returnByValue": true, "awaitPromise": true}, &done)
	if done.ExceptionDetails != nil {
		b.t.Fatalf("%s: %s", script, done.ExceptionDetails)
	}
	if v == nil {
		return
	}
	if err := json.Unmarshal(done.Result.Value, v); err != nil {
		b.t.Fatalf("%s: %v in %s", script, err, done.Result.Value)
	}
}

// Texts are the texts of the elements that a selector finds.
func (b *Browser) Texts(selector string) (all []string) {
	b.t.Helper()
	quoted, _ := json.Marshal(selector) // a string can always be encoded
	b.Eval("[...document.querySelectorAll("+string(quoted)+")].map(e => e.textContent)", &all)
	return all
}

// Picture takes a screenshot and keeps it with the test's artifacts.
func (b *Browser) Picture(t *testing.T, name string) {
	t.Helper()
	var png struct{ Data string }
	b.Tell("Page.captureScreenshot", map[string]any{"captureBeyondViewport": true}, &png)
	data, err := base64.StdEncoding.DecodeString(png.Data)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(t.ArtifactDir(), name), data, 0o644); err != nil {
		t.Fatal(err)
	}
}

// OnScreens shows the page on a screen and on a phone, in light and dark, and calls
// check for each. It fails if the page is wider than that, and takes pictures.
func (b *Browser) OnScreens(t *testing.T, check func(width int, scheme string)) {
	t.Helper()
	for _, width := range []int{1280, 360} {
		b.Tell("Emulation.setDeviceMetricsOverride", map[string]any{"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 1000}, nil)
		for _, scheme := range []string{"light", "dark"} {
			b.Tell("Emulation.setEmulatedMedia", map[string]any{"features": []any{map[string]any{"name": "prefers-color-scheme", "value": scheme}}}, nil)
			var wide int // the content
			if b.Eval("document.documentElement.scrollWidth", &wide); wide > width {
				t.Errorf("%d pixels wide on a screen of %d", wide, width)
			}
			check(width, scheme)
			b.Picture(t, fmt.Sprintf("%d-%s.png", width, scheme))
		}
	}
}

// Style is a computed style of the first element that a selector finds.
func (b *Browser) Style(selector, property string) (value string) {
	b.t.Helper()
	b.Eval(fmt.Sprintf("getComputedStyle(document.querySelector(%q)).getPropertyValue(%q)", selector, property), &value)
	return value
}

// Shows waits until the one element that a selector finds has a text.
func (b *Browser) Shows(selector, text string) {
	b.t.Helper()
	var got []string
	ok := func() bool {
		got = b.Texts(selector)
		return len(got) == 1 && strings.Contains(got[0], text)
	}
	defer func() {
		if b.t.Failed() {
			b.t.Logf("%s shows %q", selector, got)
		}
	}()
	Eventually(b.t, fmt.Sprintf("%s shows %q", selector, text), ok)
}
