package hooks

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"hash"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/seed-134acfd0/lull/internal/percent"
)

// What a backend is told of.
const (
	eventConnect    = "connect"
	eventMessage    = "message"
	eventMessages   = "messages" // a batch of them
	eventDisconnect = "disconnect"
)

// call is one request to a backend, before it is spelled in HTTP.
type call struct {
	event      string // empty for a probe, which has nothing but a method
	id         string // of the call; the same when it is made again
	connection string
	user       string // escaped
	content    string // Content-Type
	header     [][2]string
	body       []byte
}

// method is the method of a request that makes c.
func (c *call) method() string {
	if c.event == "" {
		return http.MethodOptions
	}
	return http.MethodPost
}

// head calls field with the headers of c, made at a time, signed if there is a signer.
func (c *call) head(at time.Time, s *signer, field func(name, value string)) {
	if c.event == "" {
		return
	}
	stamp := strconv.FormatInt(at.Unix(), 10)
	field("Content-Type", c.content)
	field("Lull-Event", c.event)
	field("Lull-Connection", c.connection)
	field("Lull-User", c.user)
	field("Lull-Id", c.id)
	field("Lull-Timestamp", stamp)
	if s != nil {
		field("Lull-Signature", s.sign(stamp, c))
	}
	for _, h := range c.header {
		field(h[0], h[1])
	}
}

// signer signs calls: "v1=" and, in hexadecimal, HMAC-SHA256 (RFC 2104) of
//
//	timestamp "\n" id "\n" event "\n" connection "\n" user "\n" body
//
// each as it stands in its header. Any goroutine may use it.
type signer struct{ macs sync.Pool }

func newSigner(secret []byte) *signer {
	return &signer{sync.Pool{New: func() any { return hmac.New(sha256.New, secret) }}}
}

func (s *signer) sign(stamp string, c *call) string {
	mac := s.macs.Get().(hash.Hash)
	defer s.macs.Put(mac)
	mac.Reset()
	text := make([]byte, 0, 256)
	for _, part := range [...]string{stamp, c.id, c.event, c.connection, c.user} {
		text = append(append(text, part...), '\n')
	}
	mac.Write(text)
	mac.Write(c.body)
	return "v1=" + hex.EncodeToString(mac.Sum(text[:0]))
}

// escape spells a name so that it can stand in a header, as url.PathEscape does, but
// for fewer signs.
func escape(name string) string {
	return percent.Encode(name, func(b byte) bool {
		return b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z' || b >= '0' && b <= '9' ||
			b == '-' || b == '.' || b == '_' || b == '~' || b == '@' || b == ':' || b == '+' || b == '$' || b == '='
	})
}

// answer is what a backend has answered. It is valid until its exchange is given back.
type answer struct {
	status int
	header interface{ Get(name string) string }
	body   []byte
}

// gatewayError is what a status says that is not the backend's own, but of what stands before it.
func (a *answer) gatewayError() error {
	switch a.status {
	case http.StatusServiceUnavailable:
		return unsent{errUnavailable}
	case http.StatusBadGateway, http.StatusGatewayTimeout:
		return errGateway
	}
	return nil
}

// unsent wraps the error of a call of which the backend has not seen anything, so that
// it can be made again without harm.
type unsent struct{ error }

func (u unsent) Unwrap() error { return u.error }
