package agent

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/seed-134acfd0/lull/internal/natsd"
)

// connectEvery is how often an agent tries to reach its NATS server.
const connectEvery = time.Second

// Broker says how to reach a NATS server. Zero values are left out.
type Broker struct {
	URL       string // nats://host:4222, or tls:// where the server wants TLS
	Token     string
	CredsFile string      // with a user's JWT and seed
	TLS       *tls.Config // nil is without, unless URL says tls://
}

// Connect connects to a NATS server. If it cannot be reached, Connect tries again until ctx
// ends if wait is true, as an agent does whose coordinator comes later. A server that
// refuses the token or the certificate is an error always. A connection that is lost later
// is made again, as long as it takes.
func Connect(ctx context.Context, b Broker, wait bool, log *slog.Logger) (*nats.Conn, error) {
	said := ""
	for {
		conn, err := nats.Connect(b.URL, b.options(log)...)
		switch {
		case err == nil:
			return enough(conn)
		case !wait || refused(err):
			return nil, fmt.Errorf("agent: NATS at %s: %w", natsd.Redacted(b.URL), err)
		case err.Error() != said:
			said = err.Error()
			log.Warn("there is no connection to the NATS server yet: trying on", "url", natsd.Redacted(b.URL), "error", err)
		}
		select {
		case <-time.After(connectEvery):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// refused reports whether there is no use in trying again.
func refused(err error) bool {
	var certificate *tls.CertificateVerificationError
	return errors.Is(err, nats.ErrAuthorization) || errors.Is(err, nats.ErrAuthExpired) || errors.Is(err, nats.ErrSecureConnRequired) ||
		errors.Is(err, nats.ErrSecureConnWanted) || errors.As(err, &certificate)
}

func (b *Broker) options(log *slog.Logger) []nats.Option {
	return append(natsd.Login(b.Token, b.CredsFile, b.TLS),
		nats.Name("lull"), nats.MaxReconnects(-1), nats.ReconnectWait(connectEvery), nats.IgnoreAuthErrorAbort(),
		// What was not sent is said again, newer; so nothing waits for a connection.
		nats.ReconnectBufSize(-1),
		nats.PingInterval(agentPatience),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err != nil {
				log.Warn("the connection to the NATS server is lost: trying on", "error", err)
			}
		}),
		nats.ReconnectHandler(func(*nats.Conn) { log.Info("the NATS server is there again") }),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { log.Warn("NATS", "error", err) }),
	)
}

// enough refuses a server that does not take messages of the size that may be needed.
func enough(conn *nats.Conn) (*nats.Conn, error) {
	if most := conn.MaxPayload(); most < messageMax {
		conn.Close()
		return nil, fmt.Errorf("agent: the NATS server takes messages of %d bytes, and %d are needed: set its max_payload to 1MB", most, messageMax)
	}
	return conn, nil
}
