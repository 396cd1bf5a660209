package server_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/server"
)

// delivering is a handler that passes messages on. The test is done with them.
func delivering() (server.Handler, <-chan server.Delivery) {
	deliveries := make(chan server.Delivery, 1000)
	return server.Handler{Deliver: func(d server.Delivery) { deliveries <- d }}, deliveries
}

// answer answers a message with itself, and is done with it.
func answer(d server.Delivery) {
	must(d.Conn.Send(d.Op, d.Data))
	d.Done()
}

// A connection's next message comes when it is done with the one before, and so does the
// answer to its Close frame. Others do not wait, and nobody takes a worker.
func TestAMessageIsInHandUntilItIsDone(t *testing.T) {
	onBothTables(t, func(t *testing.T, o server.Options) {
		o.Mode, o.Workers = server.Workers, 1
		h, deliveries := delivering()
		onClose, told := endings()
		h.Close = onClose
		s := start(t, h, o)
		c, other := s.open(), s.open()
		c.write(message(frame.Text, "one") + message(frame.Binary, "two") + closing(4001, ""))
		one := <-deliveries
		for _, text := range []string{"a", "b"} {
			other.send(frame.Text, text)
			answer(<-deliveries)
			other.expect(frame.Text, text)
		}
		if len(deliveries) > 0 || len(told) > 0 || s.Stats().Busy > 0 {
			t.Errorf("%d messages came too early, %d ends, %d workers are busy", len(deliveries), len(told), s.Stats().Busy)
		}
		if one.Op != frame.Text || string(one.Data) != "one" {
			t.Errorf("the first message is %v %q", one.Op, one.Data)
		}
		answer(one)
		answer(<-deliveries)
		c.expect(frame.Text, "one")
		c.expect(frame.Binary, "two")
		c.expectClose(4001)
		expectEnding(t, told, 4001, nil)
	})
}

// Many goroutines are done with messages while clients send more, some before Deliver has
// returned.
func TestMessagesAreDoneAnywhere(t *testing.T) {
	everywhere(t, func(t *testing.T, o server.Options) {
		if o.Mode != server.Workers {
			t.Skip("Deliver needs workers")
		}
		const clients, each = 10, 200
		deliveries := make(chan server.Delivery, clients)
		var goroutines sync.WaitGroup
		for range 4 {
			goroutines.Go(func() {
				for d := range deliveries {
					answer(d)
				}
			})
		}
		s := start(t, server.Handler{Deliver: func(d server.Delivery) {
			if strings.HasSuffix(string(d.Data), "7") {
				answer(d)
				return
			}
			deliveries <- d
		}}, o)
		var all sync.WaitGroup
		for _, c := range s.openMany(clients) {
			all.Go(func() {
				for i := range each {
					c.send(frame.Text, fmt.Sprint(i))
				}
			})
			all.Go(func() {
				for i := range each {
					c.expect(frame.Text, fmt.Sprint(i))
				}
			})
		}
		all.Wait()
		eventually(t, "nothing waits", func() bool { return s.Stats().Calls == 0 })
		close(deliveries)
		goroutines.Wait()
	})
}

// While a handler is not ready, messages wait, and Resume and Done go on with them.
func TestDeliveriesWaitUntilTheHandlerIsReady(t *testing.T) {
	t.Parallel()
	h, deliveries := delivering()
	refused, ready := make(chan server.Conn, 100), make(chan bool, 100)
	h.Ready = func(c server.Conn) bool {
		is := <-ready
		if !is {
			refused <- c
		}
		return is
	}
	s := start(t, h, server.Options{Mode: server.Workers})
	c := s.open()
	for _, is := range []bool{false, true, false, true} {
		ready <- is
	}
	c.write(message(frame.Text, "one") + message(frame.Text, "two"))
	for _, text := range []string{"one", "two"} {
		(<-refused).Resume()
		answer(<-deliveries)
		c.expect(frame.Text, text)
	}
}

// A connection that is gone is closed when its message is done, and the next ones are discarded.
func TestAConnectionEndsAfterItsMessage(t *testing.T) {
	t.Parallel()
	h, deliveries := delivering()
	onClose, told := endings()
	h.Close = onClose
	s := start(t, h, server.Options{Mode: server.Workers})
	c := s.open()
	c.write(message(frame.Text, "one") + message(frame.Text, "two"))
	one := <-deliveries
	c.reset()
	s.counted("closed_gone", 1)
	if string(one.Data) != "one" || len(told) > 0 {
		t.Errorf("the message is %q, %d ends", one.Data, len(told))
	}
	one.Done()
	if e := <-told; e.code != frame.Abnormal {
		t.Errorf("it ended with %v", e)
	}
	s.counted("messages_discarded", 1)
}

func TestAPanicOfDeliverEndsItsConnection(t *testing.T) {
	t.Parallel()
	s := start(t, server.Handler{Deliver: func(server.Delivery) { panic("no") }}, server.Options{Mode: server.Workers})
	c := s.open()
	c.write(message(frame.Text, "boom") + message(frame.Text, "more"))
	c.expectClose(frame.InternalError)
}

// The server's end waits for messages that are in hand, and tells of the connections' ends.
func TestTheEndWaitsForDeliveries(t *testing.T) {
	t.Parallel()
	h, deliveries := delivering()
	onClose, told := endings()
	h.Close = onClose
	s := start(t, h, server.Options{Mode: server.Workers, Grace: patience})
	c := s.open()
	c.send(frame.Text, "last")
	last := <-deliveries
	ended := make(chan error)
	go func() { ended <- s.stop() }()
	c.expectClose(frame.GoingAway)
	c.write(closing(frame.GoingAway, ""))
	c.expectEnd()
	select {
	case <-ended:
		t.Error("Run has returned before the message was done")
	default:
	}
	last.Done()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	expectEnding(t, told, frame.GoingAway, nil)
}

func TestDeliverNeedsWorkers(t *testing.T) {
	t.Parallel()
	h, _ := delivering()
	for _, mode := range []server.Mode{server.Inline, server.Serial} {
		if _, err := server.Listen([]string{"127.0.0.1:0"}, h, server.Options{Mode: mode}); err == nil || !strings.Contains(err.Error(), "Deliver") {
			t.Errorf("%v: %v", mode, err)
		}
	}
}
