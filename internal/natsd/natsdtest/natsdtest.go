// Package natsdtest starts NATS servers for tests.
package natsdtest

import (
	"testing"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/seed-134acfd0/lull/internal/natsd"
)

// Start starts a server on a free port of 127.0.0.1, with options as change leaves them, that
// ends with the test.
func Start(t testing.TB, change ...func(*server.Options)) *server.Server {
	t.Helper()
	o := &server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT}
	for _, c := range change {
		c(o)
	}
	s, err := natsd.Start(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { natsd.Stop(s) })
	return s
}
