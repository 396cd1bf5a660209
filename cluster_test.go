package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	broker "github.com/nats-io/nats-server/v2/server"

	"github.com/seed-134acfd0/lull/internal/natsd/natsdtest"
	"github.com/seed-134acfd0/lull/internal/testkit"
)

// newBroker runs a NATS server until the test ends. With a token it asks for it.
func newBroker(t *testing.T, token string) *broker.Server {
	t.Helper()
	return natsdtest.Start(t, func(o *broker.Options) { o.Authorization = token })
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

// What keeps a server from its cluster ends it: one line says what it is, and what to do.
func TestServersThatCannotJoin(t *testing.T) {
	b, secret := newBroker(t, ""), newBroker(t, "0123456789abcdef")
	web, stop := serve(t, "--mode", "rooms", "--nats", b.ClientURL(), "--node-name", "one")
	defer stop()
	dir := t.TempDir()
	file := func(name, text string) (path string) {
		path = filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	ours := "--nats " + b.ClientURL()
	for args, want := range map[string][]string{
		ours + " --node-name b --history 1 --history-stream":                                   {"jetstream not enabled", "start it with nats-server --jetstream"},
		ours + " --node-name one":                                                              {"another node has this name: one", "--node-name gives this server another one"},
		ours + " --max-message 2000000 --node-name b":                                          {"raise its max_payload", "--max-message"},
		ours + " --nats-creds-file " + file("scrap", "scrap") + " --node-name b":               {"no nkey seed found", "--nats-creds-file must be"},
		ours + " --nats-creds-file /nowhere --node-name b":                                     {"/nowhere"},
		ours + " --nats-token-file /nowhere --node-name b":                                     {"--nats-token-file: open /nowhere"},
		strings.Replace(ours, "nats:", "tls:", 1) + " --node-name b":                           {"secure connection not available", "use nats:// in --nats"},
		"--nats nats://127.0.0.1:1":                                                            {"no servers available", "start it, or correct --nats"},
		"--nats nats://" + strings.TrimSuffix(strings.TrimPrefix(web, "ws://"), "/"):           {"something else listens there"},
		"--nats " + secret.ClientURL():                                                         {"Authorization Violation", "--nats-token-file"},
		"--nats " + secret.ClientURL() + " --nats-token-file " + file("t", "fedcba9876543210"): {"Authorization Violation", "--nats-token-file"},
		"--cluster 0.0.0.0:0":                                                                  {"--cluster=0.0.0.0:0", "the brokers need a secret"},
		"--cluster 127.0.0.1:0 --cluster-secret-file " + file("s", "short"):                    {"--cluster-secret-file", "openssl rand -hex 32"},
	} {
		_, errs, code := run(t, append([]string{"serve", "--listen", "127.0.0.1:0", "--admin=", "--mode", "rooms"}, strings.Fields(args)...)...)
		if code != 1 || strings.Count(errs, "\n") != 1 || !strings.HasPrefix(errs, "lull: error: ") {
			t.Errorf("%s: exit %d, %q", args, code, errs)
		}
		for _, w := range want {
			if !strings.Contains(errs, w) {
				t.Errorf("%s: %q, not %q", args, errs, w)
			}
		}
	}
}

// Clusters of different names do not hear each other, and their servers may have the same name.
func TestTwoClustersOnOneBroker(t *testing.T) {
	b := newBroker(t, "")
	var guests []guest
	for _, cluster := range []string{"red", "red", "blue"} {
		url, stop := serve(t, "--mode", "rooms", "--nats", b.ClientURL(), "--cluster-name", cluster, "--node-name", fmt.Sprint("n", len(guests)%2))
		defer stop()
		guests = append(guests, visit(t, url, "room/a"))
	}
	const own = 4 // subscriptions by which a node hears others
	testkit.Eventually(t, "the room is followed", func() bool { return b.NumSubscriptions() == uint32(len(guests))*(own+1) })
	guests[0].says("to red")
	guests[2].says("to blue")
	guests[0].hears("to red")
	guests[1].hears("to red")
	guests[2].hears("to blue")
	guests[1].says("again")
	guests[0].hears("again")
	guests[1].hears("again")
	guests[2].says("again, blue")
	guests[2].hears("again, blue")
}

func TestClusterFlagsThatDoNotFit(t *testing.T) {
	for line, want := range map[string]string{
		"--nats nats://a:1":                                                         "--nats and --cluster: need --mode=rooms, --mode=hooks or --mode=pusher",
		"--mode rooms --nats a:1":                                                   "--nats=a:1: must be nats://HOST:4222 or tls://HOST:4222",
		"--mode rooms --nats nats://a:1 --cluster a:1":                              "--nats and --cluster: cannot be used together",
		"--mode rooms --nats nats://a:1 --nats-cert /x":                             "--nats-cert and --nats-key: must be used together",
		"--mode rooms --cluster a":                                                  "--cluster=a: must be host:port",
		"--mode rooms --cluster :1 --cluster-peers a":                               "--cluster-peers=a: must be host:port",
		"--cluster-peers a:1":                                                       "--cluster-peers: needs --cluster",
		"--mode rooms --nats nats://a:1 --node-name a@b":                            `--cluster-name and --node-name: the node's name "a@b" must be 1 to 32 letters`,
		"--mode rooms --nats nats://a:1 --cluster-name lull.de":                     `--cluster-name and --node-name: the cluster's name "lull.de" must be 1 to 32 letters`,
		"--mode rooms --cluster 127.0.0.1:0 --node-name " + strings.Repeat("n", 33): `must be 1 to 32 letters`,
		"--mode rooms --nats nats://a:1 --nats-token-file a --nats-creds-file b":    "--nats-token-file and --nats-creds-file: cannot be used together",
	} {
		if _, errs, code := run(t, append([]string{"serve"}, strings.Fields(line)...)...); code != exitUsage || !strings.Contains(errs, want) {
			t.Errorf("%s: exit %d, %q, not %q", line, code, errs, want)
		}
	}
}
