package agent

import (
	"crypto/subtle"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/seed-134acfd0/lull/internal/natsd"
)

// connsMax is how many connections a Server has at most.
const connsMax = agentsMax + 10

// Server is a NATS server within the coordinator's process, for agents and nobody else.
type Server struct {
	nats   *server.Server
	secret string // the coordinator's own token
}

// NewServer starts a NATS server at an address, such as ":4222"; port 0 is a free one.
// Agents must know the token, or show a certificate if config asks for one. Without
// either only a loopback address is allowed. config may be nil.
func NewServer(address, token string, config *tls.Config) (*Server, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, fmt.Errorf("agent: %w", err)
	}
	if asks := config != nil && config.ClientAuth == tls.RequireAndVerifyClientCert; token == "" && !asks && !natsd.Loopback(host) {
		return nil, fmt.Errorf("agent: %s: other machines could take part, so it needs a token or certificates of agents; or listen on 127.0.0.1", address)
	}
	port, err := natsd.FreePort(address)
	if err != nil {
		return nil, fmt.Errorf("agent: %w", err)
	}
	s := &Server{secret: randomID() + randomID()}
	s.nats, err = natsd.Start(&server.Options{
		ServerName: "lull", Host: host, Port: port,
		MaxConn: connsMax, MaxPayload: messageMax, PingInterval: agentPatience,
		TLS: config != nil, TLSConfig: config, TLSTimeout: natsd.StartTimeout.Seconds(),
		CustomClientAuthentication: &door{secret: s.secret, token: token},
	})
	if err != nil {
		return nil, fmt.Errorf("agent: %s: %w", address, err)
	}
	return s, nil
}

// Addr is where it listens, as host:port.
func (s *Server) Addr() string { return s.nats.Addr().String() }

// Connect connects the coordinator, within the process.
func (s *Server) Connect(log *slog.Logger) (*nats.Conn, error) {
	b := Broker{Token: s.secret}
	conn, err := nats.Connect("", append(b.options(log), nats.InProcessServer(s.nats))...)
	if err != nil {
		return nil, fmt.Errorf("agent: %w", err)
	}
	return conn, nil
}

// Close ends the server and its connections.
func (s *Server) Close() {
	natsd.Stop(s.nats)
}

// door decides who may connect, and what they may do: the coordinator everything, agents
// what an agent does. So nobody who has the agents' token can command other agents.
type door struct{ secret, token string }

// Check is called for each connection.
func (d *door) Check(c server.ClientAuthentication) bool {
	given := []byte(c.GetOpts().Token)
	if subtle.ConstantTimeCompare(given, []byte(d.secret)) == 1 {
		return true
	}
	if d.token != "" && subtle.ConstantTimeCompare(given, []byte(d.token)) != 1 {
		return false
	}
	c.RegisterUser(&server.User{Username: "agent", Permissions: &server.Permissions{
		Publish:   &server.SubjectPermission{Allow: []string{runPrefix + "*"}},
		Subscribe: &server.SubjectPermission{Allow: []string{helloSubject, agentPrefix + "*", nats.InboxPrefix + ">"}},
		Response:  &server.ResponsePermission{MaxMsgs: -1, Expires: time.Minute}, // the coordinator calls several times with one inbox
	}})
	return true
}
