package hooks_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/seed-134acfd0/lull/server"
	"github.com/seed-134acfd0/lull/server/hooks"
)

// restart starts a backend again at an address where one was before.
func restart(t *testing.T, a *app, address string) {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	a.Server = httptest.NewUnstartedServer(a)
	a.Server.Listener.Close()
	a.Server.Listener = l
	a.Start()
}

// While the backend is down, nobody is closed, newcomers are told to come back, and messages
// wait, more of them than the inboxes hold. Each is handled, in its order, when it is back.
func TestMessagesWaitForABackendThatIsDown(t *testing.T) {
	t.Parallel()
	const each = 200
	a := startApp(t, &app{})
	r := startFor(t, a, hooks.Options{Concurrency: 3, Failures: 2})
	var clients []*client
	for range 20 {
		clients = append(clients, r.open("/"))
	}
	address := a.Listener.Addr().String()
	a.Close()
	var sending sync.WaitGroup
	for _, c := range clients {
		sending.Go(func() {
			for i := range each {
				c.send(strconv.Itoa(i))
			}
		})
	}
	eventually(t, "it is down", func() bool { return r.backend().Down })
	eventually(t, "all wait", func() bool { b := r.backend(); return b.Parked >= 17 && b.Parked+b.Held >= 20 })
	answer := r.refused("/", nil)
	if after, err := strconv.Atoi(answer.Header.Get("Retry-After")); answer.StatusCode != http.StatusServiceUnavailable || err != nil || after < 1 || after > 6 {
		t.Errorf("a newcomer is told %d, %v", answer.StatusCode, answer.Header)
	}
	b := r.backend()
	if b.Cause == "" || b.Since.IsZero() || b.Advice() == "" || len(b.Longest) != 10 || b.ParkedSince == 0 || b.Held > 3+4 {
		t.Errorf("its state is %+v", b)
	}
	if s := r.Server.Stats(); s.Busy != 0 {
		t.Errorf("%d workers wait", s.Busy)
	}
	restart(t, a, address)
	for _, c := range clients {
		for i := range each {
			c.expect(strconv.Itoa(i))
		}
	}
	sending.Wait()
	r.counted("messages_answered", 20*each)
	r.counted("messages_lost", 0)
	if b := r.backend(); b.Down || b.Parked != 0 || b.Held != 0 || b.Counts["trips"] != 1 || b.Advice() != "" {
		t.Errorf("its state is %+v", b)
	}
	r.open("/")
}

// bad is a backend that accepts connections, and answers messages as it is told.
type bad struct {
	net.Listener
	how atomic.Value // a function of a net.Conn, after the request
	n   atomic.Int64 // messages
}

func startBad(t *testing.T) *bad {
	b := &bad{Listener: deaf(t)}
	go func() {
		for {
			c, err := b.Accept()
			if err != nil {
				return
			}
			go b.serve(c)
		}
	}()
	return b
}

func (b *bad) serve(c net.Conn) {
	defer c.Close()
	in := bufio.NewReader(c)
	for {
		r, err := http.ReadRequest(in)
		if err != nil {
			return
		}
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		if r.Header.Get("Lull-Event") == "message" {
			b.n.Add(1)
			if string(body) != "fine" {
				if !b.how.Load().(func(net.Conn) bool)(c) {
					return
				}
				continue
			}
		}
		fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n%s", len(body)*b.says(r), body[:len(body)*b.says(r)])
	}
}

// says is 1 for a message, whose answer has its body.
func (b *bad) says(r *http.Request) int {
	if r.Header.Get("Lull-Event") == "message" {
		return 1
	}
	return 0
}

