package agent

import (
	"crypto/tls"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/seed-134acfd0/lull/internal/selfsigned"
	"github.com/seed-134acfd0/lull/internal/testkit"
	"github.com/seed-134acfd0/lull/loadgen/measure"
)

func TestAServerForOtherMachinesNeedsAToken(t *testing.T) {
	t.Parallel()
	if s, err := NewServer(":0", "", nil); err == nil || !strings.Contains(err.Error(), "token") {
		t.Errorf("%v %v", s, err)
	}
}

func TestAPortThatIsTakenIsAnError(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	if s, err := NewServer(p.server.Addr(), testToken, nil); err == nil || !strings.Contains(err.Error(), "address already in use") {
		t.Errorf("%v %v", s, err)
	}
}

// Whoever has the agents' token can be an agent, and nothing more.
func TestAgentsCannotCommandAgents(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	if _, err := Connect(t.Context(), Broker{URL: "nats://" + p.server.Addr(), Token: "wrong"}, true, logTo(p.log)); err == nil || !strings.Contains(err.Error(), "Authorization") {
		t.Errorf("a wrong token: %v", err)
	}
	a := p.add("a", nil)
	conn, err := p.server.Connect(logTo(p.log))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	commands, err := conn.SubscribeSync(agentPrefix + ">")
	if err != nil {
		t.Fatal(err)
	}
	if err := a.conn.Publish(agentPrefix+"other", []byte("{}")); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, "it is refused", func() bool { return strings.Contains(strings.ToLower(errorText(a.conn)), "permissions violation") })
	if m, err := commands.NextMsg(10 * time.Millisecond); err == nil {
		t.Errorf("%s arrived", m.Data)
	}
}

func errorText(conn *nats.Conn) string {
	if err := conn.LastError(); err != nil {
		return err.Error()
	}
	return ""
}

// With TLS, an agent trusts the server's certificate, and shows one of its own if it has to.
func TestAgentsOverTLS(t *testing.T) {
	t.Parallel()
	own, err := selfsigned.New(time.Now().Add(time.Hour), "127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	agents, err := selfsigned.New(time.Now().Add(time.Hour), "agent")
	if err != nil {
		t.Fatal(err)
	}
	s, err := NewServer("127.0.0.1:0", "", &tls.Config{
		Certificates: []tls.Certificate{own}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: selfsigned.Pool(agents),
	})
	if err != nil {
		t.Fatal(err)
	}
	p := &place{t: t, server: s, log: new(testkit.Log), watch: &watch{}, remote: NewRemote()}
	t.Cleanup(s.Close)
	url := "nats://" + s.Addr()
	for name, wrong := range map[string]*tls.Config{
		"no certificate":     {RootCAs: selfsigned.Pool(own)},
		"another's":          {RootCAs: selfsigned.Pool(own), Certificates: []tls.Certificate{own}},
		"it trusts somebody": {RootCAs: selfsigned.Pool(agents), Certificates: []tls.Certificate{agents}},
	} {
		if conn, err := Connect(t.Context(), Broker{URL: url, TLS: wrong}, false, logTo(p.log)); err == nil {
			conn.Close()
			t.Errorf("%s: it is connected", name)
		}
	}
	if conn, err := Connect(t.Context(), Broker{URL: url}, false, logTo(p.log)); err == nil {
		conn.Close()
		t.Error("without TLS it is connected")
	}
	p.broker = Broker{URL: url, TLS: &tls.Config{RootCAs: selfsigned.Pool(own), Certificates: []tls.Certificate{agents}}}
	p.add("a", nil)
	if r := p.end(p.start(t.Context(), load(10), 1)); !r.OK() {
		t.Errorf("%+v", r)
	}
}

func TestAServerThatTakesShortMessagesIsRefused(t *testing.T) {
	t.Parallel()
	s := foreignServer(t, server.RANDOM_PORT, 1000)
	if conn, err := Connect(t.Context(), Broker{URL: s.ClientURL()}, true, logTo(new(testkit.Log))); err == nil || !strings.Contains(err.Error(), "max_payload") {
		t.Errorf("%v %v", conn, err)
	}
}

// A NATS server that others run is used as it is. While it restarts, the load goes on, and
// nothing is lost or counted twice.
func TestANATSServerThatRestarts(t *testing.T) {
	t.Parallel()
	s := foreignServer(t, server.RANDOM_PORT, messageMax)
	port := s.Addr().(*net.TCPAddr).Port
	p := &place{t: t, broker: Broker{URL: s.ClientURL()}, log: new(testkit.Log), watch: &watch{}, remote: NewRemote()}
	agents := []*agentPart{p.add("a", nil), p.add("b", nil)}
	hold := make(chan struct{})
	for _, a := range agents {
		a.hold = hold
	}
	done := p.start(t.Context(), load(100), len(agents))
	p.connected(100)
	s.Shutdown()
	s.WaitForShutdown()
	close(hold) // the agents come to the next barrier meanwhile
	foreignServer(t, port, messageMax)
	if r := p.end(done); !r.OK() || r.Counts["received"] != 700 || r.Histograms.Of(measure.Echo).TotalCount() != 300 {
		t.Errorf("%+v", r)
	}
}

// The configuration in docs/agents.md lets agents and coordinators do what they do, and agents
// nothing else.
func TestTheUsersOnThePageAboutAgents(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/agents.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(page), "\nauthorization {")
	config, _, _ := strings.Cut("authorization {"+rest, "```")
	if !found {
		t.Fatal("it has no configuration")
	}
	options := &server.Options{}
	if err := options.ProcessConfigString(strings.ReplaceAll(config, "…", "secret")); err != nil {
		t.Fatal(err)
	}
	options.Host, options.Port, options.NoSigs, options.NoLog = "127.0.0.1", server.RANDOM_PORT, true, true
	s := startNATS(t, options)
	as := func(user string) Broker { return Broker{URL: "nats://" + user + ":secret@" + s.Addr().String()} }
	p := &place{t: t, broker: as("agent"), log: new(testkit.Log), watch: &watch{}, remote: NewRemote()}
	agents := []*agentPart{p.add("a", nil), p.add("b", nil)}
	p.broker = as("coordinator")
	if r := p.end(p.start(t.Context(), load(100), len(agents))); !r.OK() {
		t.Errorf("%+v", r)
	}
	for _, a := range agents {
		if a.log.Has("ermission") {
			t.Errorf("agents may not do what they do")
		}
	}
	if p.log.Has("ermission") {
		t.Error("coordinators may not do what they do")
	}
	if err := agents[0].conn.Publish(agentPrefix+"other", nil); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, "it is refused", func() bool { return agents[0].log.Has("ermission") })
}
