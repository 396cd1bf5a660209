package cluster

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	broker "github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/seed-134acfd0/lull/internal/natsd"
	"github.com/seed-134acfd0/lull/internal/selfsigned"
	"github.com/seed-134acfd0/lull/internal/testkit"
)

// Who cannot join is told why, and nothing of the attempt is left.
func TestWhoCannotJoinIsToldWhy(t *testing.T) {
	t.Parallel()
	ours := newBroker(t, 0, nil)
	open := ours.ClientURL()
	join(t, open, "a", nil)
	subscriptions := ours.NumSubscriptions()
	secret := newBroker(t, 0, func(o *broker.Options) { o.Authorization = "secret" }).ClientURL()
	allows := func(p broker.Permissions) (url string) {
		url = newBroker(t, 0, func(o *broker.Options) { o.Users = []*broker.User{{Username: "lull", Password: "x", Permissions: &p}} }).ClientURL()
		return strings.Replace(url, "//", "//lull:x@", 1)
	}
	others := &broker.SubjectPermission{Allow: []string{"other.>"}}
	small := newBroker(t, 0, func(o *broker.Options) { o.MaxPayload = 1000 }).ClientURL()
	certificate, err := selfsigned.New(time.Now().Add(time.Hour), "127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	sealed := newBroker(t, 0, func(o *broker.Options) {
		o.TLS, o.TLSConfig = true, &tls.Config{Certificates: []tls.Certificate{certificate}}
		o.TLSTimeout = natsd.StartTimeout.Seconds()
	}).Addr().String()
	scrap := filepath.Join(t.TempDir(), "scrap")
	if err := os.WriteFile(scrap, []byte("scrap"), 0o600); err != nil {
		t.Fatal(err)
	}
	long := strings.Repeat("n", nameMax+1)
	t.Run("all", func(t *testing.T) {
		for name, c := range map[string]struct {
			url    string
			change func(*Options)
			want   string
		}{
			"no URL":                {"", nil, "either Options.URL or Options.Broker must be set"},
			"a name with a space":   {open, func(o *Options) { o.Name = "a b" }, `the node's name "a b" must be 1 to 32`},
			"a name with an ü":      {open, func(o *Options) { o.Name = "ü" }, `the node's name "ü" must be 1 to 32`},
			"a long name":           {open, func(o *Options) { o.Name = long }, `the node's name "` + long + `" must be 1 to 32`},
			"a cluster with a dot":  {open, func(o *Options) { o.Cluster = "a.b" }, `the cluster's name "a.b" must be 1 to 32`},
			"a cluster with a star": {open, func(o *Options) { o.Cluster = "*" }, `the cluster's name "*" must be 1 to 32`},
			"a long cluster":        {open, func(o *Options) { o.Cluster = long }, `the cluster's name "` + long + `" must be 1 to 32`},
			"a queue that is small": {open, func(o *Options) { o.Queue = 1000 }, "a message must fit into the queue"},
			"an empty prefix":       {open, func(o *Options) { o.Personal = []string{""} }, "must have 1 byte or more, and all together at most 100"},
			"too many prefixes":     {open, func(o *Options) { o.Personal = slices.Repeat([]string{"user:"}, 21) }, "must have 1 byte or more, and all together at most 100"},
			"nobody is there":       {"nats://127.0.0.1:1", nil, "no servers available"},
			"no NATS":               {stranger(t, "HTTP/1.1 400 Bad Request\r\n\r\n"), nil, "INFO not received"},
			"nobody speaks":         {stranger(t, ""), nil, "timeout"},
			"no token":              {secret, nil, "Authorization Violation"},
			"a wrong token":         {secret, func(o *Options) { o.Token = "wrong" }, "Authorization Violation"},
			"no credentials file":   {open, func(o *Options) { o.CredsFile = "/nowhere" }, "/nowhere"},
			"a file of scrap":       {open, func(o *Options) { o.CredsFile = scrap }, "no nkey seed found"},
			"no right to hear":      {allows(broker.Permissions{Subscribe: others}), nil, "ermissions"},
			"no right to speak":     {allows(broker.Permissions{Publish: others}), nil, "ermissions"},
			"TLS is asked for":      {"nats://" + sealed, nil, "certificate signed by unknown authority"},
			"a stranger's TLS":      {"tls://" + sealed, nil, "certificate signed by unknown authority"},
			"no TLS is there":       {strings.Replace(open, "nats:", "tls:", 1), nil, "secure connection not available"},
			"short messages":        {small, nil, "takes messages of 1000 bytes, and 66048 are needed"},
			"an old broker":         {old(t), nil, "is of version 1.4.1, and at least 2.0.0 is needed"},
			"a name that is taken":  {open, nil, "another node has this name: a"},
			"other personal topics": {open, func(o *Options) { o.Name, o.Personal = "b", []string{"me:"} }, `other personal topics: node a has ["user:" "device:"], this one ["me:"]`},
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				change := func(o *Options) {
					cautious(o)
					if c.change != nil {
						c.change(o)
					}
				}
				if _, err := tryJoin(t, c.url, "a", change); err == nil || !strings.Contains(err.Error(), c.want) {
					t.Errorf("%v, not %s", err, c.want)
				} else if strings.Contains(err.Error(), "lull:x@") {
					t.Errorf("%v has the password", err)
				}
			})
		}
	})
	testkit.Eventually(t, "one connection is left", func() bool { return ours.NumClients() == 1 && ours.NumSubscriptions() == subscriptions })
}

