package main

import (
	"bufio"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"
)

// The program waits for its clients, measures everything and ends.
func TestItMeasuresTopics(t *testing.T) {
	const conns = 40
	read, write := io.Pipe()
	type outcome struct {
		figures
		err error
	}
	ended := make(chan outcome, 1)
	go func() {
		f, err := run(t.Context(), config{listen: "127.0.0.1:0", conns: conns, reactors: 1, during: 50 * time.Millisecond, rounds: 2}, write)
		write.CloseWithError(io.EOF)
		ended <- outcome{f, err}
	}()
	line, err := bufio.NewReader(read).ReadString('\n')
	address, ok := strings.CutPrefix(strings.TrimSuffix(line, " (topics)\n"), "listening on ")
	if !ok {
		t.Fatalf("it prints %q: %v; it ended: %v", line, err, (<-ended).err)
	}
	for range conns {
		c, in, _, err := ws.Dial(t.Context(), "ws://"+address+"/")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if in != nil {
			_, _ = io.CopyN(io.Discard, in, int64(in.Buffered()))
		}
		go io.Copy(io.Discard, c)
	}
	got := <-ended
	if got.err != nil {
		t.Fatal(got.err)
	}
	if got.Conns != conns || got.Subscriptions != 2*conns || got.Few.Published == 0 || got.Few.Deliveries == 0 || got.Few.CPU <= 0 || got.Few.P99 <= 0 ||
		len(got.Burst.Topic) != 2 || len(got.Burst.Broadcast) != 2 || got.Burst.Topic[0] <= 0 || got.Churn.PerSecond <= 0 || got.Churn.Turn <= 0 {
		t.Errorf("%+v", got.figures)
	}
}

// The tables are measured without clients. By how much a process grows that runs tests
// says nothing.
func TestItMeasuresTables(t *testing.T) {
	const conns = 1000
	got, err := tables(3, conns)
	if err != nil {
		t.Fatal(err)
	}
	if got.Reactors != 3 || got.Subscriptions != 2*conns || got.Topics != conns/10 {
		t.Errorf("%+v", got)
	}
}
