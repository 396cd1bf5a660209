//go:build interop

package loadgen_test

import (
	"crypto/tls"
	"os"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/seed-134acfd0/lull/internal/testkit"
	"github.com/seed-134acfd0/lull/loadgen"
	"github.com/seed-134acfd0/lull/loadgen/measure"
	"github.com/seed-134acfd0/lull/loadgen/plan"
	"github.com/seed-134acfd0/lull/loadgen/scenario"
	"github.com/seed-134acfd0/lull/server"
)

// One scenario against servers of all kinds: whatever each does in its own way, the counts
// are the same, and right.
func TestInteropLoad(t *testing.T) {
	certificate, _ := testkit.Certificate()
	lull := func(t *testing.T, o server.Options) (url string) {
		o.Compress, o.CompressFrom = true, 1
		return serveWith(t, interopLull(&interopRoom{}), o)
	}
	for name, start := range map[string]func(*testing.T) (url string){
		"lull": func(t *testing.T) string { return lull(t, server.Options{}) },
		"lull, TLS": func(t *testing.T) string {
			url := lull(t, server.Options{TLS: &tls.Config{Certificates: []tls.Certificate{certificate}}})
			return "wss" + strings.TrimPrefix(url, "ws")
		},
		"gorilla": interopGorilla,
		"coder":   interopCoder,
		"gws":     interopGWS,
		"nbio":    interopNbio,
		"gobwas":  interopGobwas,
		"node ws": func(t *testing.T) string { return "ws://" + interopNode(t, "server.mjs") + "/" },
		"node ws, TLS": func(t *testing.T) string {
			_, cert, key := interopKeys(t)
			return "wss://" + interopNode(t, "server.mjs", cert, key) + "/"
		},
		"python websockets": func(t *testing.T) string { return "ws://" + interopPython(t) + "/" },
		"gorilla behind nginx, TLS": func(t *testing.T) string {
			secure, _ := interopNginx(t, interopHost(interopGorilla(t)))
			return secure
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := interopPlan(t, "scenario.yaml", start(t))
			if name == "gobwas" { // it compresses only for programs that do it themselves
				p.Groups[len(p.Groups)-1].Compress = false
			}
			interopCheck(t, interopRun(t, p))
		})
	}
}

// What a proxy changes: it cuts users off that are silent, unless they ping; and it answers
// handshakes itself.
func TestInteropBehindNginx(t *testing.T) {
	t.Parallel()
	const users = 5
	_, url := interopNginx(t, interopHost(interopGorilla(t)))
	_, empty := interopNginx(t, "127.0.0.1:1")
	load := func(t *testing.T, url string, ping time.Duration) *loadgen.Result {
		text, err := plan.ParseText(url)
		if err != nil {
			t.Fatal(err)
		}
		return interopRun(t, &plan.Plan{
			Groups: []plan.Group{{Name: "users", Users: users, URLs: []*plan.Text{text}, Ping: ping}},
			Phases: []plan.Phase{{Name: "ramp", Kind: plan.Ramp}, {Name: "hold", Kind: plan.Hold, For: 3 * time.Second}},
		})
	}
	for name, of := range map[string]struct {
		url   string
		ping  time.Duration
		ends  measure.Counter
		early string
	}{
		"silent users":                     {url, 0, measure.Dropped, "nobody is left: 5 × the server ended the connection"},
		"an upgrade that is not passed on": {url + "forgotten", 0, measure.Rejected, `nobody got in: 5 × frame: the server answered "HTTP/1.1 400 Bad Request" in place of 101`},
		"no server":                        {empty, 0, measure.Rejected, `nobody got in: 5 × frame: the server answered "HTTP/1.1 502 Bad Gateway" in place of 101`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if res := load(t, of.url, of.ping); res.Early != of.early || count(res, of.ends) != users || res.OK() {
				t.Errorf("early is %q, want %q; %d %s", res.Early, of.early, count(res, of.ends), of.ends)
			}
		})
	}
	t.Run("users that ping", func(t *testing.T) {
		t.Parallel()
		if res := load(t, url, 200*time.Millisecond); !res.OK() || res.Open != users {
			t.Errorf("OK is %v, %d open", res.OK(), res.Open)
		}
	})
}

// interopHost is the host and port of a URL.
func interopHost(url string) string {
	_, host, _ := strings.Cut(url, "://")
	return strings.TrimSuffix(host, "/")
}

// interopPlan reads a scenario, for a server at another URL.
func interopPlan(t *testing.T, file, url string) *plan.Plan {
	t.Helper()
	text, err := os.ReadFile(interopFile(file))
	if err != nil {
		t.Fatal(err)
	}
	text = []byte(strings.ReplaceAll(string(text), "ws://127.0.0.1:8080/", url))
	p, err := scenario.Parse(fstest.MapFS{file: {Data: text}}, file)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func interopRun(t *testing.T, p *plan.Plan) *loadgen.Result {
	t.Helper()
	_, pool := testkit.Certificate()
	res, err := loadgen.Run(t.Context(), loadgen.Config{Plan: p, TLS: &tls.Config{RootCAs: pool}, Workers: 2, Patience: 20 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	_ = res.WriteText(&text)
	t.Log(text.String())
	return res
}

// interopCheck checks what came of scenario.yaml.
func interopCheck(t *testing.T, res *loadgen.Result) {
	t.Helper()
	const members, slow, scripted, users, published, drained = 30, 3, 10 + 4 + 4, 81, 10 + 6 + 3 + 3, 20
	if !res.OK() || res.Open != users-drained || res.Gone != drained {
		t.Errorf("OK is %v, %d open, %d gone", res.OK(), res.Open, res.Gone)
	}
	got := func(c measure.Counter) int { return count(res, c) }
	recalled := got(measure.Recalled)
	if recalled <= members { // the storm's
		t.Errorf("the churn replaced nobody")
	}
	for _, c := range []struct {
		counter measure.Counter
		want    int
	}{
		{measure.Connected, users + recalled},
		{measure.Left, recalled + drained},
		{measure.Returned, recalled},
		{measure.Finished, scripted + members + slow + recalled},
		{measure.Sent, published},
		{measure.Received, published * (members + slow)},
		{measure.Echoes, got(measure.Asked)},
		{measure.Answered, got(measure.Flooded)},
		{measure.Ponged, got(measure.Pinged) - got(measure.Unponged)},
	} {
		if n := got(c.counter); n != c.want || n == 0 {
			t.Errorf("%s: %d, want %d", c.counter, n, c.want)
		}
	}
	if least := 10*5 + 4*3 + 4*3 + members + slow + recalled; got(measure.Asked) <= least {
		t.Errorf("%d answers, of which scripts alone have %d", got(measure.Asked), least)
	}
	may := map[string]bool{}
	for _, c := range []measure.Counter{
		measure.Connected, measure.Left, measure.Recalled, measure.Returned, measure.Finished, measure.Sent, measure.Received, measure.Asked, measure.Echoes,
		measure.Flooded, measure.Answered, measure.Pinged, measure.Ponged, measure.Unponged, measure.BytesIn, measure.BytesOut, measure.Skipped, measure.Held,
		measure.RetryFailed, // a server that is busy may send somebody away who then comes back
	} {
		may[c.String()] = true
	}
	for name, n := range res.Counts {
		if n != 0 && !may[name] {
			t.Errorf("%s: %d, want none", name, n)
		}
	}
}
