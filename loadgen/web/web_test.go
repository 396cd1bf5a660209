package web_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"github.com/seed-134acfd0/lull/internal/testkit"
	"github.com/seed-134acfd0/lull/loadgen/measure"
	"github.com/seed-134acfd0/lull/loadgen/web"
)

func start(t testing.TB, o web.Options) *web.Page {
	t.Helper()
	p, err := web.Listen("127.0.0.1:0", o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

// snapshot is what a run of 10,000 users knows after so many seconds.
func snapshot(second int) *measure.Snapshot {
	s := &measure.Snapshot{
		At: time.Duration(second) * time.Second, Phase: "ramp", PhaseCount: 2, Expected: time.Minute,
		Users: 10_000, Open: 100 * second, Opening: 7, CPU: 0.25, Busy: 0.5,
	}
	s.Counts[measure.Connected] = uint64(100 * second)
	s.Counts[measure.Asked], s.Counts[measure.Echoes] = uint64(10*second), uint64(9*second)
	s.Counts[measure.BytesIn], s.Counts[measure.BytesOut] = uint64(2000*second), uint64(1000*second)
	if second <= 100 || second%100 == 0 {
		s.Times.Record(measure.Handshake, time.Duration(1+second)*time.Millisecond)
	}
	return s
}

// run feeds a page with seconds of a run.
func run(p *web.Page, from, to int) {
	for second := from; second <= to; second++ {
		p.Snapshot(snapshot(second))
	}
}

func get(t testing.TB, p *web.Page, path string) (int, string) {
	t.Helper()
	r, err := http.Get(p.URL() + path)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return r.StatusCode, string(body)
}

// status is a part of the status.
type status struct {
	Ended, Paused bool
	Phase         string
	Seconds, CPU  float64
	PhaseSeconds  float64  `json:"phase_seconds"`
	ToGo          *float64 `json:"seconds_to_go"`
	Open, Failed  int
	Rates         map[string]float64
	Counts        map[string]int
	PhaseTimes    map[string]map[string]float64 `json:"phase_times"`
	Times         map[string]map[string]float64
	Limited       []string
	Errors        []measure.Found
}

// stream is what a viewer has received.
type stream struct {
	t       testing.TB
	lines   *bufio.Reader
	columns []string
	points  [][]*float64
	anew    int // how often all points came
	phases  struct {
		Begun []struct {
			Name    string
			Seconds float64 `json:"began_seconds"`
		}
		Coming []string
	}
	status status
}

// watch opens a stream of events.
func watch(t testing.TB, p *web.Page) *stream {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), testkit.Patience)
	t.Cleanup(cancel)
	r, err := http.NewRequestWithContext(ctx, "GET", p.URL()+"events", nil)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil || answer.StatusCode != http.StatusOK || answer.Header.Get("Content-Type") != "text/event-stream" {
		t.Fatal(answer, err)
	}
	t.Cleanup(func() { answer.Body.Close() })
	return &stream{t: t, lines: bufio.NewReader(answer.Body)}
}

// news reads until the next status.
func (s *stream) news() {
	s.t.Helper()
	for {
		name, _ := s.field("event")
		_, data := s.field("data")
		if end, err := s.lines.ReadString('\n'); err != nil || end != "\n" {
			s.t.Fatalf("an event ends with %q, %v", end, err)
		}
		read := func(v any) {
			if err := json.Unmarshal([]byte(data), v); err != nil {
				s.t.Fatalf("%s: %v", name, err)
			}
		}
		switch name {
		case "welcome":
			var w struct{ Columns []string }
			read(&w)
			s.columns = w.Columns
		case "phases":
			read(&s.phases)
		case "points":
			var p struct {
				Anew   bool
				Points [][]*float64
			}
			if read(&p); p.Anew {
				s.anew++
				s.points = nil
			}
			s.points = append(s.points, p.Points...)
		case "status":
			s.status = status{}
			read(&s.status)
			return
		default:
			s.t.Fatalf("there is an event %q", name)
		}
	}
}

// field reads a line of an event. It returns its value twice, for callers' ease.
func (s *stream) field(want string) (value, same string) {
	s.t.Helper()
	line, err := s.lines.ReadString('\n')
	name, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
	if err != nil || !ok || name != want {
		s.t.Fatalf("%.80q has no %s: %v", line, want, err)
	}
	return value, value
}

// until reads news until ok.
func (s *stream) until(ok func() bool) {
	s.t.Helper()
	for s.news(); !ok(); s.news() {
	}
}

