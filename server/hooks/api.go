package hooks

import (
	"cmp"
	"encoding/json"
	"errors"
	"io"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/internal/page"
	"github.com/seed-134acfd0/lull/server"
)

// APIOptions are options of Hooks.API. The zero value is the default.
type APIOptions struct {
	// Token is what every request has to show: as "Authorization: Bearer TOKEN", or as the
	// secret key with which AWS's SDKs sign (Signature Version 4, with any access key ID).
	// Without a token there is no authentication, and the handler belongs on a loopback
	// address or a unix socket.
	Token string
	// Names are the host names under which the API may be asked without a token, beside
	// addresses and localhost.
	Names []string
	// Peers returns the way to the API of another node, by what its connections' IDs begin
	// with, up to the last "-"; nil if there is no such node. The requests about these
	// connections go there.
	Peers func(node string) http.RoundTripper
}

// api is the way back: what backends ask for.
type api struct {
	hooks   *Hooks
	server  *server.Server
	options APIOptions
	auth    *auth // nil without a token
	routes  []route
	repeats repeats
}

// API returns the HTTP handler of the API of a server that h is the handler of.
//
//	POST   /connections/ID               send the body
//	GET    /connections/ID               who it is: user, topics, address
//	DELETE /connections/ID               close it; ?code=4001&reason=TEXT
//	PUT    /connections/ID/topics/TOPIC  subscribe it
//	DELETE /connections/ID/topics/TOPIC  unsubscribe it
//	POST   /users/USER                   send the body to all connections of a user
//	GET    /users/USER                   which these are
//	DELETE /users/USER                   close them; as above
//	PUT    /users/USER/topics/TOPIC      subscribe them
//	DELETE /users/USER/topics/TOPIC      unsubscribe them
//	POST   /topics/TOPIC                 publish the body; ?receipt=1 waits, and tells whom it has reached
//	GET    /topics/TOPIC                 how many subscribe to it
//	GET    /topics                       which there are; ?prefix=TEXT&limit=100
//	POST   /broadcast                    send the body to everybody; ?receipt=1 as above
//
// and what AWS's clients for API Gateway's @connections ask for: POST, GET and DELETE of
// /@connections/ID, with or without a stage before it. docs/hooks.md describes all of it.
func (h *Hooks) API(s *server.Server, o APIOptions) http.Handler {
	a := &api{hooks: h, server: s, options: o}
	a.routes = []route{
		{"POST", "connections/{id}", a.connection(a.send)},
		{"GET", "connections/{id}", a.connection(a.who)},
		{"DELETE", "connections/{id}", a.connection(a.close)},
		{"PUT", "connections/{id}/topics/{topic...}", a.connection(a.subscribe)},
		{"DELETE", "connections/{id}/topics/{topic...}", a.connection(a.unsubscribe)},
		{"POST", "users/{user}", a.user(a.sendTo)},
		{"GET", "users/{user}", a.user(a.connectionsOf)},
		{"DELETE", "users/{user}", a.user(a.each(a.close))},
		{"PUT", "users/{user}/topics/{topic...}", a.user(a.each(a.subscribe))},
		{"DELETE", "users/{user}/topics/{topic...}", a.user(a.each(a.unsubscribe))},
		{"GET", "topics", a.topics},
		{"POST", "topics/{topic...}", a.topic(a.publishTo)},
		{"GET", "topics/{topic...}", a.topic(a.subscribers)},
		{"POST", "broadcast", a.broadcast},
		{"POST", "@connections/{id}", a.connection(a.sendAny)},
		{"GET", "@connections/{id}", a.connection(a.identify)},
		{"DELETE", "@connections/{id}", a.connection(a.remove)},
		{"POST", "{stage}/@connections/{id}", a.connection(a.sendAny)},
		{"GET", "{stage}/@connections/{id}", a.connection(a.identify)},
		{"DELETE", "{stage}/@connections/{id}", a.connection(a.remove)},
	}
	if o.Token != "" {
		a.auth = newAuth(o.Token)
		return a
	}
	return page.Guard{Names: o.Names}.Handler(a)
}

// action does what a request asks for. It returns what is answered as JSON: with 200; or
// with 202, if it is accepted; or an error.
type action func(r *http.Request, data []byte) (any, error)

