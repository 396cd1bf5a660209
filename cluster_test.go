package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	broker "github.com/nats-io/nats-server/v2/server"

	"github.com/seed-134acfd0/lull/internal/natsd"
	"github.com/seed-134acfd0/lull/internal/testkit"
)

// newBroker runs a NATS server until the test ends. With a token it asks for it.
func newBroker(t *testing.T, token string) *broker.Server {
	t.Helper()
	b, err := natsd.Start(&broker.Options{Host: "127.0.0.1", Port: broker.RANDOM_PORT, Authorization: token})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { natsd.Stop(b) })
	return b
}

// Rooms are the same on all servers that share a NATS server.
func TestRoomsOnSeveralServers(t *testing.T) {
	b := newBroker(t, "0123456789abcdef")
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("0123456789abcdef"), 0o600); err != nil {
		t.Fatal(err)
	}
	var guests []guest
	for i, handlers := range []string{"inline", "workers", "inline"} {
		url, stop := serve(t, "--mode", "rooms", "--handlers", handlers, "--nats", b.ClientURL(), "--nats-token-file", token, "--node-name", fmt.Sprint("node-", i))
		defer stop()
		guests = append(guests, visit(t, url, "room/a"))
	}
	const own = 4 // subscriptions by which a node hears others
	testkit.Eventually(t, "the room is followed", func() bool { return b.NumSubscriptions() == uint32(len(guests))*(own+1) })
	for i, g := range guests {
		g.says(fmt.Sprint("from ", i))
		for _, o := range guests {
			o.hears(fmt.Sprint("from ", i))
		}
	}
}

// Two servers find each other without a NATS server.
func TestRoomsOnServersThatEmbedTheirBroker(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	one, stopOne := serve(t, "--mode", "rooms", "--cluster", address, "--node-name", "one")
	defer stopOne()
	two, stopTwo := serve(t, "--mode", "rooms", "--cluster", "127.0.0.1:0", "--cluster-peers", address, "--node-name", "two")
	defer stopTwo()
	a, b := visit(t, one, "room/a"), visit(t, two, "room/a")
	heard := make(chan string, 1)
	go func() {
		_, text, _ := b.ReadMessage()
		heard <- string(text)
	}()
	testkit.Eventually(t, "one hears two", func() bool {
		a.says("is anybody there?")
		a.hears("is anybody there?")
		return len(heard) > 0
	})
	if text := <-heard; text != "is anybody there?" {
		t.Error(text)
	}
}

// What keeps a server from its cluster ends it, and says what to do.
func TestServersThatCannotJoin(t *testing.T) {
	b := newBroker(t, "")
	_, stop := serve(t, "--mode", "rooms", "--nats", b.ClientURL(), "--node-name", "one")
	defer stop()
	for args, want := range map[string]string{
		"--nats " + b.ClientURL() + " --node-name one":                     "another node has this name: one; --node-name gives this server another one",
		"--nats " + b.ClientURL() + " --node-name a@b":                     "the node's name \"a@b\" must be",
		"--nats " + b.ClientURL() + " --max-message 2000000 --node-name b": "raise its max_payload",
		"--nats nats://127.0.0.1:1":                                        "no servers available",
		"--cluster 0.0.0.0:0":                                              "the brokers need a secret",
	} {
		out, err := exec.Command(program, append([]string{"serve", "--listen", "127.0.0.1:0", "--admin=", "--mode", "rooms"}, strings.Fields(args)...)...).CombinedOutput()
		if err == nil || !strings.Contains(string(out), want) {
			t.Errorf("%s: %v %s, not %q", args, err, out, want)
		}
	}
}

func TestClusterFlagsThatDoNotFit(t *testing.T) {
	for line, want := range map[string]string{
		"--nats nats://a:1":                             "--nats and --cluster: need --mode=rooms or --mode=hooks",
		"--mode rooms --nats a:1":                       "--nats=a:1: must be nats://HOST:4222 or tls://HOST:4222",
		"--mode rooms --nats nats://a:1 --cluster a:1":  "--nats and --cluster: cannot be used together",
		"--mode rooms --nats nats://a:1 --nats-cert /x": "--nats-cert and --nats-key: must be used together",
		"--mode rooms --cluster a":                      "--cluster=a: must be host:port",
		"--mode rooms --cluster :1 --cluster-peers a":   "--cluster-peers=a: must be host:port",
		"--cluster-peers a:1":                           "--cluster-peers: needs --cluster",
	} {
		if _, errs, code := run(t, append([]string{"serve"}, strings.Fields(line)...)...); code == 0 || !strings.Contains(errs, want) {
			t.Errorf("%s: exit %d, %q, not %q", line, code, errs, want)
		}
	}
}