// column is a column of all points; -1 is what was not measured.
func (s *stream) column(name string) (values []float64) {
	i := slices.Index(s.columns, name)
	for _, p := range s.points {
		if p[i] == nil {
			values = append(values, -1)
			continue
		}
		values = append(values, *p[i])
	}
	return values
}

func TestWhoComesLateSeesTheWholeRun(t *testing.T) {
	p := start(t, web.Options{Phases: []string{"ramp", "talk", "drain"}})
	p.Phase("ramp")
	run(p, 0, 10)
	s := watch(t, p)
	s.news()
	if at := s.column("at"); len(at) != 10 || at[0] != 1 || at[9] != 10 {
		t.Errorf("points at %v", at)
	}
	for name, want := range map[string]float64{
		"users": 10_000, "open": 500, "opening": 7, "connects": 100, "failures": 0, "out": 10, "in": 9,
		"bytes_in": 2000, "bytes_out": 1000, "cpu": 0.25, "busy": 0.5, "echo_p50": -1, "handshake_max": 6.015,
	} {
		if got := s.column(name)[4]; got != want {
			t.Errorf("%s after five seconds is %v, want %v", name, got, want)
		}
	}
	if len(s.phases.Begun) != 1 || !slices.Equal(s.phases.Coming, []string{"talk", "drain"}) {
		t.Errorf("phases: %+v", s.phases)
	}

	// Then it gets what is new, and nothing twice.
	p.Phase("talk")
	run(p, 11, 13)
	s.until(func() bool { return len(s.points) == 13 })
	if at := s.column("at"); s.anew != 1 || at[12] != 13 || !slices.IsSorted(at) {
		t.Errorf("points at %v, anew %d times", at, s.anew)
	}
	if b := s.phases.Begun; len(b) != 2 || b[1].Name != "talk" || b[1].Seconds != 10 {
		t.Errorf("phases: %+v", b)
	}
	got := s.status
	if got.Seconds != 13 || got.PhaseSeconds != 3 || *got.ToGo != 60 || got.Rates["connects"] != 100 || got.Counts["echoes"] != 9*13 ||
		got.PhaseTimes["handshake"]["count"] != 3 || got.Times["handshake"]["count"] != 14 {
		t.Errorf("status: %+v", got)
	}
	if code, body := get(t, p, "snapshot.json"); code != 200 || !strings.Contains(body, `"messages_out":10`) {
		t.Errorf("%d %s", code, body)
	}
}

// Ten snapshots a second, of which one has times and processors' parts.
func TestPointsEndWithFullSnapshots(t *testing.T) {
	p := start(t, web.Options{})
	p.Phase("ramp")
	for i := range 56 {
		s := &measure.Snapshot{At: time.Duration(i)*100*time.Millisecond + 50*time.Millisecond, Phase: "ramp", PhaseCount: 1}
		s.Counts[measure.Connected] = uint64(10 * i)
		if i%10 == 0 {
			s.CPU, s.Busy = 0.5, 1
			s.Times.Record(measure.Handshake, time.Duration(i)*time.Millisecond)
		}
		p.Snapshot(s)
	}
	s := watch(t, p)
	s.news()
	if n := len(s.points); n != 5 {
		t.Fatalf("%d points", n)
	}
	for _, name := range []string{"cpu", "busy", "connects", "handshake_max"} {
		for i, got := range s.column(name) {
			want := map[string]float64{"cpu": 0.5, "busy": 1, "connects": 100, "handshake_max": float64(10 * (i + 1))}[name]
			if i == 0 && name == "connects" {
				want = 100 / 1.05
			}
			if got < 0.99*want || got > 1.01*want {
				t.Errorf("%s of point %d is %v, want %v", name, i, got, want)
			}
		}
	}
	if s.status.CPU != 0.5 {
		t.Errorf("the generator's part now is %v", s.status.CPU)
	}
	p.Close()
	s.until(func() bool { return s.status.Ended })
	if at := s.column("at"); len(at) != 6 || at[5] != 5.55 {
		t.Errorf("the end of the run is no point: %v", at)
	}
}

// A run of three hours, a snapshot a second.
func TestALongRunIsShownInABoundedNumberOfPoints(t *testing.T) {
	p := start(t, web.Options{})
	p.Phase("hold")
	run(p, 0, 1000)
	s := watch(t, p)
	s.news()
	run(p, 1001, 3*measure.PointsMax)
	s.until(func() bool { return s.status.Seconds == 3*measure.PointsMax })
	late := watch(t, p)
	late.news()
	if n := len(late.points); n >= measure.PointsMax || n < measure.PointsMax/3 {
		t.Errorf("%d points", n)
	}
	for _, name := range []string{"at", "handshake_p99", "open", "connects"} {
		if a, b := s.column(name), late.column(name); !slices.Equal(a, b) {
			t.Errorf("%s: who was there all the time has %d points, who came late %d", name, len(a), len(b))
		}
	}
	if c := late.column("connects"); slices.Min(c) != 100 || slices.Max(c) != 100 {
		t.Errorf("connects a second from %v to %v", slices.Min(c), slices.Max(c))
	}
}

