package gate

import (
	"math/rand/v2"
	"net/http"
	"time"
)

// Reason is why somebody was refused.
type Reason uint8

const (
	Admitted Reason = iota // not refused
	ForeignOrigin
	AddressConns
	AddressRate
	PrefixConns
	PrefixRate
	TotalRate
	MemoryPressure
	Draining
	ProxyHead
	reasons
)

// refusals are what each reason means. A status of zero is for those who cannot
// be answered: whoever sent no proxy's head need not speak HTTP.
var refusals = [reasons]struct {
	label  string
	status int
	text   string
}{
	Admitted:       {"admitted", http.StatusSwitchingProtocols, ""},
	ForeignOrigin:  {"origin", http.StatusForbidden, "pages of this origin may not connect"},
	AddressConns:   {"address_connections", http.StatusTooManyRequests, "too many connections from this address"},
	AddressRate:    {"address_rate", http.StatusTooManyRequests, "too many handshakes from this address"},
	PrefixConns:    {"prefix_connections", http.StatusTooManyRequests, "too many connections from this network"},
	PrefixRate:     {"prefix_rate", http.StatusTooManyRequests, "too many handshakes from this network"},
	TotalRate:      {"total_rate", http.StatusServiceUnavailable, "too many handshakes"},
	MemoryPressure: {"memory", http.StatusServiceUnavailable, "the server is short of memory"},
	Draining:       {"draining", http.StatusServiceUnavailable, "the server is shutting down"},
	ProxyHead:      {"proxy_head", 0, "the proxy's head is missing or malformed"},
}

// String is a word for labels of counters.
func (r Reason) String() string { return refusals[r].label }

// Status is the HTTP status of the answer: 403, 429 (RFC 6585 section 4) or 503.
// It is zero for ProxyHead, where the connection ends without an answer.
func (r Reason) Status() int { return refusals[r].status }

// Text is a sentence for the answer's body and for logs.
func (r Reason) Text() string { return refusals[r].text }

// Verdict is what was decided about a connection or a handshake.
type Verdict struct {
	Reason Reason
	Wait   time.Duration // after which it is worthwhile to try again; zero if it never is
}

// OK reports whether it may come in.
func (v Verdict) OK() bool { return v.Reason == Admitted }

// RetryAfter is the value of a Retry-After header (RFC 9110 section 10.2.3) in
// seconds: Wait, and at random up to half as much again, so that those who were
// refused together do not come back together. Zero means that the header should be
// left out.
func (v Verdict) RetryAfter() int {
	if v.Wait <= 0 {
		return 0
	}
	seconds := int((v.Wait + time.Second - 1) / time.Second)
	return seconds + rand.IntN(seconds/2+2)
}
