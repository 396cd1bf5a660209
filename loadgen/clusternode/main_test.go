package main

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"

	"github.com/seed-134acfd0/lull/internal/testkit"
)

// running runs a program until the test ends, and returns the lines that it prints until it
// listens.
func running(t *testing.T, run func(ctx context.Context, out io.Writer) error) (lines []string) {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	read, write := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		err := run(ctx, write)
		write.CloseWithError(io.EOF)
		ended <- err
	}()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	in := bufio.NewReader(read)
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			t.Fatalf("it has printed %q: %v", lines, err)
		}
		if lines = append(lines, line); strings.HasPrefix(line, "listening on ") {
			return lines
		}
	}
}

func between(line, before, after string) string {
	_, rest, _ := strings.Cut(line, before)
	text, _, _ := strings.Cut(rest, after)
	return text
}

// Nodes tell who is in a room and what they have received.
func TestNodesTellWhatTheyKnow(t *testing.T) {
	broker := running(t, func(ctx context.Context, out io.Writer) error {
		return runBroker(ctx, "127.0.0.1:0", "127.0.0.1:0", out)
	})
	nats := "nats://" + between(broker[0], "listening on ", " ")
	var clients, pages []string
	for _, name := range []string{"a", "b"} {
		lines := running(t, config{nats: nats, name: name, listen: "127.0.0.1:0", figures: "127.0.0.1:0", queue: 1 << 20}.run)
		pages = append(pages, between(lines[0], "admin on ", "\n"))
		clients = append(clients, "ws://"+between(lines[1], "listening on ", " "))
	}
	tells := func(node int) (f told) {
		answer, err := http.Get(pages[node] + "?" + url.Values{"room": {"tea", "none"}}.Encode())
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		if err := json.NewDecoder(answer.Body).Decode(&f); err != nil {
			t.Fatal(err)
		}
		return f
	}
	for node := range pages {
		testkit.Eventually(t, "the nodes know each other", func() bool { return len(tells(node).Stats.Nodes) == 1 })
	}
	member, _, _, err := ws.Dial(t.Context(), clients[0]+"/room/tea?id=anna")
	if err != nil {
		t.Fatal(err)
	}
	defer member.Close()
	testkit.Eventually(t, "anna is there", func() bool {
		f := tells(0)
		return slices.Equal(f.Members["tea"], []string{"anna"}) && len(f.Members["none"]) == 0
	})
	testkit.Eventually(t, "the room is followed", func() bool { return tells(0).Stats.Subjects == 1 })
	publisher, _, _, err := ws.Dial(t.Context(), clients[1]+"/to/tea")
	if err != nil {
		t.Fatal(err)
	}
	defer publisher.Close()
	received := make(chan string, 1)
	go func() {
		text, _ := wsutil.ReadServerText(member)
		received <- string(text)
	}()
	testkit.Eventually(t, "anna hears what is said", func() bool {
		if err := wsutil.WriteClientText(publisher, []byte("hello")); err != nil {
			t.Fatal(err)
		}
		return len(received) > 0
	})
	if text := <-received; text != "hello" {
		t.Errorf("anna hears %q", text)
	}
	if f := tells(0); f.Stats.Received == 0 || f.Stats.Lost != 0 || len(f.Lost) != 0 || f.Away != "" {
		t.Errorf("%+v", f)
	}
	if _, _, _, err := ws.Dial(t.Context(), clients[1]+"/elsewhere"); err == nil {
		t.Error("there is something else")
	}
}
