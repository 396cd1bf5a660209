package frame

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"net/http"
	"strconv"

	"github.com/gobwas/ws"
)

// Window is what two peers agreed about permessage-deflate (RFC 7692): zero
// for nothing, else the base-2 logarithm of the LZ77 window, 8–15, that the
// server's compressor may use. Neither side keeps its window from one message
// to the next, so an idle connection costs nothing more.
type Window uint8

// MaxWindow is the largest window of DEFLATE, 32 KiB.
const MaxWindow Window = 15

// Size returns the window in bytes.
func (w Window) Size() int { return 1 << w }

const (
	extensionsName = "Sec-WebSocket-Extensions"
	deflateName    = "permessage-deflate"
	// RFC 7692 section 7.1.1: in an offer the first asks the server to forget its
	// window after each message, and the second says that the client is going
	// to; a response binds both to it.
	deflateTerms = deflateName + "; server_no_context_takeover; client_no_context_takeover"
	deflateLine  = extensionsName + ": " + deflateTerms
)

// deflateAnswers are the header lines of responses, by the window that the
// accepted offer speaks of: section 7.1.2.1 wants it repeated. The first is for
// offers that do not.
var deflateAnswers = func() (lines [MaxWindow + 1]string) {
	lines[0] = deflateLine + "\r\n"
	for w := Window(8); w <= MaxWindow; w++ {
		lines[w] = fmt.Sprintf("%s; server_max_window_bits=%d\r\n", deflateLine, w)
	}
	return lines
}()

// deflateOffer is an offer that the server accepts. Its zero value is none.
type deflateOffer struct {
	window Window
	answer string // the response's header line
}

// deflateHeader is what a response has beside the mandatory headers.
type deflateHeader struct {
	answer string
	more   http.Header // may be nil
}

func (h deflateHeader) WriteTo(w io.Writer) (int64, error) {
	n, err := io.WriteString(w, h.answer)
	if err != nil || h.more == nil {
		return int64(n), err
	}
	m, err := ws.HandshakeHeaderHTTP(h.more).WriteTo(w)
	return int64(n) + m, err
}

// chooseOffer returns the first acceptable offer of a request, the one that the
// client prefers (RFC 6455 section 9.1). It is false if the request breaks that
// section's grammar.
func (r *Request) chooseOffer() (chosen deflateOffer, ok bool) {
	for name, value := range r.fields() {
		if !is(name, extensionsName) {
			continue
		}
		for list := extensions(value); !list.end(); {
			p, ok := list.next()
			if !ok {
				return deflateOffer{}, false
			}
			if p.valid && chosen.window == 0 {
				chosen = deflateOffer{cmp.Or(p.serverWindow, MaxWindow), deflateAnswers[p.serverWindow]}
			}
		}
	}
	return chosen, true
}

// extensions is what is left of a Sec-WebSocket-Extensions header's value (RFC
// 6455 section 9.1). httphead takes more than that grammar: "a b", "a;", "a;b=".
type extensions []byte

// deflateParams are the parameters of an extension.
type deflateParams struct {
	// valid marks an extension that is permessage-deflate and whose parameters
	// are known, well-formed and not repeated. Another offer is declined (RFC
	// 7692 section 7.1).
	valid         bool
	serverForgets bool   // server_no_context_takeover
	clientForgets bool   // client_no_context_takeover
	clientWindow  bool   // client_max_window_bits, with or without a value
	serverWindow  Window // server_max_window_bits, zero if absent
}

// end skips empty items, which RFC 9110 section 5.6.1 allows in a list, and
// reports whether nothing is behind them.
func (e *extensions) end() bool {
	for e.space(); e.take(','); e.space() {
	}
	return len(*e) == 0
}

// next takes an extension with its parameters. It is false where the grammar is
// broken.
func (e *extensions) next() (p deflateParams, ok bool) {
	name := e.token()
	p.valid = string(name) == deflateName
	for ok = len(name) > 0; ok && e.take(';'); {
		var value []byte
		name := e.token()
		if ok = len(name) > 0; ok && e.take('=') {
			value, ok = e.value()
		}
		p.valid = p.set(name, value) && p.valid
	}
	return p, ok && (e.take(',') || len(*e) == 0)
}

// set takes a parameter, with nil for no value. It is false for one that is
// unknown or repeated, and for a value that RFC 7692 section 7.1 does not allow.
func (p *deflateParams) set(name, value []byte) bool {
	once := func(seen *bool) bool {
		first := !*seen
		*seen = true
		return first
	}
	switch string(name) {
	case "server_no_context_takeover":
		return once(&p.serverForgets) && value == nil
	case "client_no_context_takeover":
		return once(&p.clientForgets) && value == nil
	case "server_max_window_bits":
		first := p.serverWindow == 0
		p.serverWindow = windowBits(value)
		return first && p.serverWindow != 0
	case "client_max_window_bits":
		return once(&p.clientWindow) && (value == nil || windowBits(value) != 0)
	}
	return false
}

// windowBits reads a decimal number between 8 and 15 without leading zeros (RFC
// 7692 section 7.1.2), zero if value is none.
func windowBits(value []byte) Window {
	for w := Window(8); w <= MaxWindow; w++ {
		if string(value) == strconv.Itoa(int(w)) {
			return w
		}
	}
	return 0
}

// token takes a token and the space around it. It is empty if none is next.
func (e *extensions) token() []byte {
	e.space()
	n := 0
	for n < len(*e) && token[(*e)[n]] {
		n++
	}
	t := (*e)[:n]
	*e = (*e)[n:]
	e.space()
	return t
}

// value takes a token or a quoted string, which has to be a token without its
// quotes and backslashes, and the space around it.
func (e *extensions) value() (value []byte, ok bool) {
	e.space()
	if !e.take('"') {
		value = e.token()
		return value, len(value) > 0
	}
	for !e.take('"') {
		e.take('\\')
		if len(*e) == 0 || !token[(*e)[0]] {
			return nil, false
		}
		value = append(value, (*e)[0])
		*e = (*e)[1:]
	}
	e.space()
	return value, len(value) > 0
}

// take takes c if it is next.
func (e *extensions) take(c byte) bool {
	if len(*e) == 0 || (*e)[0] != c {
		return false
	}
	*e = (*e)[1:]
	return true
}

func (e *extensions) space() { *e = bytes.TrimLeft(*e, " \t") }
