package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/seed-134acfd0/lull/server"
	"github.com/seed-134acfd0/lull/server/cluster"
	"github.com/seed-134acfd0/lull/server/hooks"
)

// hooksMode are the flags of --mode=hooks: where the backends are, and the way back.
type hooksMode struct {
	Hook               []string      `help:"With --mode=hooks, URL of the backend: http://, https://, h2c:// or h2://HOST/PATH, or unix:SOCKET:/PATH. Several are for paths of connections: /chat=URL is for /chat and all that is below it." placeholder:"URL" example:"http://127.0.0.1:8000/lull"`
	HookConcurrency    int           `help:"How many requests a backend gets at once: the number of its workers. Further messages wait, and then their senders." default:"16" range:"1..10000"`
	HookBatch          int           `help:"How many messages a request has at most, of as many connections. 1 means that its body is the message; with more it is JSON." default:"1" range:"1..1000"`
	HookTimeout        time.Duration `help:"How long a backend may take to answer a message." default:"10s" range:"1ms..1h"`
	HookConnectTimeout time.Duration `help:"How long a backend may take to answer a handshake, with its retries." default:"5s" range:"1ms..9s"`
	HookRetries        int           `help:"How often a message is sent again of which nobody knows whether the backend has seen it. 0 means that it is handled at most once." default:"0" range:"0..100"`
	HookMaxAnswer      int           `help:"Maximum size of a backend's answer, in bytes." default:"65536" range:"1..268435456"`
	HookHeaders        []string      `help:"Request headers that a backend is told of a handshake." default:"Cookie,Authorization,Origin,User-Agent" placeholder:"NAME"`
	HookSecretFile     string        `help:"File with the secret that signs the requests to backends. Or the secret is in the variable LULL_HOOK_SECRET. Without one they are not signed." placeholder:"FILE" predictor:"file"`
	API                string        `name:"api" help:"With --mode=hooks, address of the API for backends: host:port, or unix:PATH for a unix socket. Port 0 picks a free port, an empty value turns it off. Without a token an address must be on loopback." default:"127.0.0.1:8081"`
	APISocketMode      string        `name:"api-socket-mode" help:"Who may open the unix socket of --api, as a file's mode: 0660 adds its group." default:"0600" placeholder:"MODE"`
	APIPeers           []string      `name:"api-peers" help:"The APIs of the other servers of a cluster, as NAME=URL with the --node-name of each: requests about their connections go there. All have the same token." placeholder:"NAME=URL" example:"chat-2=http://10.0.0.2:8081"`
	APITokenFile       string        `name:"api-token-file" help:"File with the token that the API asks for. Or the token is in the variable LULL_API_TOKEN." placeholder:"FILE" predictor:"file"`
}

// check checks the flags.
func (m *hooksMode) check(mode string) error {
	switch {
	case mode != "hooks" && len(m.Hook) > 0:
		return errors.New("--hook: can only be used with --mode=hooks")
	case mode != "hooks":
		return nil
	case len(m.Hook) == 0:
		return errors.New("--mode=hooks: needs a backend; for example --hook=http://127.0.0.1:8000/lull")
	}
	if err := checkGuardedPort("--api", m.API, m.APISocketMode, "127.0.0.1:8081"); err != nil {
		return err
	}
	for _, peer := range m.APIPeers {
		name, at, ok := strings.Cut(peer, "=")
		if u, err := url.Parse(at); !ok || name == "" || err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
			return fmt.Errorf("--api-peers=%s: must be NAME=URL; for example --api-peers=chat-2=http://10.0.0.2:8081", peer)
		}
	}
	_, err := m.make(slog.New(slog.DiscardHandler), nil, "", nil)
	return err
}

// make makes the hooks of a node of a cluster, whose publisher is nil without one.
func (m *hooksMode) make(log *slog.Logger, secret []byte, node string, publisher hooks.Publisher) (*hooks.Hooks, error) {
	o := hooks.Options{
		Concurrency: m.HookConcurrency, Batch: m.HookBatch, Timeout: m.HookTimeout, ConnectTimeout: m.HookConnectTimeout, Retries: m.HookRetries,
		MaxAnswer: m.HookMaxAnswer, Headers: m.HookHeaders, Secret: secret, Log: log,
		Node: node, Publisher: publisher,
	}
	for _, hook := range m.Hook {
		b := hooks.Backend{URL: hook}
		if path, url, ok := strings.Cut(hook, "="); ok && strings.HasPrefix(hook, "/") {
			b = hooks.Backend{Path: path, URL: url}
		}
		o.Backends = append(o.Backends, b)
	}
	h, err := hooks.New(o)
	if err != nil {
		return nil, fmt.Errorf("--hook: %s", strings.TrimPrefix(err.Error(), "hooks: "))
	}
	return h, nil
}

// begin makes the hooks with their secret.
func (m *hooksMode) begin(log *slog.Logger, node *cluster.Node, name string) (*hooks.Hooks, error) {
	secret, err := readToken("--hook-secret-file", m.HookSecretFile, "LULL_HOOK_SECRET")
	if err != nil {
		return nil, err
	}
	expectHandshakes()
	if node == nil {
		return m.make(log, []byte(secret), "", nil)
	}
	if name == "" {
		name, _ = os.Hostname() // the cluster would not have been joined without it
	}
	return m.make(log, []byte(secret), name, node)
}

// serve serves the API of s until stop is called.
func (m *hooksMode) serve(h *hooks.Hooks, s *server.Server, log *slog.Logger) (stop func() error, err error) {
	if m.API == "" {
		return func() error { return nil }, nil
	}
	token, err := readToken("--api-token-file", m.APITokenFile, "LULL_API_TOKEN")
	if err != nil {
		return nil, err
	}
	l, err := m.listen(token)
	if err != nil {
		return nil, err
	}
	return serveHTTP(l, h.API(s, hooks.APIOptions{Token: token, Peers: m.peers()}), log), nil
}

// peers are the ways to the APIs of other nodes.
func (m *hooksMode) peers() func(node string) http.RoundTripper {
	ways := map[string]http.RoundTripper{}
	for _, peer := range m.APIPeers {
		name, at, _ := strings.Cut(peer, "=")
		u, _ := url.Parse(at) // it was checked
		ways[name] = &way{u}
	}
	return func(node string) http.RoundTripper {
		name := node[:max(0, strings.LastIndexByte(node, '.'))] // behind it is a random part
		if to, known := ways[name]; known {
			return to
		}
		return nil
	}
}

// way is the way to another server.
type way struct{ to *url.URL }

func (w *way) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.URL.Scheme, r.URL.Host, r.Host = w.to.Scheme, w.to.Host, w.to.Host
	return http.DefaultTransport.RoundTrip(r)
}

// listen opens the API's address.
func (m *hooksMode) listen(token string) (net.Listener, error) {
	port := guardedPort{
		flag: "--api", name: "API", what: "the API", harm: "send messages and close connections",
		guards: "give it a token (--api-token-file or LULL_API_TOKEN), or use 127.0.0.1 or unix:PATH",
	}
	l, _, err := port.listen(m.API, m.APISocketMode, token)
	return l, err
}

// finish tells the backends of the connections that have ended.
func (m *hooksMode) finish(h *hooks.Hooks, grace time.Duration, log *slog.Logger) {
	ctx, cancel := context.WithTimeout(context.Background(), cmp.Or(grace, time.Millisecond))
	defer cancel()
	if err := h.Close(ctx); err != nil {
		log.Warn("backends were not told of all connections that have ended", "error", err)
	}
}
