package server_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/internal/testkit"
	"github.com/seed-134acfd0/lull/server"
	"github.com/seed-134acfd0/lull/server/health"
)

// docs/embedding.md shows parts of this file.

type userKey struct{}

func userOf(session *http.Cookie) string {
	if session == nil {
		return ""
	}
	return map[string]string{"a1": "alice", "b2": "bob"}[session.Value]
}

func page(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "the page") }

func loggedIn(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		cookie, err := r.Cookie("session")
		user := userOf(cookie)
		if err != nil || user == "" {
			http.Error(w, "log in first", http.StatusUnauthorized)
			return
		}
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), userKey{}, user)))
	})
}

func logout(sockets *server.Server, user string) {
	for c := range sockets.Conns() {
		if c.Value() == user {
			c.Close(frame.PolicyViolation, "logged out")
		}
	}
}

// application is a site with a chat.
type application struct {
	http.Handler
	sockets *server.Server
	ended   chan error // gets what Run returns
}

func newApplication(ctx context.Context) (*application, error) {
	chat := server.Handler{
		Upgrade: func(r *server.Request) error {
			r.Value, _ = r.Context().Value(userKey{}).(string)
			return nil
		},
		Message: func(c server.Conn, op frame.Op, data []byte) {
			c.Broadcast(op, fmt.Appendf(nil, "%s: %s", c.Value(), data))
		},
	}
	sockets, err := server.Listen([]string{"127.0.0.1:0"}, chat, server.Options{})
	if err != nil {
		return nil, err
	}
	ended := make(chan error, 1)
	go func() { ended <- sockets.Run(ctx) }()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /", page)
	mux.Handle("GET /chat", loggedIn(sockets))
	return &application{mux, sockets, ended}, nil
}

func TestAnApplicationEmbedsAChat(t *testing.T) {
	app, err := newApplication(t.Context())
	must(err)
	t.Cleanup(func() { must(<-app.ended) })
	site := httptest.NewServer(app)
	defer site.Close()
	enter := func(session string) (*websocket.Conn, *http.Response, error) {
		return websocket.DefaultDialer.Dial("ws"+site.URL[len("http"):]+"/chat", http.Header{"Cookie": {"session=" + session}, "Origin": {site.URL}})
	}
	if _, r, err := enter("c3"); err == nil || r.StatusCode != http.StatusUnauthorized {
		t.Errorf("a stranger gets in: %v", err)
	}
	alice, _, err := enter("a1")
	must(err)
	defer alice.Close()
	bob, _, err := enter("b2")
	must(err)
	defer bob.Close()
	must(alice.WriteMessage(websocket.TextMessage, []byte("hello")))
	if text := hear(bob); text != "alice: hello" {
		t.Errorf("bob hears %q", text)
	}
	logout(app.sockets, "bob")
	if end := hear(bob); !strings.Contains(end, "logged out") {
		t.Errorf("bob hears %q", end)
	}
	if text := hear(alice); text != "alice: hello" {
		t.Errorf("alice hears %q", text)
	}
}

func TestAnApplicationBehindABalancerKnowsItsClients(t *testing.T) {
	options := server.Options{
		Trust:        []string{"10.0.0.0/8"}, // where the balancer's addresses are
		ClientHeader: "X-Forwarded-For",
		PingAfter:    25 * time.Second,
		IdleTimeout:  time.Minute,
	}
	options.Trust = append(options.Trust, "127.0.0.1") // the test's
	opened := make(chan netip.Addr, 1)
	s := start(t, server.Handler{Open: func(c server.Conn) { opened <- c.RemoteAddr().Addr() }}, options)
	c := s.dial()
	c.write(with("X-Forwarded-For: 203.0.113.7"))
	c.accepted()
	if client := <-opened; client.String() != "203.0.113.7" {
		t.Errorf("the client is %v", client)
	}
}

