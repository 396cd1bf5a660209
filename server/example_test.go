package server_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/gorilla/websocket"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/server"
)

// A chat sends each message to all connections.
func Example() {
	chat, err := server.Listen([]string{"127.0.0.1:0"}, server.Handler{
		Message: func(c server.Conn, op frame.Op, data []byte) {
			c.Broadcast(op, data)
		},
	}, server.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	go chat.Run(ctx)

	alice, bob := join(chat), join(chat)
	alice.WriteMessage(websocket.TextMessage, []byte("Is anybody here?"))
	fmt.Println("bob hears:", hear(bob))
	bob.WriteMessage(websocket.TextMessage, []byte("Just me."))
	fmt.Println("alice hears:", hear(alice))
	fmt.Println("alice hears:", hear(alice))
	// Output:
	// bob hears: Is anybody here?
	// alice hears: Is anybody here?
	// alice hears: Just me.
}

// An echo server that ends when its context ends. It sends Close frames to all peers,
// and Run returns when they have answered.
func ExampleServer_Run() {
	left := make(chan frame.Code, 1)
	echo, err := server.Listen([]string{"127.0.0.1:0"}, server.Handler{
		Message: func(c server.Conn, op frame.Op, data []byte) {
			c.Send(op, data)
		},
		Close: func(_ server.Conn, code frame.Code, _ error) { left <- code },
	}, server.Options{Reactors: 1})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- echo.Run(ctx) }()

	alice := join(echo)
	alice.WriteMessage(websocket.TextMessage, []byte("hello"))
	fmt.Println("alice hears:", hear(alice))
	stop()
	fmt.Println("alice hears:", hear(alice))
	fmt.Println("the peer has closed with", <-left)
	fmt.Println("Run returns", <-ended)
	// Output:
	// alice hears: hello
	// alice hears: websocket: close 1001 (going away): the server is shutting down
	// the peer has closed with 1001
	// Run returns <nil>
}

// Upgrade decides about a connection before it opens. It gives the connection a tag,
// which needs no memory of its own, and from which the other functions know the user.
func ExampleHandler_upgrade() {
	users := map[string]uint64{"Bearer a1": 1, "Bearer b2": 2}
	names := map[uint64]string{1: "alice", 2: "bob"}
	members, err := server.Listen([]string{"127.0.0.1:0"}, server.Handler{
		Upgrade: func(r *server.Request) error {
			user, known := users[r.Header("Authorization")]
			if !known {
				return &server.Reject{Status: http.StatusUnauthorized, Reason: "members only"}
			}
			r.Tag = user
			return nil
		},
		Open: func(c server.Conn) {
			c.Send(frame.Text, []byte("welcome, "+names[c.Tag()]))
		},
	}, server.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	go members.Run(ctx)

	url := "ws://" + members.Addrs()[0].String()
	_, response, _ := websocket.DefaultDialer.Dial(url, http.Header{"Authorization": {"Bearer ?"}})
	fmt.Println(response.Status)
	bob, _, _ := websocket.DefaultDialer.Dial(url, http.Header{"Authorization": {"Bearer b2"}})
	fmt.Println(hear(bob))
	// Output:
	// 401 Unauthorized
	// welcome, bob
}

// Any goroutine may broadcast. A Conn can be kept, compared and used as a key. When its
// connection has ended, it names nothing.
func ExampleServer_Broadcast() {
	opened := make(chan server.Conn, 2)
	news, err := server.Listen([]string{"127.0.0.1:0"}, server.Handler{
		Open: func(c server.Conn) { opened <- c },
	}, server.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	go news.Run(ctx)

	alice := join(news)
	first := <-opened
	bob := join(news)
	<-opened

	news.Broadcast(frame.Text, []byte("it is noon"))
	first.Send(frame.Text, []byte("only you know: it is late"))
	switch err := news.Broadcast(frame.Text, []byte("it is evening")); {
	case errors.Is(err, server.ErrBackpressure):
		fmt.Println("too much to say at once")
	case errors.Is(err, server.ErrClosed):
		fmt.Println("nobody is there any more")
	}
	fmt.Println("alice hears:", hear(alice), "/", hear(alice), "/", hear(alice))
	fmt.Println("bob hears:", hear(bob), "/", hear(bob))
	// Output:
	// alice hears: it is noon / only you know: it is late / it is evening
	// bob hears: it is noon / it is evening
}

// join connects a client.
func join(s *server.Server) *websocket.Conn {
	c, _, err := websocket.DefaultDialer.Dial("ws://"+s.Addrs()[0].String(), nil)
	if err != nil {
		panic(err)
	}
	return c
}

// hear returns the next message, or why there is none.
func hear(c *websocket.Conn) string {
	_, data, err := c.ReadMessage()
	if err != nil {
		return err.Error()
	}
	return string(data)
}

// A slow peer needs only the newest price, so prices are conflated. It must not miss an
// order, so its connection is closed if an order finds no room.
func ExampleConn_SendAs() {
	const gold, silver = 1, 2
	market, err := server.Listen([]string{"127.0.0.1:0"}, server.Handler{
		Open: func(c server.Conn) {
			c.SendAs(server.Kind{ID: gold, Policy: server.OutboxLatest}, frame.Text, []byte("gold 2,650"))
			c.SendAs(server.Kind{ID: silver, Policy: server.OutboxLatest}, frame.Text, []byte("silver 31"))
			c.SendAs(server.Kind{Policy: server.OutboxClose}, frame.Text, []byte("your order was filled"))
		},
		Backpressure: func(c server.Conn, high bool) {
			fmt.Println(c.ID(), "does not keep up:", high)
		},
	}, server.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	go market.Run(ctx)

	alice := join(market)
	for range 3 {
		fmt.Println("alice hears:", hear(alice))
	}
	// Output:
	// alice hears: gold 2,650
	// alice hears: silver 31
	// alice hears: your order was filled
}