// route is what is done for a method and a path. The path's segments are names, or {name} for
// one of any kind, or {name...} for all that are left.
type route struct {
	method, path string
	do           action
}

// match returns the values of the path's names. The path is escaped, because a name may have
// a slash in it, or be "..".
func (t *route) match(path string) (values map[string]string, ok bool) {
	const end = "\x00" // no segment is this
	values = map[string]string{}
	for part := range strings.SplitSeq(t.path, "/") {
		name, wild := strings.CutPrefix(part, "{")
		name = strings.TrimSuffix(name, "}")
		first, rest, more := strings.Cut(path, "/")
		if all, left := strings.CutSuffix(name, "..."); wild && left {
			name, first, rest, more = all, path, "", false
		}
		text, err := url.PathUnescape(first)
		switch {
		case err != nil, path == end:
			return nil, false
		case wild:
			values[name] = text
		case text != part:
			return nil, false
		}
		if path = rest; !more {
			path = end
		}
	}
	return values, path == end
}

// ServeHTTP answers a request.
func (a *api) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	do, err := a.route(r)
	if err != nil {
		do = func(*http.Request, []byte) (any, error) { return nil, err }
	}
	status, body := a.handle(w, r, do)
	if len(body) > 0 {
		w.Header().Set("Content-Type", "application/json")
	}
	w.WriteHeader(status)
	_, _ = w.Write(body) // an error means that the client has gone
}

// route finds what is done for a request.
func (a *api) route(r *http.Request) (action, error) {
	path := strings.TrimPrefix(r.URL.EscapedPath(), "/")
	missing := errNoPath
	for i := range a.routes {
		t := &a.routes[i]
		values, ok := t.match(path)
		if ok && t.method != r.Method {
			missing = errMethod
		}
		if !ok || t.method != r.Method {
			continue
		}
		for name, value := range values {
			r.SetPathValue(name, value)
		}
		return t.do, nil
	}
	return nil, missing
}

// apiError is what an API's request is answered that does not do what it asks for.
type apiError struct {
	status     int
	code, text string
}

func (e *apiError) Error() string { return e.text }

// The errors of the API. Each is counted by its code.
var (
	errNoToken    = &apiError{401, "no_token", "show the token: Authorization: Bearer TOKEN"}
	errWrongToken = &apiError{401, "wrong_token", "that is not the token"}
	errSignature  = &apiError{403, "malformed_signature", "the Authorization header cannot be understood"}
	errForged     = &apiError{403, "wrong_signature", "the signature is not the token's, or of another request"}
	errOld        = &apiError{403, "old_signature", "the signature is older than five minutes, or of the future"}
	errNoPath     = &apiError{404, "no_path", "there is nothing at this path"}
	errMethod     = &apiError{405, "wrong_method", "this path has other methods"}
	errGone       = &apiError{410, "gone", "there is no such connection"}
	errTopic      = &apiError{400, "bad_topic", "a topic has 1 to 200 bytes of UTF-8 without control characters, and does not begin with \"user:\""}
	errUser       = &apiError{400, "bad_user", "a user's name has 1 to 195 bytes of UTF-8 without control characters"}
	errTooLarge   = &apiError{413, "too_large", "the body is larger than a message may be"}
	errBody       = &apiError{400, "bad_body", "the body did not arrive whole"}
	errNotText    = &apiError{400, "bad_text", "the body is not UTF-8, as its type says"}
	errCode       = &apiError{400, "bad_code", "code is 1000 or from 3000 to 4999, and reason has up to 123 bytes of UTF-8"}
	errNumber     = &apiError{400, "bad_limit", "limit is a number from 1 to 10000"}
	errKey        = &apiError{400, "bad_key", "an Idempotency-Key has up to 255 bytes"}
	errKeyReused  = &apiError{422, "key_reused", "the Idempotency-Key was of another request"}
	errKeyBusy    = &apiError{409, "key_busy", "the request with this Idempotency-Key is under way"}
	errSlow       = &apiError{429, "backpressure", "too much is on its way already: try again later"}
	errFull       = &apiError{503, "full", "there are as many topics, or subscriptions of the connection, as there may be"}
	errEnded      = &apiError{503, "ended", "the server has ended"}
	errPartly     = &apiError{502, "partly", "the message has reached this node's connections alone: the broker is away"}
	errPeer       = &apiError{502, "peer", "the node of the connection cannot be reached"}
)

