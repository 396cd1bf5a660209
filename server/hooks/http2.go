package hooks

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"time"
)

// http2 speaks HTTP/2, many calls at a time on a connection, with TLS or without it
// (RFC 9113 section 3.3).
type http2 struct {
	to     target
	signer *signer
	most   int // bytes of an answer
	client http.Transport
	ctx    context.Context // ends with close
	end    context.CancelFunc
}

func newHTTP2(to target, s *signer, most int) *http2 {
	t := &http2{to: to, signer: s, most: most}
	t.ctx, t.end = context.WithCancel(context.Background())
	t.client.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		conn, err := d.DialContext(ctx, to.network, to.address)
		if err != nil {
			return nil, unsent{err}
		}
		return conn, nil
	}
	t.client.Protocols = new(http.Protocols)
	t.client.Protocols.SetHTTP2(to.secure)
	t.client.Protocols.SetUnencryptedHTTP2(!to.secure)
	t.client.TLSClientConfig = &tls.Config{ServerName: to.name, RootCAs: to.roots}
	t.client.DisableCompression = true
	return t
}

func (t *http2) do(c *call, at time.Time, timeout time.Duration) (answer, func(), error) {
	ctx, cancel := context.WithTimeout(t.ctx, timeout)
	defer cancel()
	scheme := "http"
	if t.to.secure {
		scheme = "https"
	}
	// A body without GetBody is never sent twice. It may be read after the answer has come.
	r, err := http.NewRequestWithContext(ctx, c.method(), scheme+"://"+t.to.host+t.to.uri, struct{ io.Reader }{bytes.NewReader(bytes.Clone(c.body))})
	if err != nil {
		return answer{}, nil, unsent{err}
	}
	r.ContentLength = int64(len(c.body))
	if len(c.body) == 0 {
		r.Body = http.NoBody
	}
	r.Header.Set("User-Agent", agent)
	c.head(at, t.signer, func(name, value string) { r.Header.Add(name, value) })
	response, err := t.client.RoundTrip(r)
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return answer{}, nil, errTimeout
	case err != nil:
		return answer{}, nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, int64(t.most)+1))
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return answer{}, nil, errTimeout
	case err != nil:
		return answer{}, nil, errCut
	case len(body) > t.most:
		return answer{}, nil, errLarge
	}
	return answer{response.StatusCode, response.Header, body}, func() {}, nil
}

func (t *http2) close() {
	t.end()
	t.client.CloseIdleConnections()
}
