package pusher

import (
	"crypto/md5"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/seed-134acfd0/lull/server"
	"github.com/seed-134acfd0/lull/server/cluster"
)

// Faults of publishers' requests. The code is the status of HTTP.
var (
	faultNoPath      = newFault("api_unknown_path", 404, "there is nothing at this path")
	faultMethod      = newFault("api_wrong_method", 405, "this path has other methods")
	faultNoApp       = newFault("api_unknown_app", 404, "there is no app of this id")
	faultAppOff      = newFault("api_app_disabled", 403, "the app is disabled")
	faultUnsigned    = newFault("api_unsigned", 401, "the query must have auth_key, auth_timestamp, auth_version and auth_signature")
	faultKey         = newFault("api_wrong_key", 401, "auth_key is not the app's key")
	faultAuthVersion = newFault("api_auth_version", 401, "auth_version must be 1.0")
	faultTime        = newFault("api_bad_timestamp", 401, "auth_timestamp must be a number of seconds since 1970")
	faultOld         = newFault("api_old_timestamp", 401, "auth_timestamp is more than 600 seconds away from the server's time")
	faultForged      = newFault("api_forged", 401, "auth_signature is wrong, or of another request")
	faultTwiceParam  = newFault("api_repeated_parameter", 401, "a parameter is there twice")
	faultNoMD5       = newFault("api_no_body_md5", 401, "the query must have body_md5, because the request has a body")
	faultMD5         = newFault("api_wrong_body_md5", 401, "body_md5 is that of another body")
	faultBodyLarge   = newFault("api_body_too_large", 413, "the body is larger than all that the app allows together")
	faultBody        = newFault("api_body_cut", 400, "the body did not arrive whole")
	faultBodyJSON    = newFault("api_bad_json", 400, "the body must be a JSON object with the fields of an event")
	faultNoName      = newFault("api_no_name", 400, "an event must have a name")
	faultName        = newFault("api_bad_name", 400, "an event's name has at most 200 bytes of UTF-8")
	faultReserved    = newFault("api_reserved_name", 400, "an event's name must not begin with pusher: or pusher_internal:")
	faultNoData      = newFault("api_no_data", 400, "an event must have data, a string")
	faultLarge       = newFault("api_data_too_large", 413, "an event's data are larger than the app allows")
	faultNoChannels  = newFault("api_no_channels", 400, "an event must have a channel, or channels")
	faultManyChans   = newFault("api_too_many_channels", 400, "an event has more channels than the app allows")
	faultChannelName = newFault("api_bad_channel", 400, "a channel's name has 1 to 164 letters, digits and _ - = @ , . ;")
	faultEncrypted   = newFault("api_encrypted_with_others", 400, "an event for an encrypted channel is for no other channel")
	faultSocket      = newFault("api_bad_socket_id", 400, "socket_id must be two numbers with a dot in between")
	faultNoBatch     = newFault("api_empty_batch", 400, "a batch must have events")
	faultBatch       = newFault("api_batch_too_large", 400, "a batch has more events than the app allows")
	faultInfo        = newFault("api_bad_info", 400, "info may be subscription_count, user_count for presence channels, and cache for cache channels")
	faultPrefix      = newFault("api_user_count_prefix", 400, "user_count needs filter_by_prefix=presence-")
	faultNoPresence  = newFault("api_no_presence", 400, "presence channels alone have users")
	faultUserID      = newFault("api_bad_user", 400, "a user's ID has 1 to 128 bytes of UTF-8 without control characters")
	faultPace        = newFault("api_too_fast", 429, "the app publishes more events a second than it may")
	faultFull        = newFault("api_backpressure", 429, "too much is on its way already: try again later")
	faultUnready     = newFault("api_not_ready", 503, "the server is not ready yet: try again later")
)

// API answers the requests of publishers, whose libraries are given the server's address:
//
//	POST /apps/ID/events                             publish an event
//	POST /apps/ID/batch_events                       publish several
//	GET  /apps/ID/channels                           which channels have subscribers
//	GET  /apps/ID/channels/NAME                      how many subscribers a channel has
//	GET  /apps/ID/channels/NAME/users                who is in a presence channel
//	POST /apps/ID/users/USER/terminate_connections   close the connections of a user
//
// Each request is signed with its app's secret. It fits server.Options.HTTP, so that clients and
// publishers have one address.
// https://pusher.com/docs/channels/library_auth_reference/rest-api/
func (p *Pusher) API() http.Handler { return http.HandlerFunc(p.serveAPI) }

// apiRequest is a request that was found to be its app's.
type apiRequest struct {
	app    *app
	is     *config
	server *server.Server
	query  map[string]string
	body   []byte
}