// errOther is for what has no error of its own.
var errOther = &apiError{500, "other", ""}

var apiErrors = []*apiError{
	errNoToken, errWrongToken, errSignature, errForged, errOld, errNoPath, errMethod, errGone, errTopic, errUser, errTooLarge, errBody, errNotText,
	errCode, errNumber, errKey, errKeyReused, errKeyBusy, errSlow, errFull, errEnded, errPartly, errPeer,
}

// What else the API counts.
const (
	countOK        = "ok"
	countRepeated  = "repeated"  // requests with an Idempotency-Key that were answered as before
	countForwarded = "forwarded" // requests that another node has answered
)

// explained is the error of a server as one of the API.
func explained(err error) error {
	switch err {
	case server.ErrClosed:
		return errGone
	case server.ErrBackpressure:
		return errSlow
	case server.ErrTopicName:
		return errTopic
	case server.ErrTopics, server.ErrSubscriptions:
		return errFull
	}
	return err
}

// handle answers a request, if it may ask for anything.
func (a *api) handle(w http.ResponseWriter, r *http.Request, do action) (status int, body []byte) {
	data, err := a.admit(w, r)
	if err != nil {
		return a.failed(w, err)
	}
	if key := r.Header.Get("Idempotency-Key"); key != "" {
		status, body, repeated, err := a.repeats.do(key, r, data, func() (int, []byte) { return a.done(w, r, data, do) })
		switch {
		case err != nil:
			return a.failed(w, err)
		case repeated:
			a.hooks.api.add(countRepeated)
			w.Header().Set("Idempotency-Replayed", "true")
		}
		return status, body
	}
	return a.done(w, r, data, do)
}

// admit looks whether a request may ask for anything, and reads its body.
func (a *api) admit(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	signed := false
	if a.auth != nil {
		var err error
		if signed, err = a.auth.check(r, time.Now()); err != nil {
			return nil, err
		}
	}
	data, err := io.ReadAll(http.MaxBytesReader(w, r.Body, a.server.Options().MaxMessage))
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return nil, errTooLarge
	case err != nil:
		return nil, errBody
	case signed:
		return data, a.auth.verify(r, data)
	}
	return data, nil
}

// done does what a request asks for.
func (a *api) done(w http.ResponseWriter, r *http.Request, data []byte, do action) (status int, body []byte) {
	result, err := do(r, data)
	if elsewhere := (*forwarded)(nil); errors.As(err, &elsewhere) {
		explain(w, elsewhere.status)
		return elsewhere.status, elsewhere.body
	}
	if err != nil {
		return a.failed(w, explained(err))
	}
	a.hooks.api.add(countOK)
	switch result := result.(type) {
	case accepted:
		return http.StatusAccepted, []byte("{}")
	case empty:
		return result.status, nil
	}
	body, _ = json.Marshal(result) // there is nothing in it that has no JSON
	return http.StatusOK, body
}

// failed spells an error.
func (a *api) failed(w http.ResponseWriter, err error) (status int, body []byte) {
	var known *apiError
	if !errors.As(err, &known) {
		known = &apiError{errOther.status, errOther.code, err.Error()}
	}
	a.hooks.api.add(known.code)
	explain(w, known.status)
	body, _ = json.Marshal(map[string]string{"error": known.code, "message": known.text})
	return known.status, body
}

// explain sets the headers that belong to the status of an error.
func explain(w http.ResponseWriter, status int) {
	if kind := amazonKinds[status]; kind != "" {
		w.Header().Set(amazonKind, kind)
	}
	switch status {
	case http.StatusUnauthorized:
		w.Header().Set("WWW-Authenticate", `Bearer realm="lull"`)
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		w.Header().Set("Retry-After", "1")
	}
}

// accepted answers a request that is accepted, and not done yet.
type accepted struct{}

// empty is an answer without a body.
type empty struct{ status int }

// connection finds the connection of a request, or the node that has it.
func (a *api) connection(do func(server.Conn, *http.Request, []byte) (any, error)) action {
	return func(r *http.Request, data []byte) (any, error) {
		id := r.PathValue("id")
		c, err := a.hooks.find(a.server, id)
		if err != nil {
			return nil, a.elsewhere(id, r, data)
		}
		return do(c, r, data)
	}
}

