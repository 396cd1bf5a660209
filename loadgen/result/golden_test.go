package result

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/seed-134acfd0/lull/loadgen/measure"
)

var update = flag.Bool("update", false, "write testdata")

// golden compares what is written with a file in testdata.
func golden(t *testing.T, name string, write func(io.Writer) error) {
	t.Helper()
	var got bytes.Buffer
	if err := write(&got); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Bytes(), want) {
		t.Errorf("%s is not what go test -update makes of it:\n%s\nwant:\n%s", path, &got, want)
	}
}

// nobody is a run against a server that does not want what it is sent.
func nobody() *Result {
	l := newLoad(Run{Conns: 10, URLs: []string{"ws://127.0.0.1:8080/"}})
	l.Phase("ramp")
	l.times(measure.Handshake, 10, time.Millisecond)
	l.now.Errors = []measure.Found{{Error: measure.Error{Counter: "closed", Phase: "ramp", Text: "closed by peer: 1003 bad json"}, Count: 10}}
	l.pass(time.Second, map[measure.Counter]uint64{measure.Connected: 10, measure.Closed: 10})
	return l.Result(End{Early: "nobody is left"})
}

// chat is a load that expected an echo, on a server that sends each message to
// everybody.
func chat() *Result {
	l := newLoad(Run{Conns: 50})
	l.Phase("ramp")
	l.pass(time.Second, map[measure.Counter]uint64{measure.Connected: 50})
	l.Phase("talk")
	l.Part()
	l.times(measure.Echo, 1000, time.Millisecond)
	l.pass(time.Second, map[measure.Counter]uint64{measure.Asked: 1000, measure.Echoes: 1000, measure.Strayed: 49_000})
	l.Talk(Talk{Active: 10, Messages: 1000, Took: time.Second})
	return l.Result(End{})
}

// echo is a load that expected broadcasts, on a server that sends each message back
// to its sender.
func echo(received int) *Result {
	l := newLoad(Run{Conns: 50})
	l.Phase("ramp")
	l.pass(time.Second, map[measure.Counter]uint64{measure.Connected: 50})
	l.Phase("publish")
	for range 2 {
		l.pass(time.Second, map[measure.Counter]uint64{measure.Sent: 1, measure.Received: uint64(received)})
		l.Burst(Burst{Messages: 1, Expected: 50, Received: received, Took: time.Second})
	}
	return l.Result(End{})
}

// lively is a run of a minute and a half in which much happens. slower is the factor by
// which its times are longer.
func lively(seed uint64, slower float64) *Result {
	random := rand.New(rand.NewPCG(seed, 1))
	l := newLoad(Run{Name: "lively", Conns: 30_000, URLs: []string{"ws://127.0.0.1:8080/", "ws://127.0.0.1:8081/"}, Workers: 2, Sources: 1, Size: 32})
	spread := func(k measure.Kind, n int, mean time.Duration) {
		for range n {
			l.now.Times.Record(k, time.Duration(slower*float64(mean)*(0.3+random.ExpFloat64())))
		}
	}
	l.Phase("ramp")
	for range 30 {
		l.now.CPU, l.now.Busy = 0.3+0.1*random.Float64(), 0.7+0.1*random.Float64()
		spread(measure.Handshake, 1000, 2*time.Millisecond)
		spread(measure.Lag, 100, 20*time.Microsecond)
		l.pass(time.Second, map[measure.Counter]uint64{measure.Connected: 1000})
	}
	l.Phase("hold")
	for range 30 {
		l.now.CPU, l.now.Busy = 0.01, 0.02
		l.pass(time.Second, nil)
	}
	l.Phase("talk")
	l.Part()
	for range 30 {
		l.now.CPU, l.now.Busy = 0.4, 0.8
		n := 900 + random.IntN(200)
		spread(measure.Echo, n, 300*time.Microsecond)
		spread(measure.Lag, n, 20*time.Microsecond)
		l.pass(time.Second, map[measure.Counter]uint64{measure.Asked: uint64(n), measure.Echoes: uint64(n)})
	}
	l.Talk(Talk{Active: 1000, Messages: 30_000, Took: 30 * time.Second})
	return l.Result(End{})
}