// stranger is a server that says something else than NATS.
func stranger(t testing.TB, says string) (url string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { _ = c.Close() })
			_, _ = io.WriteString(c, says)
		}
	}()
	return "nats://" + l.Addr().String()
}

// outsider is a connection to a broker that is no node's.
func outsider(t *testing.T, url string) *nats.Conn {
	t.Helper()
	c, err := nats.Connect(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// A cluster that has as many nodes as it may have takes no more.
func TestACrowdedCluster(t *testing.T) {
	t.Parallel()
	url := newBroker(t, 0, nil).ClientURL()
	c := outsider(t, url)
	hellos := func(to string, ids ...uint64) {
		for _, id := range ids {
			_ = c.Publish(to, encode(hello{Protocol: protocol, ID: hex(id), Name: fmt.Sprint("node-", id), Personal: []string{"user:", "device:"}}))
		}
	}
	many := make([]uint64, nodesMax)
	for i := range many {
		many[i] = uint64(i + 1)
	}
	early := join(t, url, "early", nil)
	hellos(early.subjects.nodes, many...)
	testkit.Eventually(t, "all are known", func() bool { return len(early.Stats().Nodes) == nodesMax })
	hellos(early.subjects.nodes, nodesMax+1)
	testkit.Eventually(t, "one more is noticed", func() bool {
		early.Node.mu.Lock()
		defer early.Node.mu.Unlock()
		return early.strange[nodesMax+1]
	})
	if n := len(early.Stats().Nodes); n != nodesMax || early.Ready() != nil {
		t.Errorf("%d are known, %v", n, early.Ready())
	}

	if _, err := c.Subscribe("lull.lull.nodes", func(m *nats.Msg) {
		if other, id, ok := readHello(m.Data); ok && other.Joining {
			hellos("lull.lull.nodes."+hex(id), append(many, nodesMax+1)...)
		}
	}); err != nil {
		t.Fatal(err)
	}
	if err := c.Flush(); err != nil {
		t.Fatal(err)
	}
	if _, err := tryJoin(t, url, "late", cautious); !errors.Is(err, ErrFull) || !strings.Contains(err.Error(), "this one knows 1000 already") {
		t.Error(err)
	}
}

// The dead make room for the living.
func TestTheDeadMakeRoom(t *testing.T) {
	t.Parallel()
	ps := newPeers(time.Second)
	for id := range uint64(nodesMax) {
		ps.hear(id+1, &hello{}, time.Duration(id))
	}
	if p, ok := ps.makeRoom(1); p != nil || !ok {
		t.Error("a node that is known needs room")
	}
	if _, ok := ps.makeRoom(nodesMax + 1); ok {
		t.Error("there is room for one more")
	}
	ps.leave(7)
	ps.leave(3)
	if p, ok := ps.makeRoom(nodesMax + 1); !ok || p.id != 3 || len(ps.byID) != nodesMax-1 {
		t.Errorf("%+v makes room", p)
	}
}

// old is a broker from before what is needed.
func old(t testing.TB) (url string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = fmt.Fprint(c, `INFO {"server_id":"x","version":"1.4.1","proto":1,"max_payload":1048576}`+"\r\n")
			for r := bufio.NewReader(c); ; {
				line, err := r.ReadString('\n')
				if err != nil {
					break
				}
				if strings.HasPrefix(line, "PING") {
					_, _ = fmt.Fprint(c, "PONG\r\n")
				}
			}
		}
	}()
	return "nats://" + l.Addr().String()
}