func (a *api) send(c server.Conn, r *http.Request, data []byte) (any, error) {
	op, err := opOf(r.Header.Get("Content-Type"), data)
	if err != nil {
		return nil, errNotText
	}
	return accepted{}, c.Send(op, data)
}

// identity is who a connection is.
type identity struct {
	ID             string   `json:"id"`
	User           string   `json:"user"`
	Topics         []string `json:"topics"`
	Remote         string   `json:"remote"`
	QueuedMessages int      `json:"queued_messages"` // that its client has not taken
	QueuedBytes    int      `json:"queued_bytes"`
}

func (a *api) who(c server.Conn, _ *http.Request, _ []byte) (any, error) {
	n := a.hooks.names.get(c.Tag())
	i := identity{ID: a.hooks.externalID(c, &n), User: n.user, Topics: []string{}, Remote: addressOf(c.RemoteAddr())}
	i.QueuedMessages, i.QueuedBytes = c.Queued()
	for _, t := range c.Topics() {
		if !strings.HasPrefix(t, UserTopic) {
			i.Topics = append(i.Topics, t)
		}
	}
	if _, open := a.server.Conn(c.ID()); !open { // then the name may be another's
		return nil, errGone
	}
	return i, nil
}

func (a *api) close(c server.Conn, r *http.Request, _ []byte) (any, error) {
	code, reason := frame.NormalClosure, r.URL.Query().Get("reason")
	if text := r.URL.Query().Get("code"); text != "" {
		n, err := strconv.ParseUint(text, 10, 16)
		if code = frame.Code(n); err != nil || code != frame.NormalClosure && (n < 3000 || n > 4999) {
			return nil, errCode
		}
	}
	if len(reason) > reasonLength || !utf8.ValidString(reason) {
		return nil, errCode
	}
	return accepted{}, c.Close(code, reason)
}

func (a *api) subscribe(c server.Conn, r *http.Request, _ []byte) (any, error) {
	topic := r.PathValue("topic")
	if checkTopic(topic) != nil {
		return nil, errTopic
	}
	return accepted{}, c.Subscribe(topic)
}

func (a *api) unsubscribe(c server.Conn, r *http.Request, _ []byte) (any, error) {
	topic := r.PathValue("topic")
	if checkTopic(topic) != nil {
		return nil, errTopic
	}
	return accepted{}, c.Unsubscribe(topic)
}

// user passes the user of a request on.
func (a *api) user(do func(user string, r *http.Request, data []byte) (any, error)) action {
	return func(r *http.Request, data []byte) (any, error) {
		user := r.PathValue("user")
		if !validUser(user) {
			return nil, errUser
		}
		return do(user, r, data)
	}
}

// topic passes the topic of a request on.
func (a *api) topic(do func(topic string, r *http.Request, data []byte) (any, error)) action {
	return func(r *http.Request, data []byte) (any, error) {
		topic := r.PathValue("topic")
		if checkTopic(topic) != nil {
			return nil, errTopic
		}
		return do(topic, r, data)
	}
}

// each does something with each of a user's connections.
func (a *api) each(do func(server.Conn, *http.Request, []byte) (any, error)) func(string, *http.Request, []byte) (any, error) {
	return func(user string, r *http.Request, data []byte) (any, error) {
		for c := range a.hooks.connsOf(a.server, user) {
			if _, err := do(c, r, data); err != nil && err != server.ErrClosed {
				return nil, err
			}
		}
		return accepted{}, nil
	}
}

// sendTo sends to the connections of a user: those of all nodes, if there are several.
func (a *api) sendTo(user string, r *http.Request, data []byte) (any, error) {
	if a.hooks.options.Publisher != nil {
		return a.publishTo(UserTopic+user, r, data)
	}
	op, err := opOf(r.Header.Get("Content-Type"), data)
	if err != nil {
		return nil, errNotText
	}
	var sent receipt
	for c := range a.hooks.connsOf(a.server, user) {
		switch c.Send(op, data) {
		case nil:
			sent.Sent++
		case server.ErrClosed:
			sent.Closed++
		default:
			sent.Dropped++
		}
	}
	switch {
	case sent.Sent == 0 && sent.Dropped > 0:
		return nil, errSlow
	case r.URL.Query().Get("receipt") == "":
		return accepted{}, nil
	}
	return sent, nil
}

