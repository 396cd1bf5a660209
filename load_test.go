package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/seed-134acfd0/lull/loadgen"
)

// serveEcho starts an echo server that ends with the test.
func serveEcho(t *testing.T) (url string) {
	t.Helper()
	url, _ = serve(t, "--mode", "echo")
	return url
}

// A load of somebody's own messages, with headers and cookies from a file, is answered by
// a server that checks them, and its result goes where it was asked to.
func TestALoadOfSomebodysOwnMessages(t *testing.T) {
	url := serveEcho(t)
	tokens := write(t, "tokens.txt", "anna\nben\ncarl\n")
	dir := t.TempDir()
	html, csv := filepath.Join(dir, "r.html"), filepath.Join(dir, "r.csv")
	out, errs, code := run(t, "load", url+"?user={{.Conn}}", "--conns", "6", "--active", "6", "--echo", "200ms", "--pace", "100",
		"--header", fmt.Sprintf("Authorization: Bearer {{line %q}}", tokens), "--cookie", "session={{hex 8}}",
		"--message", `{"type":"ping","n":{{.Seq}}}`, "--answer", `contains:"n":{{.Seq}}}`,
		"--expect", "lost=0,p99(echo)<60s", "--json", "-", "--html", html, "--csv", csv, "--web", "")
	if code != 0 {
		t.Fatalf("exit %d: %s", code, errs)
	}
	var r loadgen.Result
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	if r.Open != 6 || r.Counts["echoes"] == 0 || r.Counts["echoes"] != r.Counts["asked"] || len(r.Expected) != 2 {
		t.Errorf("%+v", r)
	}
	for _, path := range []string{html, csv} {
		if text, err := os.ReadFile(path); err != nil || len(text) == 0 {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func TestAThresholdThatIsNotMetIsAnExitCode(t *testing.T) {
	out, _, code := run(t, "load", serveEcho(t), "--conns", "2", "--expect", "open>=3", "--web", "")
	if code != exitFailed || !strings.Contains(out, "not met: open>=3: it is 2") {
		t.Errorf("exit %d: %s", code, out)
	}
}

func TestAScenarioIsCarriedOut(t *testing.T) {
	path := write(t, "s.yaml", fmt.Sprintf(`url: %s
groups:
  idle:
    users: 10
  chatty:
    users: 5
    script:
      - repeat: 3
        steps:
          - send: "hello {{.Seq}}"
            answer: echo
phases:
  - ramp: all
  - finish: 30s
`, serveEcho(t)))
	out, errs, code := run(t, "load", "--scenario", path, "--json", "-", "--web", "")
	var r loadgen.Result
	if err := json.Unmarshal([]byte(out), &r); err != nil || code != 0 {
		t.Fatalf("exit %d, %v: %s%s", code, err, out, errs)
	}
	if r.Open != 15 || r.Counts["echoes"] != 15 || r.Counts["finished"] != 5 {
		t.Errorf("%d open, counts %v", r.Open, r.Counts)
	}
}

func TestATsungFileIsCarriedOut(t *testing.T) {
	path := write(t, "w.xml", `<tsung>
  <servers><server host="127.0.0.1" port="1" type="tcp"/></servers>
  <load><arrivalphase phase="1" duration="1" unit="second"><users arrivalrate="200" unit="second"/></arrivalphase></load>
  <sessions><session name="s" probability="100" type="ts_websocket">
    <request><websocket type="connect" path="/chat"/></request>
    <for var="i" from="1" to="2"><request><websocket type="message">hello</websocket></request></for>
    <request><websocket type="close"/></request>
  </session></sessions>
</tsung>`)
	out, errs, code := run(t, "load", serveEcho(t), "--tsung", path, "--scale", "0.1", "--json", "-", "--web", "")
	var r loadgen.Result
	if err := json.Unmarshal([]byte(out), &r); err != nil || code != 0 {
		t.Fatalf("exit %d, %v: %s%s", code, err, out, errs)
	}
	if n := r.Counts["connected"]; n < 20 || n > 21 || r.Counts["finished"] != n || r.Counts["echoes"] != 2*n {
		t.Errorf("counts %v", r.Counts)
	}
}