// Who does not read what it is sent must not hold the run, nor its end.
func TestAViewerThatReadsNothingHoldsNobody(t *testing.T) {
	p := start(t, web.Options{})
	conn, err := testkit.DeafDialer().Dial("tcp", strings.Trim(strings.TrimPrefix(p.URL(), "http://"), "/"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
	if _, err := io.ReadFull(conn, make([]byte, 12)); err != nil { // the beginning of the answer
		t.Fatal(err)
	}
	p.Phase("hold")
	for second := range 3000 {
		s := snapshot(second)
		for i := range 50 {
			s.Errors = append(s.Errors, measure.Found{Error: measure.Error{Text: strings.Repeat("x", 300)}, Count: i})
		}
		p.Snapshot(s)
	}
	s := watch(t, p)
	s.news()
	if s.status.Seconds != 2999 || len(s.points) != 2999 {
		t.Errorf("another viewer sees %v s, %d points", s.status.Seconds, len(s.points))
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
}

func TestSoManyMayWatchAndNoMore(t *testing.T) {
	p := start(t, web.Options{})
	const most = 32
	for range most {
		watch(t, p).news()
	}
	if code, body := get(t, p, "events"); code != http.StatusServiceUnavailable || !strings.Contains(body, "watching already") {
		t.Errorf("one more: %d %s", code, body)
	}
	if code, _ := get(t, p, "snapshot.json"); code != 200 {
		t.Errorf("the snapshot: %d", code)
	}
}

func TestViewersLearnThatTheRunHasEnded(t *testing.T) {
	p := start(t, web.Options{})
	s := watch(t, p)
	s.news()
	p.Phase("ramp")
	run(p, 0, 2)
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	s.until(func() bool { return s.status.Ended })
	if s.status.Seconds != 2 || len(s.points) != 2 {
		t.Errorf("the last news: %+v, %d points", s.status, len(s.points))
	}
	if _, err := s.lines.ReadByte(); err != io.EOF {
		t.Errorf("after the last news: %v", err)
	}
	if err := p.Close(); err != nil {
		t.Errorf("closed again: %v", err)
	}
}

func TestARunWithoutAPageGoesOn(t *testing.T) {
	var p *web.Page
	p.Phase("ramp")
	run(p, 0, 1)
	if err := p.Close(); err != nil {
		t.Error(err)
	}
}

// orders is a Control that writes down what it is told.
type orders struct {
	mu  sync.Mutex
	all []string
}

func (o *orders) add(format string, args ...any) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.all = append(o.all, fmt.Sprintf(format, args...))
}

func (o *orders) take() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	all := strings.Join(o.all, " ")
	o.all = nil
	return all
}

func (o *orders) Pause(on bool)     { o.add("pause=%v", on) }
func (o *orders) Stop()             { o.add("stop") }
func (o *orders) SetRate(n float64) { o.add("rate=%v", n) }

// order posts an order and returns the answer's status.
func order(t testing.TB, url, body string, header http.Header, host string) (int, string) {
	t.Helper()
	r, err := http.NewRequest("POST", url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header = header
	r.Host = host
	answer, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, _ := io.ReadAll(answer.Body)
	return answer.StatusCode, string(text)
}

func TestOrdersReachTheRun(t *testing.T) {
	var c orders
	p := start(t, web.Options{Control: &c})
	for _, row := range []struct {
		path, body string
		code       int
		does       string
	}{
		{"pause", `{"paused":true}`, 202, "pause=true"},
		{"pause", `{"paused":false}`, 202, "pause=false"},
		{"rate", `{"per_second":1000.5}`, 202, "rate=1000.5"},
		{"rate", `{"per_second":0}`, 202, "rate=0"},
		{"stop", `{}`, 202, "stop"},
		{"pause", `{}`, 400, ""},
		{"pause", ``, 400, ""},
		{"pause", `{"paused":"yes"}`, 400, ""},
		{"pause", `{"pause":true}`, 400, ""},
		{"rate", `{"per_second":-1}`, 400, ""},
		{"rate", `{"per_second":1e300}`, 400, ""},
		{"rate", `{"per_second":null}`, 400, ""},
		{"rate", `{"per_second":1` + strings.Repeat(" ", 2000) + `}`, 400, ""},
		{"stop", `[]`, 400, ""},
		{"destroy", `{}`, 404, ""},
	} {
		code, text := order(t, p.URL()+"api/"+row.path, row.body, http.Header{"Content-Type": {"application/json"}}, "")
		if does := c.take(); code != row.code || does != row.does {
			t.Errorf("%s %.40s: %d %s, does %q", row.path, row.body, code, text, does)
		}
	}
}

func TestARunWithoutControlTakesNoOrders(t *testing.T) {
	p := start(t, web.Options{})
	if code, text := order(t, p.URL()+"api/stop", "{}", http.Header{"Content-Type": {"application/json"}}, ""); code != http.StatusConflict || !strings.Contains(text, "no orders") {
		t.Errorf("%d %s", code, text)
	}
}

// A page of another site must not stop the run, whether the browser names that site,
// or the site's own name points to this machine (DNS rebinding), or the browser is old
// and says nothing.
func TestPagesOfOtherSitesCannotGiveOrders(t *testing.T) {
	var c orders
	p := start(t, web.Options{Control: &c, Names: []string{"load.test"}})
	own := strings.TrimSuffix(p.URL(), "/")
	json := []string{"application/json"}
	for _, row := range []struct {
		why    string
		header http.Header
		host   string
		code   int
	}{
		{"curl", http.Header{"Content-Type": json}, "", 202},
		{"the page", http.Header{"Content-Type": {"application/json; charset=utf-8"}, "Origin": {own}, "Sec-Fetch-Site": {"same-origin"}}, "", 202},
		{"a name that was given", http.Header{"Content-Type": json}, "load.test:8091", 202},
		{"another site", http.Header{"Content-Type": json, "Origin": {"http://evil.test"}, "Sec-Fetch-Site": {"cross-site"}}, "", 403},
		{"another port", http.Header{"Content-Type": json, "Origin": {"http://127.0.0.1:1"}, "Sec-Fetch-Site": {"same-site"}}, "", 403},
		{"another site in an old browser", http.Header{"Content-Type": json, "Origin": {"http://evil.test"}}, "", 403},
		{"a form in a very old one", http.Header{"Content-Type": {"text/plain"}}, "", 415},
		{"a form without a type", http.Header{}, "", 415},
		{"a name that points here", http.Header{"Content-Type": json, "Origin": {"http://evil.test"}, "Sec-Fetch-Site": {"same-origin"}}, "evil.test", 403},
	} {
		code, text := order(t, p.URL()+"api/stop", "{}", row.header, row.host)
		if does := c.take(); code != row.code || (does == "stop") != (row.code == 202) {
			t.Errorf("%s: %d %s, does %q", row.why, code, text, does)
		}
	}
	for _, path := range []string{"", "events", "snapshot.json", "page.js"} {
		r, _ := http.NewRequest("GET", p.URL()+path, nil)
		r.Header.Set("Sec-Fetch-Site", "cross-site")
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		answer.Body.Close()
		if answer.StatusCode != http.StatusForbidden || !strings.Contains(answer.Header.Get("Content-Security-Policy"), "default-src 'none'") {
			t.Errorf("another site reads %q: %s", path, answer.Status)
		}
	}
}

func TestWithATokenNobodyLooksWithoutIt(t *testing.T) {
	const token = "correct-horse-battery-staple"
	var c orders
	p := start(t, web.Options{Control: &c, Token: token})
	for _, path := range []string{"", "events", "snapshot.json", "metrics", "page.js"} {
		if code, _ := get(t, p, path); code != http.StatusUnauthorized {
			t.Errorf("%q: %d", path, code)
		}
	}
	header := http.Header{"Content-Type": {"application/json"}}
	if code, _ := order(t, p.URL()+"api/stop", "{}", header, ""); code != http.StatusUnauthorized {
		t.Errorf("stop: %d", code)
	}
	header.Set("Authorization", "Bearer "+token)
	if code, _ := order(t, p.URL()+"api/stop", "{}", header, ""); code != http.StatusAccepted || c.take() != "stop" {
		t.Errorf("stop with the token: %d", code)
	}
}

func TestAddressesThatCannotBeAreExplained(t *testing.T) {
	taken := start(t, web.Options{})
	addr := strings.Trim(strings.TrimPrefix(taken.URL(), "http://"), "/")
	for _, row := range []struct {
		addr, says string
		is         error
	}{
		{addr, "another program has this port", syscall.EADDRINUSE},
		{"0.0.0.0:0", "give the page a token", nil},
		{"8091", "an address is host:port, such as 127.0.0.1:8091", nil},
		{"127.0.0.1:99999", "an address is host:port", nil},
	} {
		p, err := web.Listen(row.addr, web.Options{})
		if err == nil {
			p.Close()
		}
		if err == nil || !strings.Contains(err.Error(), row.says) || row.is != nil && !errors.Is(err, row.is) {
			t.Errorf("%s: %v", row.addr, err)
		}
	}
	p, err := web.Listen("0.0.0.0:0", web.Options{Token: "correct-horse-battery-staple"})
	if err != nil {
		t.Fatal(err)
	}
	p.Close()
}

func TestPrometheusSeesEveryCounterAndTime(t *testing.T) {
	p := start(t, web.Options{})
	p.Phase("ramp")
	run(p, 0, 10)
	_, body := get(t, p, "metrics")
	series := map[string]float64{}
	for line := range strings.Lines(body) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), " "); ok && name != "#" {
			series[name], _ = strconv.ParseFloat(value, 64)
		}
	}
	for name, want := range map[string]float64{
		"lull_load_users": 10_000, "lull_load_connections_open": 1000, "lull_load_paused": 0, "lull_load_cpu_ratio": 0.25,
		"lull_load_connected_total": 1000, "lull_load_handshake_seconds_count": 11,
		`lull_load_handshake_seconds_bucket{le="0.000512"}`: 0, `lull_load_handshake_seconds_bucket{le="0.004096"}`: 4,
		`lull_load_handshake_seconds_bucket{le="67.108864"}`: 11, `lull_load_handshake_seconds_bucket{le="+Inf"}`: 11,
		"lull_load_echo_seconds_count": 0,
	} {
		if got, ok := series[name]; !ok || got != want {
			t.Errorf("%s is %v (there: %v), want %v", name, got, ok, want)
		}
	}
	if sum := series["lull_load_handshake_seconds_sum"]; sum < 0.065 || sum > 0.067 { // 1 to 11 ms
		t.Errorf("the sum of handshakes is %v", sum)
	}
	for c := range measure.Counters {
		if _, ok := series["lull_load_"+c.String()+"_total"]; !ok {
			t.Errorf("there is no metric of %s", c)
		}
	}
	for k := range measure.Kinds {
		if _, ok := series["lull_load_"+k.String()+"_seconds_count"]; !ok {
			t.Errorf("there is no metric of %s", k)
		}
	}
}