// apiRetryAfter is how many seconds a publisher is to wait that was refused for too much.
const apiRetryAfter = "1"

func (p *Pusher) serveAPI(w http.ResponseWriter, r *http.Request) {
	answer, err := p.answer(w, r)
	h := w.Header()
	var f *fault
	if errors.As(err, &f) {
		p.told.add(f)
		h.Set("Content-Type", "text/plain; charset=utf-8")
		if f.code == http.StatusTooManyRequests || f.code == http.StatusServiceUnavailable {
			h.Set("Retry-After", apiRetryAfter)
		}
		w.WriteHeader(f.code)
		_, _ = io.WriteString(w, f.text+"\n") // an error means that the client has gone
		return
	}
	h.Set("Content-Type", "application/json")
	_, _ = w.Write(encode(answer))
}

// answer does what a request asks for.
func (p *Pusher) answer(w http.ResponseWriter, r *http.Request) (any, error) {
	parts, ok := segments(r.URL.EscapedPath())
	if !ok || len(parts) < 3 || parts[0] != "apps" {
		return nil, faultNoPath
	}
	method, do := p.route(parts[2:])
	switch {
	case do == nil:
		return nil, faultNoPath
	case method != r.Method:
		w.Header().Set("Allow", method)
		return nil, faultMethod
	}
	a := p.apps.ofID(parts[1])
	if a == nil {
		return nil, faultNoApp
	}
	q := &apiRequest{app: a, is: a.config.Load(), server: p.server.Load()}
	switch {
	case q.is == nil:
		return nil, faultNoApp
	case q.server == nil:
		return nil, faultUnready
	}
	if f := q.authenticate(w, r, time.Now()); f != nil {
		return nil, f
	}
	if q.is.Disabled {
		return nil, faultAppOff
	}
	return do(q)
}

// segments are the parts of an escaped path between its slashes.
func segments(path string) (parts []string, ok bool) {
	for part := range strings.SplitSeq(strings.TrimPrefix(path, "/"), "/") {
		text, err := url.PathUnescape(part)
		if err != nil {
			return nil, false
		}
		parts = append(parts, text)
	}
	return parts, true
}

// route finds what is done at a path behind /apps/ID/.
func (p *Pusher) route(parts []string) (method string, do func(*apiRequest) (any, error)) {
	switch n := len(parts); {
	case n == 1 && parts[0] == "events":
		return http.MethodPost, p.postEvent
	case n == 1 && parts[0] == "batch_events":
		return http.MethodPost, p.postBatch
	case n == 1 && parts[0] == "channels":
		return http.MethodGet, p.getChannels
	case n == 2 && parts[0] == "channels":
		return http.MethodGet, func(q *apiRequest) (any, error) { return p.getChannel(q, parts[1]) }
	case n == 3 && parts[0] == "channels" && parts[2] == "users":
		return http.MethodGet, func(q *apiRequest) (any, error) { return p.getUsers(q, parts[1]) }
	case n == 3 && parts[0] == "users" && parts[2] == "terminate_connections":
		return http.MethodPost, func(q *apiRequest) (any, error) { return p.terminate(q, parts[1]) }
	}
	return "", nil
}

// timestampAway is how far a request's time may be away from the server's.
const timestampAway = 600 * time.Second

// jsonMost is how much longer a text may be in JSON, and eventMost what an event's fields take
// beside its data and the names of its channels, in bytes.
const jsonMost, eventMost = 6, 4 << 10

// authenticate checks who has signed a request, and reads its body.
func (q *apiRequest) authenticate(w http.ResponseWriter, r *http.Request, now time.Time) *fault {
	q.query = map[string]string{}
	var pairs []string
	for name, values := range r.URL.Query() {
		if len(values) > 1 {
			return faultTwiceParam
		}
		q.query[name] = values[0]
		if name != "auth_signature" {
			pairs = append(pairs, strings.ToLower(name)+"="+values[0])
		}
	}
	for _, name := range []string{"auth_key", "auth_timestamp", "auth_version", "auth_signature"} {
		if q.query[name] == "" {
			return faultUnsigned
		}
	}
	seconds, err := strconv.ParseInt(q.query["auth_timestamp"], 10, 64)
	slices.Sort(pairs)
	// Some libraries sign the path before they escape it, others after.
	claimed := func(path string) bool {
		return same(sign(q.is.Secret, r.Method, "\n", path, "\n", strings.Join(pairs, "&")), q.query["auth_signature"])
	}
	switch {
	case q.query["auth_key"] != q.is.Key:
		return faultKey
	case q.query["auth_version"] != "1.0":
		return faultAuthVersion
	case err != nil:
		return faultTime
	case now.Sub(time.Unix(seconds, 0)).Abs() > timestampAway:
		return faultOld
	case !claimed(r.URL.Path) && !claimed(r.URL.EscapedPath()):
		return faultForged
	}
	l := q.is.Limits
	most := l.Batch * (jsonMost*l.EventBytes + l.EventChannels*channelMost + eventMost)
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, int64(most)))
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return faultBodyLarge
	case err != nil:
		return faultBody
	}
	sum := md5.Sum(body)
	switch claimed, there := q.query["body_md5"]; {
	case !there && len(body) > 0:
		return faultNoMD5
	case there && claimed != hex.EncodeToString(sum[:]):
		return faultMD5
	}
	q.body = body
	return nil
}

