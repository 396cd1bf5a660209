// Package natsd starts NATS servers within a process, and logs in at others.
package natsd

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// StartTimeout is how long a server may take to start.
const StartTimeout = 10 * time.Second

// Start starts a server without a log of its own, without signal handlers and without NATS'
// system account, and waits until it is ready.
func Start(o *server.Options) (*server.Server, error) {
	o.NoSigs, o.NoLog, o.NoSystemAccount = true, true, true
	s, err := server.NewServer(o)
	if err != nil {
		return nil, err
	}
	s.Start()
	if !s.ReadyForConnections(StartTimeout) {
		Stop(s)
		return nil, fmt.Errorf("the NATS server did not start within %s", StartTimeout)
	}
	return s, nil
}

// Stop ends a server and its connections, and waits for its end.
func Stop(s *server.Server) {
	s.Shutdown()
	s.WaitForShutdown()
}

// Loopback reports whether a host, an address or a name, is this machine alone.
func Loopback(host string) bool {
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && addr.IsLoopback()
}

// FreePort checks that an address, host:port, can be listened on, because a server would
// only log an error, and returns its port's number as a server wants it.
func FreePort(address string) (int, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return 0, err
	}
	_ = l.Close()
	if _, port, _ := net.SplitHostPort(address); port == "0" {
		return server.RANDOM_PORT, nil
	}
	_, port, _ := net.SplitHostPort(l.Addr().String()) // it may have had a name
	return strconv.Atoi(port)
}
