package hooks

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"strings"
	"time"
)

// forwarded is what another node has answered.
type forwarded struct {
	status int
	body   []byte
}

func (*forwarded) Error() string { return "another node has answered" }

// forwardedHeader marks a request that comes from another node: it goes no further.
const forwardedHeader = "Lull-Forwarded"

// peerTimeout is how long another node may take.
const peerTimeout = 10 * time.Second

// elsewhere has the node of a connection answer a request that is about it.
func (a *api) elsewhere(id string, r *http.Request, data []byte) error {
	at := strings.LastIndexByte(id, '-')
	if a.options.Peers == nil || at < 0 || id[:at+1] == a.hooks.node || r.Header.Get(forwardedHeader) != "" {
		return errGone
	}
	node := a.options.Peers(id[:at])
	if node == nil {
		return errGone
	}
	ctx, cancel := context.WithTimeout(r.Context(), peerTimeout)
	defer cancel()
	there, err := http.NewRequestWithContext(ctx, r.Method, "http://"+id[:at]+r.URL.RequestURI(), bytes.NewReader(data))
	if err != nil {
		return errGone
	}
	for _, name := range []string{"Content-Type", "Idempotency-Key"} {
		if value := r.Header.Get(name); value != "" {
			there.Header.Set(name, value)
		}
	}
	there.Header.Set(forwardedHeader, "1")
	if a.auth != nil {
		there.Header.Set("Authorization", "Bearer "+a.auth.token)
	}
	answer, err := node.RoundTrip(there)
	if err != nil {
		return errPeer
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(io.LimitReader(answer.Body, peerMost))
	if err != nil {
		return errPeer
	}
	a.hooks.api.add(countForwarded)
	return &forwarded{answer.StatusCode, body}
}

// peerMost is how many bytes of another node's answer are passed on.
const peerMost = 1 << 20
