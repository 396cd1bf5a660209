package loadgen_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/loadgen"
	"github.com/seed-134acfd0/lull/loadgen/measure"
	"github.com/seed-134acfd0/lull/netpoll"
	"github.com/seed-134acfd0/lull/server"
)

// roomServer has each connection in the room that is at its path.
func roomServer(roomOf func(path string) string) server.Handler {
	return server.Handler{
		Upgrade: func(r *server.Request) error {
			room := roomOf(r.Path())
			r.Value, r.Topics = room, []string{room}
			return nil
		},
		Message: func(c server.Conn, op frame.Op, data []byte) { _ = c.Publish(c.Value().(string), op, data) },
	}
}

func itself(path string) string { return path }

// A message is published in each room, and reaches those in it, once and in order.
func TestEachRoomGetsItsMessages(t *testing.T) {
	const conns, messages = 200, 12
	for _, tables := range []netpoll.Tables{netpoll.Shared, netpoll.Private} {
		for _, rooms := range []int{1, 7, 200, 300} {
			for _, workers := range []int{1, 3} {
				t.Run(fmt.Sprintf("%s, %d rooms, %d workers", tables, rooms, workers), func(t *testing.T) {
					res := mustRun(t, loadgen.Config{
						URLs: []string{serve(t, roomServer(itself)) + "room/{{.Room}}"}, Conns: conns, Rooms: rooms,
						Tables: tables, Workers: workers, Broadcasts: messages, Burst: 5,
					})
					if got, sent := count(res, measure.Received), count(res, measure.Sent); got != conns*messages || sent != min(rooms, conns)*messages {
						t.Errorf("%d received, %d sent; counts %v", got, sent, res.Counts)
					}
					for i, b := range res.Broadcasts {
						if want := conns * min(5, messages-5*i); b.Expected != want || b.Received != want {
							t.Errorf("burst %d: %d of %d received, want %d", i, b.Received, b.Expected, want)
						}
					}
				})
			}
		}
	}
}

// Who gets the messages of other rooms too is noticed.
func TestMessagesOfOtherRoomsAreStrays(t *testing.T) {
	const conns, rooms, messages = 40, 8, 3
	for name, of := range map[string]struct {
		handler           server.Handler
		received, strayed int
	}{
		"all are in one room": {roomServer(func(string) string { return "all" }), conns * messages, conns * (rooms - 1) * messages},
		"two rooms are one":   {roomServer(func(path string) string { return strings.Replace(path, "7", "3", 1) }), conns * messages, 2 * conns / rooms * messages},
	} {
		t.Run(name, func(t *testing.T) {
			res, err := loadgen.Run(t.Context(), loadgen.Config{
				URLs: []string{serve(t, of.handler) + "room/{{.Room}}"}, Conns: conns, Rooms: rooms, Broadcasts: messages,
			})
			if err != nil {
				t.Fatal(err)
			}
			if got, strayed := count(res, measure.Received), count(res, measure.Strayed); res.OK() || got != of.received || strayed != of.strayed {
				t.Errorf("OK is %v, %d received, %d strayed; counts %v", res.OK(), got, strayed, res.Counts)
			}
		})
	}
}