// Nodes of another version are refused, and those that are there already are named.
func TestNodesOfAnotherVersion(t *testing.T) {
	t.Parallel()
	url := newBroker(t, 0, nil).ClientURL()
	c := outsider(t, url)
	h := encode(hello{Protocol: protocol + 1, ID: hex(7), Name: "newer"})
	if _, err := c.Subscribe("lull.lull.nodes", func(m *nats.Msg) {
		if other, id, ok := readHello(m.Data); ok && id != 7 && other.Joining {
			_ = c.Publish("lull.lull.nodes."+other.ID, h)
		}
	}); err != nil {
		t.Fatal(err)
	}
	if err := c.Flush(); err != nil {
		t.Fatal(err)
	}
	_, err := tryJoin(t, url, "a", cautious)
	if !errors.Is(err, ErrVersion) || !strings.Contains(err.Error(), "node newer has version 2, this one 1") {
		t.Error(err)
	}
	other := join(t, url, "b", func(o *Options) { o.Cluster = "other" })
	if err := c.Publish("lull.other.nodes", h); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, "it is noticed", func() bool {
		other.Node.mu.Lock()
		defer other.Node.mu.Unlock()
		return other.strange[7]
	})
	if s := other.Stats(); len(s.Nodes) != 0 || other.Ready() != nil {
		t.Errorf("%+v %v", s, other.Ready())
	}
}

// What nobody understands is counted, and harms nobody.
func TestMessagesThatAreNotUnderstood(t *testing.T) {
	t.Parallel()
	url := newBroker(t, 0, nil).ClientURL()
	a := join(t, url, "a", nil)
	m := a.subscribe(t, "x")
	c := outsider(t, url)
	topic, _ := a.subjects.of("x")
	whole := seal(7, "x", 1, []byte("text"))
	wrong := map[string][][]byte{
		topic: {nil, []byte("m"), whole[:headBytes], whole[:headBytes+1], append([]byte("z"), whole[1:]...),
			append(append([]byte{}, whole[:headBytes]...), 9, 1, 'x'), append(append([]byte{}, whole[:headBytes]...), 1, 0, 'x'), append(append([]byte{}, whole[:headBytes]...), 1, 201, 'x')},
		a.subjects.ask:              {append(head{kindAsk, 7, 1}.append(nil), 0), append(head{kindAsk, 7, 1}.append(nil), 0, 9, 1)},
		a.subjects.nodes:            {nil, []byte("{"), []byte(`{"id":"x","name":"b"}`), []byte(`{"id":"xxxxxxxxxxxxxxxx","name":"b"}`), []byte(`{"id":"0000000000000001","name":"b b"}`), make([]byte, helloMax+1)},
		a.subjects.to + hex(a.id):   {[]byte("a"), head{kindAsk, a.id, 1}.append(nil)},
		a.subjects.node + hex(a.id): {[]byte("a")},
	}
	n := 0
	for subject, all := range wrong {
		for _, b := range all {
			n++
			if err := c.Publish(subject, b); err != nil {
				t.Fatal(err)
			}
		}
	}
	_ = c.Publish(a.subjects.to+hex(a.id), head{kindAt, 7, 99}.append(nil)) // an answer that comes too late
	_ = c.Publish(topic, whole)                                             // a message without a place
	number(whole, 1<<32+1)
	if err := c.Publish(topic, whole); err != nil {
		t.Fatal(err)
	}
	m.has(t, "x text")
	testkit.Eventually(t, "all are counted", func() bool { return a.Stats().Malformed >= uint64(n-1) }) // "a" for its own is one it has said
	if s := a.Stats(); s.Stale != 1 || s.Received != 1 || len(s.Nodes) != 0 {
		t.Errorf("%+v", s)
	}
}

