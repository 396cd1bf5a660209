package server_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"

	"github.com/gorilla/websocket"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/server"
)

// A program that has an HTTP server gets WebSockets at one of its paths. Its router
// and its middleware stand in front of them, as in front of any other handler.
func ExampleServer_ServeHTTP() {
	echo := server.Handler{Message: func(c server.Conn, op frame.Op, data []byte) { c.Send(op, data) }}
	sockets, err := server.Listen([]string{"127.0.0.1:0"}, echo, server.Options{})
	if err != nil {
		panic(err)
	}
	go sockets.Run(context.Background())
	mux := http.NewServeMux()
	mux.Handle("GET /socket", sockets)
	site := httptest.NewServer(mux) // or http.ListenAndServe(":8080", mux)

	c, _, err := websocket.DefaultDialer.Dial("ws"+site.URL[len("http"):]+"/socket", nil)
	if err != nil {
		panic(err)
	}
	c.WriteMessage(websocket.TextMessage, []byte("hello"))
	fmt.Println(hear(c))
	// Output: hello
}

// The other way round, a server passes what is no WebSocket handshake to net/http: a
// page, an API, a health check.
func ExampleOptions_http() {
	page := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "the page") })
	echo := server.Handler{Message: func(c server.Conn, op frame.Op, data []byte) { c.Send(op, data) }}
	s, err := server.Listen([]string{"127.0.0.1:0"}, echo, server.Options{HTTP: page})
	if err != nil {
		panic(err)
	}
	go s.Run(context.Background())

	r, err := http.Get("http://" + s.Addrs()[0].String())
	if err != nil {
		panic(err)
	}
	defer r.Body.Close()
	text, _ := io.ReadAll(r.Body)
	fmt.Println(string(text))
	// Output: the page
}