// textChat is the same for messages that are text: then nobody knows whose they are.
func textChat(greeted bool) *Result {
	l := newLoad(Run{Conns: 50})
	l.Phase("ramp")
	l.pass(time.Second, map[measure.Counter]uint64{measure.Connected: 50, measure.Foreign: 50})
	if !greeted {
		l.pass(time.Second, map[measure.Counter]uint64{measure.Asked: 100, measure.Echoes: 100, measure.Foreign: 4800, measure.Mismatched: 100})
	} else {
		l.pass(time.Second, map[measure.Counter]uint64{measure.Asked: 100, measure.Echoes: 100})
	}
	return l.Result(End{})
}

// refused is a load against a server that answers all handshakes with this.
func refused(status string) *Result {
	l := newLoad(Run{Conns: 10})
	l.now.Errors = []measure.Found{{Error: measure.Error{Text: fmt.Sprintf("frame: the server answered %q in place of 101", status)}, Count: 10}}
	l.pass(time.Second, map[measure.Counter]uint64{measure.Rejected: 10})
	return l.Result(End{})
}

// disliked is a load against a server that closes connections on what they send.
func disliked() *Result {
	l := newLoad(Run{Conns: 10})
	l.pass(time.Second, map[measure.Counter]uint64{measure.Connected: 10, measure.Asked: 10, measure.Closed: 10, measure.Abandoned: 10})
	return l.Result(End{})
}

func TestAMistakenServerIsRecognised(t *testing.T) {
	parrot := newLoad(Run{Conns: 1})
	parrot.pass(time.Second, map[measure.Counter]uint64{measure.Connected: 1, measure.Asked: 10, measure.Mismatched: 10})
	for why, of := range map[string]struct {
		r    *Result
		want string
	}{
		"a chat":             {chat(), "a chat's"},
		"a chat of text":     {textChat(false), "a chat's"},
		"greetings":          {textChat(true), ""},
		"an echo":            {echo(1), "an echo's"},
		"silence":            {echo(0), "Nobody received"},
		"a broadcast":        {echo(50), ""},
		"most of one":        {echo(48), ""},
		"answers of its own": {parrot.Result(End{}), "other messages than it was sent"},
		"a stranger":         {refused("HTTP/1.1 401 Unauthorized"), "--cookie"},
		"a wrong path":       {refused("HTTP/1.1 404 Not Found"), "path"},
		"a new status":       {refused("HTTP/1.1 299 New"), ""},
		"other messages":     {disliked(), "--message"},
		"nothing":            {&Result{}, ""},
	} {
		if got := of.r.mistake(); !strings.Contains(got, of.want) || (got == "") != (of.want == "") {
			t.Errorf("%s: %q", why, got)
		}
	}
}

// A server may say anything when it closes a connection, and a terminal obeys some of it.
func TestTheReportHasNothingThatATerminalObeys(t *testing.T) {
	const evil = "\x1b[2J\u009b31m\r\nall is well"
	r := example()
	r.Early, r.Limited, r.Phases[0].Name = evil, []string{evil}, evil
	r.Errors = []measure.Found{{Error: measure.Error{Counter: evil, Phase: evil, Text: evil}, Count: 1}}
	r.Agents = []Agent{{Name: evil, Lost: evil}}
	var b strings.Builder
	if err := r.WriteText(&b); err != nil {
		t.Fatal(err)
	}
	if strings.ContainsAny(b.String(), "\x1b\u009b\r") || strings.Contains(b.String(), "\nall is well") {
		t.Errorf("%q", b.String())
	}
}

func TestTheReportForPeople(t *testing.T) {
	expected := example()
	expected.Interrupted = true
	expected.Expected = expected.Check(thresholds(t, "p99(handshake)<50ms,lost=0,p99(tls)<1us"))
	expected.Agents = []Agent{{Name: "left", Users: 500, Processors: 2, ClockAhead: 1.5, ClockExactTo: 0.25}, {Name: "right", Users: 500, Processors: 4, Lost: "it does not answer"}}
	golden(t, "example.txt", expected.WriteText)
	golden(t, "nothing.txt", newLoad(Run{Conns: 5}).Result(End{}).WriteText)
	golden(t, "nobody.txt", nobody().WriteText)
	golden(t, "chat.txt", chat().WriteText)
	golden(t, "echo.txt", echo(1).WriteText)
	golden(t, "silent.txt", echo(0).WriteText)
}
