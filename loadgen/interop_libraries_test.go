//go:build interop

package loadgen_test

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"

	coder "github.com/coder/websocket"
	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"
	gorilla "github.com/gorilla/websocket"
	"github.com/lesismal/nbio/nbhttp"
	nbio "github.com/lesismal/nbio/nbhttp/websocket"
	"github.com/lxzan/gws"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/server"
)

// interopRoom is what all servers do: whoever says "join" is in the room. It is answered
// "joined", and what it says goes to all in the room. To everybody else an answer is
// an echo.
type interopRoom struct {
	mu      sync.Mutex
	members map[interopSpeaker]bool
}

// interopSpeaker is a connection of some library. Its errors are left to the library,
// which ends the connection.
type interopSpeaker interface {
	say(op frame.Op, data []byte)
}

func (r *interopRoom) hear(s interopSpeaker, op frame.Op, data []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case op == frame.Text && string(data) == "join":
		if r.members == nil {
			r.members = map[interopSpeaker]bool{}
		}
		r.members[s] = true
		s.say(frame.Text, []byte("joined"))
	case r.members[s]:
		for member := range r.members {
			member.say(op, data)
		}
	default:
		s.say(op, data)
	}
}

func (r *interopRoom) leave(s interopSpeaker) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.members, s)
}

// interopHTTP serves a handler until the test's end.
func interopHTTP(t *testing.T, h http.Handler) (url string) {
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return "ws" + s.URL[len("http"):] + "/"
}

// lull

type lullSpeaker struct{ server.Conn }

func (s lullSpeaker) say(op frame.Op, data []byte) { _ = s.Send(op, data) }

func interopLull(room *interopRoom) server.Handler {
	return server.Handler{
		Message: func(c server.Conn, op frame.Op, data []byte) { room.hear(lullSpeaker{c}, op, data) },
		Close:   func(c server.Conn, _ frame.Code, _ error) { room.leave(lullSpeaker{c}) },
	}
}

// github.com/gorilla/websocket

type gorillaSpeaker struct {
	mu sync.Mutex // a connection has one writer at a time
	*gorilla.Conn
}

func (s *gorillaSpeaker) say(op frame.Op, data []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	_ = s.WriteMessage(int(op), data)
}

func interopGorilla(t *testing.T) (url string) {
	room, upgrader := &interopRoom{}, gorilla.Upgrader{EnableCompression: true}
	return interopHTTP(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := upgrader.Upgrade(w, r, nil)
		if err != nil {
			return
		}
		defer c.Close()
		s := &gorillaSpeaker{Conn: c}
		defer room.leave(s)
		for {
			op, data, err := c.ReadMessage()
			if err != nil {
				return
			}
			room.hear(s, frame.Op(op), data)
		}
	}))
}

// github.com/coder/websocket

type coderSpeaker struct{ *coder.Conn }

func (s coderSpeaker) say(op frame.Op, data []byte) {
	_ = s.Write(context.Background(), coder.MessageType(op), data)
}

func interopCoder(t *testing.T) (url string) {
	room, options := &interopRoom{}, &coder.AcceptOptions{CompressionMode: coder.CompressionNoContextTakeover}
	return interopHTTP(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := coder.Accept(w, r, options)
		if err != nil {
			return
		}
		defer c.CloseNow()
		c.SetReadLimit(-1)
		s := coderSpeaker{c}
		defer room.leave(s)
		for {
			op, data, err := c.Read(r.Context())
			if err != nil {
				return
			}
			room.hear(s, frame.Op(op), data)
		}
	}))
}

// github.com/lxzan/gws

type gwsSpeaker struct{ *gws.Conn }

func (s gwsSpeaker) say(op frame.Op, data []byte) { _ = s.WriteMessage(gws.Opcode(op), data) }

type gwsHandler struct {
	gws.BuiltinEventHandler
	room *interopRoom
}

func (h gwsHandler) OnPing(c *gws.Conn, payload []byte) { _ = c.WritePong(payload) }

func (h gwsHandler) OnMessage(c *gws.Conn, m *gws.Message) {
	h.room.hear(gwsSpeaker{c}, frame.Op(m.Opcode), m.Bytes())
	_ = m.Close()
}

func (h gwsHandler) OnClose(c *gws.Conn, _ error) { h.room.leave(gwsSpeaker{c}) }

func interopGWS(t *testing.T) (url string) {
	upgrader := gws.NewUpgrader(gwsHandler{room: &interopRoom{}}, &gws.ServerOption{PermessageDeflate: gws.PermessageDeflate{Enabled: true}})
	return interopHTTP(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if c, err := upgrader.Upgrade(w, r); err == nil {
			go c.ReadLoop()
		}
	}))
}

// github.com/lesismal/nbio

type nbioSpeaker struct{ *nbio.Conn }

func (s nbioSpeaker) say(op frame.Op, data []byte) { _ = s.WriteMessage(nbio.MessageType(op), data) }

func interopNbio(t *testing.T) (url string) {
	room, upgrader := &interopRoom{}, nbio.NewUpgrader()
	upgrader.EnableCompression(true)
	upgrader.OnMessage(func(c *nbio.Conn, op nbio.MessageType, data []byte) { room.hear(nbioSpeaker{c}, frame.Op(op), data) })
	upgrader.OnClose(func(c *nbio.Conn, _ error) { room.leave(nbioSpeaker{c}) })
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	engine := nbhttp.NewEngine(nbhttp.Config{
		Addrs:  []string{l.Addr().String()},
		Listen: func(string, string) (net.Listener, error) { return l, nil },
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = upgrader.Upgrade(w, r, nil) // an error has been answered
		}),
	})
	if err := engine.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(engine.Stop)
	return "ws://" + l.Addr().String() + "/"
}

// github.com/gobwas/ws, with a goroutine for each connection

type gobwasSpeaker struct{ net.Conn }

// A frame is one Write, so that those of several goroutines do not mix.
func (s gobwasSpeaker) say(op frame.Op, data []byte) {
	_, _ = s.Write(ws.MustCompileFrame(ws.NewFrame(ws.OpCode(op), true, data)))
}

func interopGobwas(t *testing.T) (url string) {
	room := &interopRoom{}
	return interopHTTP(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, _, _, err := ws.UpgradeHTTP(r, w)
		if err != nil {
			return
		}
		defer c.Close()
		s := gobwasSpeaker{c}
		defer room.leave(s)
		for {
			data, op, err := wsutil.ReadClientData(c)
			if err != nil {
				return
			}
			room.hear(s, frame.Op(op), data)
		}
	}))
}