// publishing is an event that somebody publishes.
type publishing struct {
	Name     string   `json:"name"`
	Data     *string  `json:"data"`
	Channel  string   `json:"channel"`
	Channels []string `json:"channels"`
	SocketID string   `json:"socket_id"`
	Info     string   `json:"info"`
}

// check checks an event.
func (e *publishing) check(is *config) *fault {
	if e.Channel != "" {
		e.Channels = append(e.Channels, e.Channel)
	}
	switch {
	case e.Name == "":
		return faultNoName
	case len(e.Name) > eventNameMost || !utf8.ValidString(e.Name):
		return faultName
	case strings.HasPrefix(e.Name, "pusher:") || strings.HasPrefix(e.Name, "pusher_internal:"):
		return faultReserved
	case e.Data == nil:
		return faultNoData
	case len(*e.Data) > is.Limits.EventBytes:
		return faultLarge
	case len(e.Channels) == 0:
		return faultNoChannels
	case len(e.Channels) > is.Limits.EventChannels:
		return faultManyChans
	case e.SocketID != "" && !isSocketID(e.SocketID):
		return faultSocket
	}
	for _, name := range e.Channels {
		user, personal := strings.CutPrefix(name, userPrefix)
		switch {
		case personal && !isUser(user), !personal && !isChannel(name):
			return faultChannelName
		case isEncrypted(name) && len(e.Channels) > 1:
			return faultEncrypted
		case !infoFits(e.Info, name):
			return faultInfo
		}
	}
	return nil
}

// postEvent publishes an event.
func (p *Pusher) postEvent(q *apiRequest) (any, error) {
	var e publishing
	if json.Unmarshal(q.body, &e) != nil {
		return nil, faultBodyJSON
	}
	if f := e.check(q.is); f != nil {
		return nil, f
	}
	if !q.app.pace.AllowN(time.Now(), len(e.Channels)) {
		return nil, faultPace
	}
	if f := p.publishEvent(q, &e); f != nil {
		return nil, f
	}
	if e.Info == "" {
		return struct{}{}, nil
	}
	infos := map[string]channelInfo{}
	for _, name := range e.Channels {
		info, err := p.info(q.app, name, e.Info)
		if err != nil {
			return nil, err
		}
		info.Occupied = nil
		infos[name] = info
	}
	return map[string]any{"channels": infos}, nil
}

// postBatch publishes several events, or none if one of them cannot be.
func (p *Pusher) postBatch(q *apiRequest) (any, error) {
	var b struct {
		Batch []publishing `json:"batch"`
	}
	if json.Unmarshal(q.body, &b) != nil {
		return nil, faultBodyJSON
	}
	switch n := len(b.Batch); {
	case n == 0:
		return nil, faultNoBatch
	case n > q.is.Limits.Batch:
		return nil, faultBatch
	}
	n, asked := 0, false
	for i := range b.Batch {
		e := &b.Batch[i]
		if f := e.check(q.is); f != nil {
			return nil, f
		}
		n += len(e.Channels)
		asked = asked || e.Info != ""
	}
	if !q.app.pace.AllowN(time.Now(), n) {
		return nil, faultPace
	}
	infos := make([]channelInfo, len(b.Batch))
	for i := range b.Batch {
		e := &b.Batch[i]
		if f := p.publishEvent(q, e); f != nil {
			return nil, f
		}
		if e.Info == "" {
			continue
		}
		var err error
		if infos[i], err = p.info(q.app, e.Channels[0], e.Info); err != nil {
			return nil, err
		}
		infos[i].Occupied = nil
	}
	if !asked {
		return struct{}{}, nil
	}
	return map[string]any{"batch": infos}, nil
}