func (a *api) publishTo(topic string, r *http.Request, data []byte) (any, error) {
	if p := a.hooks.options.Publisher; p != nil { // which has no receipts
		op, err := opOf(r.Header.Get("Content-Type"), data)
		if err != nil {
			return nil, errNotText
		}
		switch err := p.Publish(topic, op, data); err {
		case nil, server.ErrClosed, server.ErrBackpressure, server.ErrTopicName:
			return accepted{}, notGone(err)
		}
		return nil, errPartly
	}
	return a.publish(r, data, func(op frame.Op, receipt func(server.Receipt)) error {
		return a.server.PublishAs(server.Kind{}, topic, op, data, receipt)
	})
}

func (a *api) broadcast(r *http.Request, data []byte) (any, error) {
	return a.publish(r, data, func(op frame.Op, receipt func(server.Receipt)) error {
		return a.server.BroadcastAs(server.Kind{}, op, data, receipt)
	})
}

// receipt is a server.Receipt in JSON.
type receipt struct {
	Sent    int `json:"sent"`
	Queued  int `json:"queued"`
	Dropped int `json:"dropped"`
	Closed  int `json:"closed"`
}

// publish publishes, and waits for the receipt if the request asks for it.
func (a *api) publish(r *http.Request, data []byte, how func(frame.Op, func(server.Receipt)) error) (any, error) {
	op, err := opOf(r.Header.Get("Content-Type"), data)
	if err != nil {
		return nil, errNotText
	}
	if r.URL.Query().Get("receipt") == "" {
		return accepted{}, notGone(how(op, nil))
	}
	receipts := make(chan server.Receipt, 1)
	if err := how(op, func(t server.Receipt) { receipts <- t }); err != nil {
		return nil, notGone(err)
	}
	select {
	case t := <-receipts:
		return receipt{t.Sent, t.Queued, t.Dropped, t.Closed}, nil
	case <-r.Context().Done():
		return nil, errEnded
	case <-a.hooks.ctx.Done():
		return nil, errEnded
	}
}

// notGone tells the server's end from a connection's.
func notGone(err error) error {
	if err == server.ErrClosed {
		return errEnded
	}
	return err
}

// listMost is how many connections or topics are listed by default.
const listMost = 100

func (a *api) connectionsOf(user string, r *http.Request, _ []byte) (any, error) {
	limit, err := limitOf(r)
	if err != nil {
		return nil, err
	}
	list := struct {
		Number      int      `json:"number"`
		Connections []string `json:"connections"` // at most limit
	}{Connections: []string{}}
	for c := range a.hooks.connsOf(a.server, user) {
		if list.Number++; len(list.Connections) < limit {
			n := a.hooks.names.get(c.Tag())
			list.Connections = append(list.Connections, a.hooks.externalID(c, &n))
		}
	}
	return list, nil
}

// topicCount is a topic with its subscribers.
type topicCount struct {
	Topic       string `json:"topic"`
	Subscribers int    `json:"subscribers"`
}

func (a *api) subscribers(topic string, _ *http.Request, _ []byte) (any, error) {
	return topicCount{topic, a.server.Subscribers(topic)}, nil
}

func (a *api) topics(r *http.Request, _ []byte) (any, error) {
	limit, err := limitOf(r)
	if err != nil {
		return nil, err
	}
	list := struct {
		Topics []topicCount `json:"topics"`
		More   bool         `json:"more"` // there are more than limit
	}{Topics: []topicCount{}}
	for name, n := range withPrefix(a.server.Topics(), r.URL.Query().Get("prefix")) {
		if list.More = len(list.Topics) == limit; list.More {
			break
		}
		list.Topics = append(list.Topics, topicCount{name, n})
	}
	return list, nil
}

// withPrefix leaves out topics that do not begin so, and users'.
func withPrefix(all iter.Seq2[string, int], prefix string) iter.Seq2[string, int] {
	return func(yield func(string, int) bool) {
		for name, n := range all {
			if strings.HasPrefix(name, prefix) && !strings.HasPrefix(name, UserTopic) && !yield(name, n) {
				return
			}
		}
	}
}

func limitOf(r *http.Request) (int, error) {
	n, err := strconv.Atoi(cmp.Or(r.URL.Query().Get("limit"), strconv.Itoa(listMost)))
	if err != nil || n < 1 || n > 10_000 {
		return 0, errNumber
	}
	return n, nil
}