func TestMetricsPassPrometheusLint(t *testing.T) {
	_, body := get(t, start(t, web.Options{}), "metrics")
	problems, err := promlint.New(strings.NewReader(body)).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		if strings.HasPrefix(p.Metric, "lull_") {
			t.Errorf("%s: %s", p.Metric, p.Text)
		}
	}
}

// The page is written against what it is sent.
func TestThePageReadsFieldsThatExist(t *testing.T) {
	p := start(t, web.Options{})
	p.Phase("ramp")
	run(p, 0, 2)
	script, err := os.ReadFile("page/page.js")
	if err != nil {
		t.Fatal(err)
	}
	var fields map[string]any
	_, body := get(t, p, "snapshot.json")
	if err := json.Unmarshal([]byte(body), &fields); err != nil {
		t.Fatal(err)
	}
	read := regexp.MustCompile(`\bs\.([a-z0-9_]+)\b[^(]`).FindAllSubmatch(script, -1)
	for _, m := range read {
		if _, ok := fields[string(m[1])]; !ok {
			t.Errorf("the page reads s.%s, which is not in the snapshot", m[1])
		}
	}
	s := watch(t, p)
	s.news()
	named := regexp.MustCompile(`column: "([a-z_]+)"`).FindAllSubmatch(script, -1)
	kinds := regexp.MustCompile(`\btimes\("([a-z]+)"`).FindAllSubmatch(script, -1)
	for _, m := range named {
		if !slices.Contains(s.columns, string(m[1])) {
			t.Errorf("the page draws %s, which is no column", m[1])
		}
	}
	for k := range measure.Kinds {
		if !slices.ContainsFunc(kinds, func(m [][]byte) bool { return string(m[1]) == k.String() }) {
			t.Errorf("the page does not draw %s", k)
		}
	}
	if len(read) < 15 || len(named) < 10 || len(kinds) != int(measure.Kinds) {
		t.Errorf("found only %d fields, %d columns, %d kinds", len(read), len(named), len(kinds))
	}
}