// publishEvent publishes an event to its channels. If there is no room for one of them, those before
// have got it: what is published again comes twice to them.
func (p *Pusher) publishEvent(q *apiRequest, e *publishing) *fault {
	data := encode(*e.Data)
	for _, name := range e.Channels {
		text := encode(outgoing{Event: e.Name, Channel: name, Data: data})
		switch p.publish(q.server, topicOf(q.app.id, name), isCached(name), e.SocketID, text) {
		case nil:
			p.counts.published.Add(1)
		case server.ErrBackpressure:
			return faultFull
		case cluster.ErrTooLarge:
			return faultLarge
		default: // the server is at its end
			return faultUnready
		}
	}
	return nil
}

// channelInfo is what a publisher may ask of a channel.
type channelInfo struct {
	Occupied      *bool      `json:"occupied,omitempty"`
	Users         *int       `json:"user_count,omitempty"`
	Subscriptions *int       `json:"subscription_count,omitempty"`
	Cache         *cacheInfo `json:"cache,omitempty"`
}

// cacheInfo is the last event of a cache channel, and for how many seconds it is kept.
type cacheInfo struct {
	Data string `json:"data"`
	TTL  int    `json:"ttl"`
}

// infoFits reports whether these attributes can be asked of a channel.
func infoFits(info, channel string) bool {
	for _, one := range attributes(info) {
		switch one {
		case "subscription_count":
		case "user_count":
			if !isPresence(channel) {
				return false
			}
		case "cache":
			if !isCached(channel) {
				return false
			}
		default:
			return false
		}
	}
	return true
}

func attributes(info string) []string {
	return strings.FieldsFunc(info, func(r rune) bool { return r == ',' || r == ' ' })
}

// info answers what is asked of a channel.
func (p *Pusher) info(a *app, name, wanted string) (i channelInfo, err error) {
	all, _, err := p.ask(question{App: a.id, Channel: name})
	if err != nil {
		return i, err
	}
	t, occupied := all[name]
	i.fill(t, wanted)
	i.Occupied = &occupied
	if slices.Contains(attributes(wanted), "cache") {
		if text, left := p.cache.get(topicOf(a.id, name), time.Now()); text != nil {
			var last struct{ Data string }
			_ = json.Unmarshal(text, &last) // it is an event that publishEvent has made
			i.Cache = &cacheInfo{last.Data, int(left.Seconds())}
		}
	}
	return i, nil
}

// fill sets the numbers that are asked for.
func (i *channelInfo) fill(t tally, wanted string) {
	for _, one := range attributes(wanted) {
		switch one {
		case "subscription_count":
			i.Subscriptions = &t.Subscribers
		case "user_count":
			i.Users = &t.Members
		}
	}
}

// getChannels lists the channels of an app.
func (p *Pusher) getChannels(q *apiRequest) (any, error) {
	prefix, wanted := q.query["filter_by_prefix"], q.query["info"]
	for _, one := range attributes(wanted) {
		switch {
		case one == "user_count" && !strings.HasPrefix(prefix, presencePrefix):
			return nil, faultPrefix
		case one != "user_count" && one != "subscription_count":
			return nil, faultInfo
		}
	}
	tallies, _, err := p.ask(question{App: q.app.id, Prefix: prefix})
	if err != nil {
		return nil, err
	}
	all := map[string]channelInfo{}
	for name, t := range tallies {
		var info channelInfo
		info.fill(t, wanted)
		all[name] = info
	}
	return map[string]any{"channels": all}, nil
}

// getChannel tells of a channel.
func (p *Pusher) getChannel(q *apiRequest, name string) (any, error) {
	wanted := q.query["info"]
	switch {
	case !isChannel(name):
		return nil, faultChannelName
	case !infoFits(wanted, name):
		return nil, faultInfo
	}
	return p.info(q.app, name, wanted)
}

// getUsers lists the members of a presence channel.
func (p *Pusher) getUsers(q *apiRequest, name string) (any, error) {
	switch {
	case !isChannel(name):
		return nil, faultChannelName
	case !isPresence(name):
		return nil, faultNoPresence
	}
	all, _, err := p.ask(question{App: q.app.id, Channel: name, Users: true})
	if err != nil {
		return nil, err
	}
	type user struct {
		ID string `json:"id"`
	}
	users := []user{}
	for _, id := range all[name].Users {
		users = append(users, user{id})
	}
	return map[string]any{"users": users}, nil
}

// terminate closes the connections of a user.
func (p *Pusher) terminate(q *apiRequest, user string) (any, error) {
	if !isUser(user) {
		return nil, faultUserID
	}
	if err := p.terminateUser(q.app.id, user); err != nil {
		return nil, err
	}
	return struct{}{}, nil
}