// Each connection is in the room that its request names. What it says goes to everybody there.
var rooms = server.Handler{
	Upgrade: func(r *server.Request) error {
		room := r.Query().Get("room")
		if !server.ValidTopic(room) {
			return &server.Reject{Status: http.StatusBadRequest, Reason: "which room?"}
		}
		r.Value, r.Topics = room, []string{room}
		return nil
	},
	Message: func(c server.Conn, op frame.Op, data []byte) { c.Publish(c.Value().(string), op, data) },
}

func announce(sockets *server.Server, room, text string) error {
	return sockets.Publish(room, frame.Text, []byte(text))
}

func TestAnApplicationHasRooms(t *testing.T) {
	sockets, err := server.Listen([]string{"127.0.0.1:0"}, rooms, server.Options{})
	must(err)
	testkit.Run(t, t.Context(), sockets)
	enter := func(room string) *websocket.Conn {
		c, _, err := websocket.DefaultDialer.Dial(fmt.Sprintf("ws://%s/?room=%s", sockets.Addrs()[0], room), nil)
		must(err)
		t.Cleanup(func() { c.Close() })
		return c
	}
	red, blue := enter("red"), enter("blue")
	other := enter("red")
	if _, _, err := websocket.DefaultDialer.Dial(fmt.Sprintf("ws://%s/", sockets.Addrs()[0]), nil); err == nil {
		t.Error("somebody is in no room")
	}
	must(blue.WriteMessage(websocket.TextMessage, []byte("blue?")))
	if text := hear(blue); text != "blue?" {
		t.Errorf("blue hears %q", text)
	}
	must(other.WriteMessage(websocket.TextMessage, []byte("red!")))
	if text := hear(red); text != "red!" {
		t.Errorf("red hears %q", text)
	}
	must(announce(sockets, "blue", "time to go"))
	if text := hear(blue); text != "time to go" {
		t.Errorf("blue hears %q", text)
	}
}

func serve(sockets *server.Server, stop <-chan os.Signal) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	probes := &http.Server{Addr: "127.0.0.1:0", Handler: health.Handler(ctx, sockets)}
	go probes.ListenAndServe()
	defer probes.Close()
	go func() {
		<-stop
		sockets.Drain() // as Options.DrainDelay and DrainTime say
		<-stop
		cancel() // all that are left, at once
	}()
	return sockets.Run(ctx)
}

func TestAnApplicationLeavesGently(t *testing.T) {
	opened := make(chan struct{}, 1)
	sockets, err := server.Listen([]string{"127.0.0.1:0"}, server.Handler{Open: func(server.Conn) { opened <- struct{}{} }}, server.Options{DrainTime: time.Hour})
	must(err)
	stop, ended := make(chan os.Signal), make(chan error, 1)
	go func() { ended <- serve(sockets, stop) }()
	c := join(sockets)
	defer c.Close()
	<-opened
	stop <- os.Interrupt
	eventually(t, "it drains", func() bool { return sockets.Stats().Draining })
	stop <- os.Interrupt
	if end := hear(c); !strings.Contains(end, "retry=") {
		t.Errorf("the client hears %q", end)
	}
	must(<-ended)
}

// Every piece of Go on the page is in this file, and the README's rooms.
func TestThePageAboutEmbeddingShowsThisFile(t *testing.T) {
	read := func(path string) string {
		text, err := os.ReadFile(path)
		must(err)
		var lines []string
		for line := range strings.Lines(string(text)) {
			lines = append(lines, strings.TrimSpace(line))
		}
		return strings.Join(lines, "\n")
	}
	piecesOf := func(path string) []string { return strings.Split(read(path), "\n```go\n")[1:] }
	code, pieces := read("embedding_test.go"), piecesOf("../docs/embedding.md")
	if len(pieces) < 5 {
		t.Errorf("there are %d pieces", len(pieces))
	}
	for _, piece := range append(pieces, piecesOf("../README.md")[1:]...) { // its first is a program
		piece, _, _ = strings.Cut(piece, "\n```\n")
		if !strings.Contains(code, "\n"+piece+"\n") {
			t.Errorf("this is not here:\n%s", piece)
		}
	}
}
