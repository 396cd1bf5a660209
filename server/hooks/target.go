package hooks

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
)

// target is where a backend is.
type target struct {
	network, address string // to dial
	secure           bool   // TLS
	http2            bool
	name             string // that the certificate has to have
	roots            *x509.CertPool
	host             string // for the Host header
	uri              string // for the request line
}

// parseTarget reads a backend's URL:
//
//	http://host[:port]/path          HTTP/1.1
//	https://host[:port]/path         HTTP/1.1 over TLS
//	h2c://host[:port]/path           HTTP/2
//	h2://host[:port]/path            HTTP/2 over TLS
//	unix:/path/of/socket[:/path]     HTTP/1.1 on a unix socket
func parseTarget(text string) (target, error) {
	if socket, ok := strings.CutPrefix(text, "unix:"); ok {
		path, uri, found := strings.Cut(socket, ":")
		if !found {
			uri = "/"
		}
		if !strings.HasPrefix(path, "/") || !strings.HasPrefix(uri, "/") || strings.ContainsFunc(uri, notInURI) {
			return target{}, errors.New("a unix socket is unix:/path/of/socket or unix:/path/of/socket:/path")
		}
		return target{network: "unix", address: path, host: "localhost", uri: uri}, nil
	}
	u, err := url.Parse(text)
	if err != nil {
		return target{}, fmt.Errorf("it is no URL: %w", err)
	}
	t := target{network: "tcp", host: u.Host, name: u.Hostname(), uri: u.RequestURI()}
	port := u.Port()
	switch u.Scheme {
	case "http":
	case "https":
		t.secure = true
	case "h2c":
		t.http2 = true
	case "h2":
		t.secure, t.http2 = true, true
	default:
		return target{}, fmt.Errorf("it begins with http://, https://, h2c://, h2:// or unix:, not %q", u.Scheme)
	}
	switch {
	case port == "" && t.secure:
		port = "443"
	case port == "":
		port = "80"
	}
	if u.Hostname() == "" || u.User != nil || u.Fragment != "" || !strings.HasPrefix(t.uri, "/") || strings.ContainsFunc(t.host, notInURI) {
		return target{}, errors.New("it is a host, perhaps a port, and a path, and has no user and no fragment")
	}
	t.address = net.JoinHostPort(u.Hostname(), port)
	return t, nil
}

func notInURI(r rune) bool { return r <= ' ' || r >= 0x7f }
