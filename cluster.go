package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"strings"

	"github.com/seed-134acfd0/lull/server/cluster"
)

// clusterFlags join the server to others.
type clusterFlags struct {
	NATS              string   `name:"nats" help:"Join the servers that are connected to this NATS server: what is said in a room is heard in it on all of them. nats://HOST:4222 or tls://HOST:4222; several of one NATS cluster have commas in between. Needs --mode=rooms, --mode=hooks or --mode=pusher." placeholder:"URL"`
	NATSKeys          natsKeys `embed:"" prefix:"nats-"`
	Cluster           string   `help:"Join other servers without a NATS server beside them: listen at this address for those that have it in --cluster-peers. Needs --mode=rooms, --mode=hooks or --mode=pusher." placeholder:"ADDRESS" example:"10.0.0.1:6222"`
	ClusterPeers      []string `help:"Addresses at which other servers listen with --cluster. One is enough: it tells of the rest." placeholder:"ADDRESS" example:"10.0.0.1:6222"`
	ClusterSecretFile string   `help:"File with a secret that all servers know, and no client. Or the secret is in the variable LULL_CLUSTER_SECRET. Needed with --cluster, unless that is on loopback; with --nats it keeps clients from choosing names of rooms and members that are slow to look up." type:"path" placeholder:"FILE" predictor:"file"`
	ClusterName       string   `help:"The cluster's name. Clusters of different names do not meet, though they have the same NATS server." default:"lull" placeholder:"NAME"`
	NodeName          string   `help:"The server's name in the cluster, where no two have the same. Default: the host's name." placeholder:"NAME"`
}

// check checks the flags.
func (f *clusterFlags) check(mode string) error {
	switch {
	case f.NATS == "" && f.Cluster == "":
		if len(f.ClusterPeers) > 0 {
			return errors.New("--cluster-peers: needs --cluster, an address at which this server listens for others")
		}
		return nil
	case f.NATS != "" && f.Cluster != "":
		return errors.New("--nats and --cluster: cannot be used together")
	case mode != "rooms" && mode != "hooks" && mode != "pusher":
		return errors.New("--nats and --cluster: need --mode=rooms, --mode=hooks or --mode=pusher")
	}
	names := cluster.Options{URL: "nats://", Cluster: f.ClusterName, Name: f.NodeName}
	if err := names.Check(); err != nil {
		return fmt.Errorf("--cluster-name and --node-name: %s", strings.TrimPrefix(err.Error(), "cluster: "))
	}
	if f.Cluster == "" {
		for one := range strings.SplitSeq(f.NATS, ",") {
			if !isNATS(strings.TrimSpace(one)) {
				return fmt.Errorf("--nats=%s: must be nats://HOST:4222 or tls://HOST:4222", f.NATS)
			}
		}
		return f.NATSKeys.check("--nats-")
	}
	for _, peer := range f.ClusterPeers {
		if _, _, err := net.SplitHostPort(peer); err != nil {
			return fmt.Errorf("--cluster-peers=%s: must be host:port; for example --cluster-peers=10.0.0.1:6222", peer)
		}
	}
	return checkAddress("--cluster", f.Cluster, "10.0.0.1:6222")
}

// isNATS reports whether a URL is that of a NATS server.
func isNATS(raw string) bool {
	u, err := url.Parse(raw)
	return err == nil && (u.Scheme == "nats" || u.Scheme == "tls") && u.Host != ""
}