func TestTwoClustersOnOneBroker(t *testing.T) {
	t.Parallel()
	url := newBroker(t, 0, nil).ClientURL()
	var members []*fakeConn
	var places []*place
	for _, cluster := range []string{"one", "two"} {
		for _, name := range []string{"a", "b"} {
			p := join(t, url, name, func(o *Options) { o.Cluster = cluster })
			places = append(places, p)
			members = append(members, p.subscribe(t, "x"))
		}
	}
	meet(t, places[:2]...)
	meet(t, places[2:]...)
	places[0].publish(t, "x", "one")
	places[3].publish(t, "x", "two")
	for i, want := range []string{"x one", "x one", "x two", "x two"} {
		members[i].has(t, want)
	}
}

// A node that leaves is gone at once; one that is not heard any more, after a while.
func TestNodesThatLeaveAndDie(t *testing.T) {
	t.Parallel()
	b := newBroker(t, 0, nil)
	w := newWay(t, b.Addr().String())
	a := join(t, b.ClientURL(), "a", mortal)
	leaver, dead := join(t, b.ClientURL(), "leaver", nil), join(t, w.url(), "dead", mortal)
	meet(t, a, leaver, dead)
	leaver.Leave()
	if err := leaver.Ready(); !errors.Is(err, ErrLeft) {
		t.Error(err)
	}
	if err := leaver.Publish("x", 1, nil); !errors.Is(err, ErrAway) {
		t.Error(err)
	}
	testkit.Eventually(t, "it has left", func() bool { return fmt.Sprint(a.Stats().Nodes) == "[dead]" })
	w.silence(true)
	testkit.Eventually(t, "it is dead", func() bool { return len(a.Stats().Nodes) == 0 })
	w.silence(false)
	meet(t, a, dead)
	successor, err := tryJoin(t, b.ClientURL(), "dead", cautious)
	if !errors.Is(err, ErrName) {
		t.Errorf("%v %v", successor, err)
	}
}

// A subscription that not all nodes have confirmed in time says so, and is there.
func TestASubscriptionThatIsNotConfirmed(t *testing.T) {
	t.Parallel()
	b := newBroker(t, 0, nil)
	w := newWay(t, b.Addr().String())
	a := join(t, b.ClientURL(), "a", func(o *Options) { o.pace.confirm = 10 * time.Millisecond })
	slow := join(t, w.url(), "slow", nil)
	meet(t, a, slow)
	w.silence(true)
	c := a.server.conn()
	done := make(chan bool, 1)
	if err := a.Node.subscribe(c, "x", func(confirmed bool) { done <- confirmed }); err != nil {
		t.Fatal(err)
	}
	if <-done {
		t.Error("it is confirmed")
	}
	if n := a.Stats().Unconfirmed; n != 1 {
		t.Errorf("%d are unconfirmed", n)
	}
	w.silence(false)
	testkit.Eventually(t, "it is confirmed later", func() bool {
		if err := a.Node.subscribe(c, "x", func(confirmed bool) { done <- confirmed }); err != nil {
			t.Fatal(err)
		}
		return <-done
	})
	slow.publish(t, "x", "1")
	c.has(t, "x 1")
}

