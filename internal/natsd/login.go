package natsd

import (
	"crypto/tls"
	"net/url"
	"strings"

	"github.com/nats-io/nats.go"
)

// Login returns the options of a connection that logs in, with a token, a file of a user's
// JWT and seed, and TLS. What is empty or nil is left out.
func Login(token, credsFile string, tls *tls.Config) (options []nats.Option) {
	if token != "" {
		options = append(options, nats.Token(token))
	}
	if credsFile != "" {
		options = append(options, nats.UserCredentials(credsFile))
	}
	if tls != nil {
		options = append(options, nats.Secure(tls))
	}
	return options
}

// Redacted returns the URLs of servers, with commas in between, without their passwords.
func Redacted(urls string) string {
	all := strings.Split(urls, ",")
	for i, raw := range all {
		all[i] = "its URL"
		if u, err := url.Parse(strings.TrimSpace(raw)); err == nil {
			all[i] = u.Redacted()
		}
	}
	return strings.Join(all, ",")
}
