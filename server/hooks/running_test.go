package hooks_test

import (
	"cmp"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/seed-134acfd0/lull/internal/testkit"
	"github.com/seed-134acfd0/lull/server"
	"github.com/seed-134acfd0/lull/server/hooks"
)

const patience = testkit.Patience

// eventually waits until ok is true.
var eventually = testkit.Eventually

// call is what a backend was told.
type call struct {
	event, connection, user, id string
	body                        string
	request                     *http.Request
}

// app is a backend. It keeps what it was told, and answers as its functions say; by default
// it accepts everything, and answers a message with itself.
type app struct {
	*httptest.Server
	connect, message, messages, disconnect func(http.ResponseWriter, call)

	mu    sync.Mutex
	calls []call // guarded by mu
}

func (a *app) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	h := r.Header
	c := call{h.Get("Lull-Event"), h.Get("Lull-Connection"), h.Get("Lull-User"), h.Get("Lull-Id"), string(body), r}
	a.mu.Lock()
	if c.event != "" {
		a.calls = append(a.calls, c)
	}
	a.mu.Unlock()
	switch {
	case c.event == "connect" && a.connect != nil:
		a.connect(w, c)
	case c.event == "message" && a.message != nil:
		a.message(w, c)
	case c.event == "messages":
		a.messages(w, c)
	case c.event == "disconnect" && a.disconnect != nil:
		a.disconnect(w, c)
	case c.event == "message":
		echo(w, c)
	case c.event == "":
		w.WriteHeader(http.StatusMethodNotAllowed)
	}
}

// echo answers a message with itself.
func echo(w http.ResponseWriter, c call) {
	w.Header().Set("Content-Type", c.request.Header.Get("Content-Type"))
	_, _ = io.WriteString(w, c.body)
}

// told returns the calls of an event, all if it is empty.
func (a *app) told(event string) (calls []call) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, c := range a.calls {
		if event == "" || c.event == event {
			calls = append(calls, c)
		}
	}
	return calls
}

// startApp starts a backend.
func startApp(t testing.TB, a *app) *app {
	t.Helper()
	a.Server = httptest.NewServer(a)
	t.Cleanup(a.Close)
	return a
}

// Close cuts what is under way, so that it need not wait.
func (a *app) Close() {
	a.CloseClientConnections()
	a.Server.Close()
}

// running is a server with hooks, until its test ends.
type running struct {
	*server.Server
	*hooks.Hooks
	t    testing.TB
	stop func() error
}

func startHooks(t testing.TB, o hooks.Options, so server.Options) *running {
	t.Helper()
	o.Log = slog.New(slog.DiscardHandler)
	h, err := hooks.New(o)
	if err != nil {
		t.Fatal(err)
	}
	so.CloseTimeout = cmp.Or(so.CloseTimeout, 100*time.Millisecond)
	so.Log, so.Reactors, so.Workers, so.StallAfter = o.Log, 1, h.Workers(), -1
	s, err := server.Listen([]string{"127.0.0.1:0"}, h.Handler(), so)
	if err != nil {
		t.Fatal(err)
	}
	r := &running{Server: s, Hooks: h, t: t}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = h.Close(ctx) // many tests leave a backend that does not answer
	})
	r.stop = testkit.Run(t, context.Background(), s)
	return r
}

// startFor starts a server for one backend.
func startFor(t testing.TB, a *app, o hooks.Options) *running {
	t.Helper()
	o.Backends = []hooks.Backend{{URL: a.URL + "/lull"}}
	return startHooks(t, o, server.Options{})
}

// backend is the state of the only backend.
func (r *running) backend() hooks.BackendStats { return r.Hooks.Stats().Backends[0] }

// counted waits until a counter of the only backend has reached n, and fails if it passes it.
func (r *running) counted(name string, n int) {
	r.t.Helper()
	if _, known := r.backend().Counts[name]; !known {
		r.t.Fatalf("there is no counter %s", name)
	}
	eventually(r.t, name, func() bool { return r.backend().Counts[name] >= uint64(n) })
	if got := r.backend().Counts[name]; got != uint64(n) {
		r.t.Errorf("%s is %d, not %d", name, got, n)
	}
}

// client is a WebSocket client.
type client struct {
	*websocket.Conn
	t testing.TB
}

// dial tries to open a connection at a path.
func (r *running) dial(path string, o *websocket.DialOptions) (*websocket.Conn, *http.Response, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return websocket.Dial(ctx, "ws://"+r.Addrs()[0].String()+path, o)
}

// open opens a connection.
func (r *running) open(path string) *client {
	r.t.Helper()
	c, _, err := r.dial(path, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { c.CloseNow() })
	return &client{c, r.t}
}

// refused tries to open a connection and returns the answer.
func (r *running) refused(path string, o *websocket.DialOptions) *http.Response {
	r.t.Helper()
	c, answer, err := r.dial(path, o)
	if err == nil {
		c.CloseNow()
		r.t.Fatal("the handshake was accepted")
	}
	if answer == nil {
		r.t.Fatal(err)
	}
	return answer
}

func (c *client) send(texts ...string) {
	c.t.Helper()
	for _, text := range texts {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		err := c.Write(ctx, websocket.MessageText, []byte(text))
		cancel()
		if err != nil {
			c.t.Fatal(err)
		}
	}
}

// expect reads messages.
func (c *client) expect(texts ...string) {
	c.t.Helper()
	for _, want := range texts {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		kind, got, err := c.Read(ctx)
		cancel()
		if err != nil || kind != websocket.MessageText || string(got) != want {
			c.t.Fatalf("got %v %q, %v, want %q", kind, got, err, want)
		}
	}
}

// clicks sends numbers, and expects each to come back, in order.
func (c *client) clicks(n int) {
	c.t.Helper()
	go func() {
		for i := range n {
			if c.Write(context.Background(), websocket.MessageText, []byte(strconv.Itoa(i))) != nil {
				return
			}
		}
	}()
	for i := range n {
		c.expect(strconv.Itoa(i))
	}
}

// ended reads the end.
func (c *client) ended(code websocket.StatusCode) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if _, got, err := c.Read(ctx); websocket.CloseStatus(err) != code {
		c.t.Fatalf("got %q, %v, want the end with %d", got, err, code)
	}
}

func (c *client) leave() {
	c.t.Helper()
	if err := c.Close(websocket.StatusNormalClosure, ""); err != nil {
		c.t.Fatal(err)
	}
}

// welcome accepts a handshake.
func welcome(w http.ResponseWriter, fields map[string]any) {
	b, err := json.Marshal(fields)
	if err != nil {
		panic(err)
	}
	_, _ = w.Write(b)
}

func words(text string) []string { return strings.Fields(text) }

// deaf is a backend that accepts and says nothing.
func deaf(t testing.TB) net.Listener {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}