// Whatever a backend answers, its connection stays open, the message is counted, and the next
// one is handled.
func TestBackendsMayAnswerAnything(t *testing.T) {
	t.Parallel()
	write := func(text string, goOn bool) func(net.Conn) bool {
		return func(c net.Conn) bool { _, err := io.WriteString(c, text); return goOn && err == nil }
	}
	stall := func(c net.Conn) bool { _, _ = io.Copy(io.Discard, c); return false }
	for name, row := range map[string]struct {
		how   func(net.Conn) bool
		count string
	}{
		"stalls":             {stall, "fault_late"},
		"stalls in the head": {func(c net.Conn) bool { return write("HTTP/1.1 200 OK\r\nContent-", true)(c) && stall(c) }, "fault_late"},
		"stalls in the body": {func(c net.Conn) bool {
			return write("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345", true)(c) && stall(c)
		}, "fault_late"},
		"drips":                {drip, "fault_late"},
		"closes":               {write("", false), "fault_cut"},
		"closes in the head":   {write("HTTP/1.1 200 OK\r\nContent-", false), "fault_cut"},
		"closes in the body":   {write("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345", false), "fault_cut"},
		"closes in a chunk":    {write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n123", false), "fault_cut"},
		"garbage":              {write("SSH-2.0-OpenSSH_9.2\r\n\r\n", false), "fault_garbage"},
		"bytes":                {write(strings.Repeat("\x00\xff\r\n", 100)+"\r\n\r\n", false), "fault_garbage"},
		"a wrong length":       {write("HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", false), "fault_garbage"},
		"a wrong chunk":        {write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", false), "fault_garbage"},
		"an endless head":      {write("HTTP/1.1 200 OK\r\n"+strings.Repeat("X: y\r\n", 10_000), false), "fault_garbage"},
		"only interim":         {write(strings.Repeat("HTTP/1.1 102 Processing\r\n\r\n", 20), false), "fault_garbage"},
		"10 MB":                {write("HTTP/1.1 200 OK\r\nContent-Length: 10000000\r\n\r\n"+strings.Repeat("x", 10_000_000), false), "fault_large"},
		"10 MB in chunks":      {write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n989680\r\n"+strings.Repeat("x", 10_000_000), false), "fault_large"},
		"10 MB to the end":     {write("HTTP/1.1 200 OK\r\n\r\n"+strings.Repeat("x", 10_000_000), false), "fault_large"},
		"a bad gateway":        {write("HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n", true), "fault_gateway"},
		"a gateway's time-out": {write("HTTP/1.1 504 Gateway Timeout\r\nContent-Length: 0\r\n\r\n", true), "fault_gateway"},
		"an error":             {write("HTTP/1.1 500 Internal Server Error\r\nContent-Length: 4\r\n\r\noops", true), "messages_refused"},
		"a redirect":           {write("HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n", true), "messages_refused"},
		"text that is none":    {write("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\n\xff\xff", true), "answers_bad"},
		"a wrong topic":        {write("HTTP/1.1 200 OK\r\nLull-Subscribe: user%3abob\r\nContent-Length: 0\r\n\r\n", true), "answers_bad"},
		"a wrong close":        {write("HTTP/1.1 200 OK\r\nLull-Close: soon\r\nContent-Length: 0\r\n\r\n", true), "answers_bad"},
		"early hints, nothing": {write("HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n", true), "messages_answered"},
		"more than asked":      {write("HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", true), "messages_answered"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := startBad(t)
			b.how.Store(row.how)
			r := startHooks(t, hooks.Options{
				Backends: []hooks.Backend{{URL: "http://" + b.Addr().String()}}, Failures: 1000, Timeout: 3 * time.Second,
			}, server.Options{})
			c := r.open("/")
			c.send("do it")
			if row.count != "messages_answered" {
				r.counted(row.count, 1)
			}
			if strings.HasPrefix(row.count, "fault") {
				r.counted("messages_lost", 1)
			}
			c.send("fine")
			c.expect("fine")
			if n := b.n.Load(); n != 2 {
				t.Errorf("the backend saw %d messages", n)
			}
		})
	}
}

// drip sends an answer so slowly that it never ends.
func drip(c net.Conn) bool {
	_, err := io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
	for err == nil {
		time.Sleep(5 * time.Millisecond)
		_, err = c.Write([]byte("x"))
	}
	return false
}

func TestLostMessagesAreSentAgainIfThatIsWanted(t *testing.T) {
	t.Parallel()
	var n atomic.Int64
	a := startApp(t, &app{message: func(w http.ResponseWriter, c call) {
		if n.Add(1)%3 != 0 {
			panic(http.ErrAbortHandler)
		}
		echo(w, c)
	}})
	r := startFor(t, a, hooks.Options{Retries: 2, Failures: 1000})
	c := r.open("/")
	c.send("a", "b", "c")
	c.expect("a", "b", "c")
	r.counted("messages_again", 6)
	r.counted("messages_lost", 0)
	ids := map[string]string{}
	for _, m := range a.told("message") {
		if was, again := ids[m.id]; again && was != m.body {
			t.Errorf("%s is %q and %q", m.id, was, m.body)
		}
		ids[m.id] = m.body
	}
	if len(ids) != 3 {
		t.Errorf("they had %d IDs", len(ids))
	}
}

// 503 says that the backend has not taken a message.
func TestMessagesThatWereNotTakenAreSentAgain(t *testing.T) {
	t.Parallel()
	var n atomic.Int64
	a := startApp(t, &app{message: func(w http.ResponseWriter, c call) {
		if n.Add(1)%2 != 0 {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		echo(w, c)
	}})
	r := startFor(t, a, hooks.Options{Failures: 1000, Concurrency: 2})
	clients := []*client{r.open("/"), r.open("/"), r.open("/"), r.open("/")}
	for _, c := range clients {
		c.send("a", "b", "c")
	}
	for _, c := range clients {
		c.expect("a", "b", "c")
	}
	r.counted("messages_held", 12)
	r.counted("messages_lost", 0)
}

// A connection that the backend has closed while nothing was said costs no message.
func TestConnectionsThatTheBackendHasClosedAreNotUsed(t *testing.T) {
	t.Parallel()
	a := startApp(t, &app{})
	r := startFor(t, a, hooks.Options{Failures: 1})
	c := r.open("/")
	for i := range 30 {
		c.send(strconv.Itoa(i))
		c.expect(strconv.Itoa(i))
		a.CloseClientConnections()
	}
	r.counted("messages_answered", 30)
}

// A backend has as many calls at once as it has workers, whatever happens, and nobody's click
// is lost.
func TestABackendHasNoMoreCallsThanWorkers(t *testing.T) {
	t.Parallel()
	const workers, clients, clicks = 4, 60, 15
	var now, most atomic.Int64
	at := func(next func(http.ResponseWriter, call)) func(http.ResponseWriter, call) {
		return func(w http.ResponseWriter, c call) {
			n := now.Add(1)
			for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
			}
			time.Sleep(time.Millisecond / 5)
			now.Add(-1)
			next(w, c)
		}
	}
	nothing := func(http.ResponseWriter, call) {}
	a := startApp(t, &app{connect: at(nothing), message: at(echo), disconnect: at(nothing)})
	r := startFor(t, a, hooks.Options{Concurrency: workers})
	var all sync.WaitGroup
	for range clients {
		all.Go(func() {
			c := r.open("/")
			c.clicks(clicks)
			c.leave()
		})
	}
	all.Wait()
	r.counted("messages_answered", clients*clicks)
	r.counted("disconnects_told", clients)
	if m := most.Load(); m != workers {
		t.Errorf("%d calls at once", m)
	}
	last := map[string]int{}
	for _, m := range a.told("message") {
		if n, _ := strconv.Atoi(m.body); n != last[m.connection] {
			t.Fatalf("message %d of %s came when %d should", n, m.connection, last[m.connection])
		}
		last[m.connection]++
	}
	if b := r.backend(); b.Parked != 0 || b.Busy != 0 || b.Turns != 0 || b.Ends != 0 {
		t.Errorf("its state is %+v", b)
	}
}

// A backend that does not answer holds up its own connections alone.
func TestABackendThatStallsHoldsUpNoOther(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	stalled := startApp(t, &app{message: func(http.ResponseWriter, call) { <-release }, connect: func(w http.ResponseWriter, c call) {
		if strings.Contains(c.body, `"stall"`) {
			<-release
		}
	}})
	defer close(release)
	good := startApp(t, &app{})
	r := startHooks(t, hooks.Options{Concurrency: 2, Backends: []hooks.Backend{{URL: stalled.URL, Path: "/stalled"}, {URL: good.URL, Path: "/good"}}}, server.Options{})
	var patient []*client
	for range 10 {
		patient = append(patient, r.open("/stalled"))
	}
	for _, c := range patient {
		c.send("a", "b", "c")
	}
	for range 10 {
		go func() {
			if c, _, err := r.dial("/stalled?stall", nil); err == nil {
				c.CloseNow()
			}
		}()
	}
	eventually(t, "it is stalled", func() bool { b := r.Hooks.Stats().Backends[0]; return b.Busy == 2 && b.Parked == 7 && b.Advice() != "" })
	for range 10 {
		c := r.open("/good")
		c.send("a", "b")
		c.expect("a", "b")
	}
}

func TestABackendIsToldOfEndsUntilItListens(t *testing.T) {
	t.Parallel()
	var n atomic.Int64
	a := startApp(t, &app{disconnect: func(w http.ResponseWriter, c call) {
		switch n.Add(1) {
		case 1:
			panic(http.ErrAbortHandler)
		case 2:
			w.WriteHeader(http.StatusServiceUnavailable)
		case 3:
			w.WriteHeader(http.StatusBadGateway)
		}
	}})
	r := startFor(t, a, hooks.Options{Failures: 1000, Concurrency: 1})
	c := r.open("/")
	c.send("last words")
	c.expect("last words")
	c.leave()
	r.counted("disconnects_told", 1)
	r.counted("disconnects_again", 3)
	ends := a.told("disconnect")
	for _, e := range ends {
		if e.id != ends[0].id || e.body != ends[0].body || e.connection != a.told("connect")[0].connection {
			t.Errorf("it was told %+v and %+v", ends[0], e)
		}
	}
}

// What a client says before it leaves is said before the backend is told that it has left,
// also if the backend was down.
func TestEndsComeAfterMessagesThatWereHeld(t *testing.T) {
	t.Parallel()
	a := startApp(t, &app{})
	r := startFor(t, a, hooks.Options{Failures: 1})
	c := r.open("/")
	address := a.Listener.Addr().String()
	a.Close()
	c.send("first")
	eventually(t, "the first is held", func() bool { return r.backend().Held == 1 })
	c.CloseNow()
	eventually(t, "it is gone", func() bool { return r.Server.Stats().Open == 0 })
	restart(t, a, address)
	r.counted("disconnects_told", 1)
	calls := a.told("")
	if last := calls[len(calls)-2:]; last[0].event != "message" || last[1].event != "disconnect" {
		t.Errorf("told of %s and %s", last[0].event, last[1].event)
	}
}

func TestHandshakesAreTriedAgain(t *testing.T) {
	t.Parallel()
	var n atomic.Int64
	a := startApp(t, &app{connect: func(w http.ResponseWriter, c call) {
		if n.Add(1)%3 != 0 {
			panic(http.ErrAbortHandler)
		}
	}})
	r := startFor(t, a, hooks.Options{Failures: 1000})
	r.open("/")
	r.counted("connects_again", 2)
	if c := a.told("connect"); len(c) != 3 || c[0].id != c[2].id {
		t.Errorf("told %v", c)
	}
}

func TestAHandshakeDoesNotWaitForEver(t *testing.T) {
	t.Parallel()
	l := deaf(t)
	r := startHooks(t, hooks.Options{
		Backends: []hooks.Backend{{URL: "http://" + l.Addr().String()}}, ConnectTimeout: 50 * time.Millisecond, Failures: 1000, Concurrency: 1,
	}, server.Options{})
	var all sync.WaitGroup
	for range 3 {
		all.Go(func() {
			if got := r.refused("/", nil); got.StatusCode != http.StatusServiceUnavailable || got.Header.Get("Retry-After") == "" {
				t.Errorf("it is answered %d", got.StatusCode)
			}
		})
	}
	all.Wait()
	r.counted("connects_failed", 3)
}

func TestWhatIsNotToldAtTheEndIsCounted(t *testing.T) {
	t.Parallel()
	a := startApp(t, &app{})
	r := startFor(t, a, hooks.Options{Failures: 1})
	c, other := r.open("/"), r.open("/")
	a.Close()
	c.send("never handled")
	eventually(t, "it is held", func() bool { return r.backend().Held == 1 })
	must(t, r.stop())
	if err := r.Hooks.Close(t.Context()); err == nil {
		t.Error("it says nothing")
	}
	r.counted("messages_lost", 1)
	r.counted("disconnects_lost", 2)
	_ = other
}

func TestAtTheEndABackendIsToldOfAll(t *testing.T) {
	t.Parallel()
	a := startApp(t, &app{})
	r := startFor(t, a, hooks.Options{Concurrency: 2})
	for range 50 {
		c := r.open("/")
		c.CloseRead(t.Context()) // answers the Close frame
	}
	must(t, r.stop())
	must(t, r.Hooks.Close(t.Context()))
	r.counted("disconnects_told", 50)
}