// join joins the cluster, with options that suit the mode, and returns nil if the flags name none. With
// always the server gets a node nevertheless, which is alone, and keeps messages in the directory store if that is not
// empty. leave ends that.
func (f *clusterFlags) join(ctx context.Context, maxMessage int, suit func(cluster.Options) cluster.Options, always bool, store string, log *slog.Logger) (node *cluster.Node, leave func(), err error) {
	alone := f.NATS == "" && f.Cluster == ""
	if alone && !always {
		return nil, func() {}, nil
	}
	secret, err := readToken("--cluster-secret-file", f.ClusterSecretFile, "LULL_CLUSTER_SECRET")
	if err != nil {
		return nil, nil, err
	}
	o := suit(cluster.Options{Cluster: f.ClusterName, Name: f.NodeName, MaxMessage: maxMessage, Queue: max(clusterQueue, 4*maxMessage), Log: log})
	o.Secret = secret
	end := func() {}
	if alone {
		b, err := cluster.Embed(cluster.BrokerOptions{MaxMessage: maxMessage, Store: store, Log: log})
		if err != nil {
			return nil, nil, fmt.Errorf("--presence, --history and --history-store: %w", err)
		}
		o.Broker, o.Name, o.Secret, end = b, "alone", rand.Text(), b.Close
	} else if f.Cluster != "" {
		b, err := cluster.Embed(cluster.BrokerOptions{Listen: f.Cluster, Routes: f.ClusterPeers, Secret: secret, MaxMessage: maxMessage, Log: log})
		if err != nil {
			return nil, nil, fmt.Errorf("--cluster=%s: %w%s", f.Cluster, err, listenHint(err, "--cluster", []string{f.Cluster}))
		}
		log.Info("listens for other servers", "cluster", b.Addr())
		o.Broker, end = b, b.Close
	} else {
		b, err := f.NATSKeys.client("--nats-", f.NATS)
		if err != nil {
			return nil, nil, err
		}
		o.URL, o.Token, o.CredsFile, o.TLS = b.URL, b.Token, b.CredsFile, b.TLS
	}
	if node, err = cluster.Join(ctx, o); err != nil {
		end()
		return nil, nil, fmt.Errorf("%w%s", err, f.hint(err))
	}
	return node, func() { node.Leave(); end() }, nil
}

// hint says what can be done about an error of cluster.Join, if anything is known.
func (f *clusterFlags) hint(err error) string {
	if errors.Is(err, cluster.ErrName) {
		return "; --node-name gives this server another one"
	}
	if errors.Is(err, cluster.ErrStream) && strings.Contains(strings.ToLower(err.Error()), "permissions") {
		return "; for --history-stream the user must also be allowed to publish to $JS.API.*.*.lull_" + f.ClusterName + "_1"
	}
	says := strings.ToLower(err.Error())
	for _, h := range []struct{ says, hint string }{
		{"authorization", "; --nats-token-file, or --nats-creds-file, says who this server is"},
		{"nkey", "; --nats-creds-file must be a file of credentials that NATS has made"},
		{"info not received", "; something else than NATS listens there: correct --nats"},
		{"timeout", "; NATS is too busy, or something else listens there: correct --nats"},
		{"permissions", "; the user must be allowed to publish and subscribe to lull." + f.ClusterName + ".>"},
		{"secure connection required", "; use tls:// in --nats"},
		{"secure connection not available", "; use nats:// in --nats"},
		{"x509", "; --nats-ca names the authorities to trust, and --nats must have the name in NATS' certificate"},
		{"certificate required", "; --nats-cert and --nats-key are this server's certificate"},
		{"no servers available", "; start it, or correct --nats"},
		{"max_payload", " (--max-message)"},
		{"jetstream not enabled", "; start it with nats-server --jetstream, or do without --history-stream"},
		{"storage", "; lower --history-stream-bytes"},
	} {
		if strings.Contains(says, h.says) {
			return h.hint
		}
	}
	return ""
}

// clusterQueue is how many bytes may wait for the NATS server.
const clusterQueue = 8 << 20

// clusterStatus is what the log says of the cluster.
func clusterStatus(s cluster.Stats) []any {
	return []any{"nodes", len(s.Nodes) + 1, "nats", s.Connected, "subjects", s.Subjects, "published", s.Published, "received", s.Received,
		"lost", s.Lost, "unsent", s.Unsent, "waiting", s.Queued}
}