// Two nodes of one name, which could not hear each other when they joined: one gives way.
func TestTwoNodesOfOneName(t *testing.T) {
	t.Parallel()
	one, two := newBroker(t, 0, nil), newBroker(t, 0, nil)
	w := newWay(t, two.Addr().String())
	a, b := join(t, one.ClientURL(), "a", nil), join(t, w.url(), "a", nil)
	w.mu.Lock()
	w.to = one.Addr().String()
	w.mu.Unlock()
	w.cut()
	testkit.Eventually(t, "one gives way", func() bool { return errors.Is(a.Ready(), ErrName) != errors.Is(b.Ready(), ErrName) })
	for _, p := range []*place{a, b} {
		if errors.Is(p.Ready(), ErrName) {
			testkit.Eventually(t, "its messages stay here", func() bool { return errors.Is(p.Publish("x", 1, nil), ErrAway) })
		} else {
			testkit.Eventually(t, "the other one stays", func() bool { return p.Ready() == nil })
		}
	}
}

// Brokers that nodes embed meet by themselves.
func TestEmbeddedBrokers(t *testing.T) {
	t.Parallel()
	const secret = "they all know it"
	var routes []string
	var places []*place
	var members []*fakeConn
	var brokers []*Broker
	for _, name := range []string{"a", "b", "c"} {
		b, err := Embed(BrokerOptions{Listen: "127.0.0.1:0", Routes: routes, Secret: secret})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(b.Close)
		if len(routes) == 0 {
			routes = []string{b.Addr()} // which tells of the rest
		}
		brokers = append(brokers, b)
		places = append(places, join(t, "", name, func(o *Options) { o.Broker = b }))
	}
	meet(t, places...)
	for _, p := range places {
		members = append(members, p.subscribe(t, "x"))
	}
	for i, p := range places {
		p.publish(t, "x", fmt.Sprint(i))
	}
	for _, m := range members {
		testkit.Eventually(t, "all three are there", func() bool { return len(m.received()) == 3 })
	}
	for name, o := range map[string]BrokerOptions{
		"address":      {Listen: "x"},
		"secret":       {Listen: "0.0.0.0:0"},
		"in use":       {Listen: brokers[0].Addr(), Secret: secret},
		"listen":       {Routes: routes},
		"missing port": {Listen: "127.0.0.1:0", Routes: []string{"x"}},
	} {
		if _, err := Embed(o); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Brokers of different secrets do not meet, and both say so; so does one that reaches nobody.
func TestEmbeddedBrokersOfDifferentSecrets(t *testing.T) {
	t.Parallel()
	var logs [3]testkit.Log
	var brokers [3]*Broker
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := l.Addr().String()
	_ = l.Close()
	for i, o := range []BrokerOptions{{Secret: "one"}, {Secret: "two"}, {Routes: []string{nobody}}} {
		if i == 1 {
			o.Routes = []string{brokers[0].Addr()}
		}
		o.Listen, o.Log = "127.0.0.1:0", slog.New(slog.NewTextHandler(&logs[i], nil))
		if brokers[i], err = Embed(o); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(brokers[i].Close)
	}
	for i, want := range []string{
		"this server's broker does not let another one in: all servers of a cluster must have the same secret",
		"another server's broker does not let this one in: all servers of a cluster must have the same secret",
		"another server's broker cannot be reached, trying on",
	} {
		testkit.Eventually(t, "it says: "+want, func() bool { return logs[i].Has(want) })
		if strings.Contains(logs[i].String(), "one@") || strings.Contains(logs[i].String(), "two@") {
			t.Errorf("it tells the secret: %s", logs[i].String())
		}
	}
	alone := join(t, "", "a", func(o *Options) { o.Broker = brokers[1] })
	if n := alone.Stats().Nodes; len(n) != 0 || brokers[1].Routes() != 0 {
		t.Errorf("%v are there", n)
	}
}

// What a broker repeats is said once.
func TestABrokerSaysThingsOnce(t *testing.T) {
	t.Parallel()
	var out testkit.Log
	log := newBrokerLog(slog.New(slog.NewTextHandler(&out, nil)))
	for i := range 100 {
		log.Errorf("10.0.0.1:%d - rid:%d - Route Error 'Authorization Violation'", 1000+i, i)
		log.Errorf("Error trying to connect to route (attempt %d): refused", i)
	}
	if n := strings.Count(out.String(), "\n"); n != 2 {
		t.Errorf("%d lines: %s", n, out.String())
	}
}
