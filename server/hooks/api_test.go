package hooks_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/coder/websocket"

	"github.com/seed-134acfd0/lull/server"
	"github.com/seed-134acfd0/lull/server/hooks"
)

const token = "a token of its own"

// apiOf is the API of a server.
type apiOf struct {
	*running
	url string
}

func (r *running) startAPI(o hooks.APIOptions) *apiOf {
	s := httptest.NewServer(r.Hooks.API(r.Server, o))
	r.t.Cleanup(s.Close)
	return &apiOf{r, s.URL}
}

// ask makes a request. Of each pair of headers the first is the name.
func (a *apiOf) ask(method, path, body string, headers ...string) (status int, answer string, header http.Header) {
	a.t.Helper()
	r, err := http.NewRequest(method, a.url+path, strings.NewReader(body))
	must(a.t, err)
	r.Header.Set("Authorization", "Bearer "+token)
	for i := 0; i+1 < len(headers); i += 2 {
		if r.Header.Set(headers[i], headers[i+1]); headers[i+1] == "" {
			r.Header.Del(headers[i])
		}
	}
	response, err := noRedirects.Do(r)
	must(a.t, err)
	defer response.Body.Close()
	b, err := io.ReadAll(response.Body)
	must(a.t, err)
	return response.StatusCode, string(b), response.Header
}

// does makes a request that is answered with a status and, if that is not empty, a body.
func (a *apiOf) does(method, path, body string, status int, want string, headers ...string) {
	a.t.Helper()
	if got, answer, _ := a.ask(method, path, body, headers...); got != status || want != "" && answer != want {
		a.t.Errorf("%s %s is answered %d %s, not %d %s", method, path, got, answer, status, want)
	}
}

// startChat starts a server whose connections say in their path who they are.
func startChat(t *testing.T) (*apiOf, *app) {
	b := startApp(t, &app{connect: func(w http.ResponseWriter, c call) {
		var told struct{ Path string }
		must(t, json.Unmarshal([]byte(c.body), &told))
		user, _ := url.PathUnescape(told.Path[1:])
		welcome(w, map[string]any{"user": user, "topics": []string{"lobby"}})
	}})
	return startFor(t, b, hooks.Options{}).startAPI(hooks.APIOptions{Token: token}), b
}

// enter opens a connection and returns its ID.
func (a *apiOf) enter(b *app, user string) (*client, string) {
	a.t.Helper()
	c := a.open("/" + url.PathEscape(user))
	calls := b.told("connect")
	return c, calls[len(calls)-1].connection
}

func TestTheAPISpeaksToConnections(t *testing.T) {
	t.Parallel()
	a, b := startChat(t)
	ann, id := a.enter(b, "ann")
	a.does("POST", "/connections/"+id, "hello", 202, "{}", "Content-Type", "text/plain")
	a.does("POST", "/connections/"+id, `{"a": 1}`, 202, "{}", "Content-Type", "application/json; charset=utf-8")
	a.does("POST", "/connections/"+id, "no type", 202, "{}")
	ann.expect("hello", `{"a": 1}`, "no type")
	a.does("POST", "/connections/"+id, "hello", 202, "", "Content-Type", "application/octet-stream")
	if kind, got, err := ann.Read(t.Context()); kind != websocket.MessageBinary || string(got) != "hello" {
		t.Errorf("got %v %q, %v", kind, got, err)
	}
	status, text, _ := a.ask("GET", "/connections/"+id, "")
	var who struct {
		ID, User, Remote string
		Topics           []string
	}
	must(t, json.Unmarshal([]byte(text), &who))
	if status != 200 || who.ID != id || who.User != "ann" || len(who.Topics) != 1 || who.Topics[0] != "lobby" || !strings.HasPrefix(who.Remote, "127.0.0.1:") {
		t.Errorf("it is %d %s", status, text)
	}
	a.does("PUT", "/connections/"+id+"/topics/a/b%2Fc", "", 202, "{}")
	a.does("POST", "/topics/a%2Fb/c?receipt=1", "to the topic", 200, `{"sent":1,"queued":0,"dropped":0,"closed":0}`)
	ann.expect("to the topic")
	a.does("DELETE", "/connections/"+id+"/topics/a/b/c", "", 202, "{}")
	a.does("POST", "/topics/a/b/c?receipt=1", "to nobody", 200, `{"sent":0,"queued":0,"dropped":0,"closed":0}`)
	a.does("DELETE", "/connections/"+id+"?code=4001&reason=bye", "", 202, "{}")
	ann.ended(4001)
	a.counted("disconnects_told", 1)
	for _, row := range []string{"POST ", "GET ", "DELETE ", "PUT /topics/x", "DELETE /topics/x"} {
		method, rest, _ := strings.Cut(row, " ")
		a.does(method, "/connections/"+id+rest, "", 410, `{"error":"gone","message":"there is no such connection"}`)
	}
}

func TestTheAPISpeaksToUsersTopicsAndAll(t *testing.T) {
	t.Parallel()
	a, b := startChat(t)
	odd := "../Zoë //?#%2F"
	ann1, id1 := a.enter(b, "ann")
	ann2, id2 := a.enter(b, "ann")
	zoe, _ := a.enter(b, odd)
	a.does("POST", "/users/ann?receipt=1", "to ann", 200, `{"sent":2,"queued":0,"dropped":0,"closed":0}`)
	ann1.expect("to ann")
	ann2.expect("to ann")
	a.does("POST", "/users/"+url.PathEscape(odd), "to Zoë", 202, "{}")
	zoe.expect("to Zoë")
	a.does("POST", "/users/nobody?receipt=1", "x", 200, `{"sent":0,"queued":0,"dropped":0,"closed":0}`)
	a.does("POST", "/topics/lobby?receipt=1", "to the lobby", 200, "")
	a.does("POST", "/broadcast?receipt=1", "to all", 200, `{"sent":3,"queued":0,"dropped":0,"closed":0}`)
	for _, c := range []*client{ann1, ann2, zoe} {
		c.expect("to the lobby", "to all")
	}
	status, text, _ := a.ask("GET", "/users/ann", "")
	if status != 200 || !strings.Contains(text, `"number":2`) || !strings.Contains(text, id1) || !strings.Contains(text, id2) {
		t.Errorf("ann is %d %s", status, text)
	}
	if _, text, _ := a.ask("GET", "/users/ann?limit=1", ""); strings.Contains(text, id1) == strings.Contains(text, id2) {
		t.Errorf("one of ann's is %s", text)
	}
	a.does("PUT", "/users/ann/topics/vip", "", 202, "{}")
	eventually(t, "both are there", func() bool {
		_, text, _ := a.ask("GET", "/topics/vip", "")
		return text == `{"topic":"vip","subscribers":2}`
	})
	a.does("GET", "/topics?prefix=v", "", 200, `{"topics":[{"topic":"vip","subscribers":2}],"more":false}`)
	if _, text, _ := a.ask("GET", "/topics?limit=1", ""); !strings.Contains(text, `"more":true`) || strings.Contains(text, "user:") {
		t.Errorf("the topics are %s", text)
	}
	a.does("DELETE", "/users/ann/topics/vip", "", 202, "{}")
	a.does("DELETE", "/users/ann?code=4000", "", 202, "{}")
	ann1.ended(4000)
	ann2.ended(4000)
	a.does("DELETE", "/users/ann", "", 202, "{}")
}

// Each wrong request has its error, which is counted, and harms nobody.
func TestTheAPIRefusesWhatIsWrong(t *testing.T) {
	t.Parallel()
	a, b := startChat(t)
	ann, id := a.enter(b, "ann")
	long := strings.Repeat("x", 201)
	other := "0" + id[1:]
	for i, row := range []struct {
		request, body string
		status        int
		code          string
		headers       []string
	}{
		{"GET /topics", "", 401, "no_token", []string{"Authorization", ""}},
		{"GET /topics", "", 401, "no_token", []string{"Authorization", "Basic YTpi"}},
		{"GET /topics", "", 401, "wrong_token", []string{"Authorization", "Bearer x"}},
		{"POST /broadcast", "x", 401, "wrong_token", []string{"Authorization", "Bearer " + token + "x"}},
		{"GET /none", "", 401, "wrong_token", []string{"Authorization", "Bearer x"}},
		{"POST /broadcast", "x", 403, "malformed_signature", []string{"Authorization", "AWS4-HMAC-SHA256 x"}},
		{"POST /broadcast", "x", 403, "old_signature", []string{"Authorization", "AWS4-HMAC-SHA256 x", "X-Amz-Date", "20200101T000000Z"}},
		{"GET /", "", 404, "no_path", nil},
		{"GET /none", "", 404, "no_path", nil},
		{"GET /connections", "", 404, "no_path", nil},
		{"GET /topics/", "", 400, "bad_topic", nil},
		{"POST /connections/" + id + "/", "", 404, "no_path", nil},
		{"POST /connections/" + id + "/topics", "", 404, "no_path", nil},
		{"POST /a/b/@connections/" + id, "", 404, "no_path", nil},
		{"PUT /broadcast", "", 405, "wrong_method", nil},
		{"POST /topics", "", 405, "wrong_method", nil},
		{"PATCH /users/ann", "", 405, "wrong_method", nil},
		{"POST /connections/" + other, "x", 410, "gone", nil},
		{"POST /connections/" + id + "0", "x", 410, "gone", nil},
		{"POST /connections/" + id[:len(id)-1], "x", 410, "gone", nil},
		{"POST /connections/" + id[:9] + "ffffffffffffffff", "x", 410, "gone", nil},
		{"POST /connections/" + id[:9] + "0000000000000000", "x", 410, "gone", nil},
		{"POST /connections/" + id[:9] + "+000000100000000", "x", 410, "gone", nil},
		{"POST /connections/x", "x", 410, "gone", nil},
		{"POST /connections/" + url.PathEscape("../../etc/passwd"), "x", 410, "gone", nil},
		{"POST /connections/" + strings.Repeat("x", 5000), "x", 410, "gone", nil},
		{"POST /@connections/x", "x", 410, "gone", nil},
		{"GET /prod/@connections/x", "", 410, "gone", nil},
		{"DELETE /prod/@connections/x", "", 410, "gone", nil},
		{"POST /topics/" + long, "x", 400, "bad_topic", nil},
		{"POST /topics/%00", "x", 400, "bad_topic", nil},
		{"POST /topics/a%0Ab", "x", 400, "bad_topic", nil},
		{"POST /topics/%ff", "x", 400, "bad_topic", nil},
		{"POST /topics/user:ann", "x", 400, "bad_topic", nil},
		{"GET /topics/user%3Aann", "", 400, "bad_topic", nil},
		{"PUT /connections/" + id + "/topics/user:bob", "", 400, "bad_topic", nil},
		{"PUT /connections/" + id + "/topics/" + long, "", 400, "bad_topic", nil},
		{"DELETE /connections/" + id + "/topics/%00", "", 400, "bad_topic", nil},
		{"PUT /users/ann/topics/user:bob", "", 400, "bad_topic", nil},
		{"POST /users/", "x", 400, "bad_user", nil},
		{"POST /users/" + long[:196], "x", 400, "bad_user", nil},
		{"POST /users/%07", "x", 400, "bad_user", nil},
		{"GET /users/%c0%80", "", 400, "bad_user", nil},
		{"POST /broadcast", strings.Repeat("x", 64<<10+1), 413, "too_large", nil},
		{"POST /users/ann", strings.Repeat("x", 10<<20), 413, "too_large", nil},
		{"POST /@connections/" + id, strings.Repeat("x", 64<<10+1), 413, "too_large", nil},
		{"POST /broadcast", "\xff", 400, "bad_text", []string{"Content-Type", "text/plain"}},
		{"POST /topics/lobby", "\xc0\x80", 400, "bad_text", []string{"Content-Type", "application/json"}},
		{"POST /connections/" + id, "\xed\xa0\x80", 400, "bad_text", []string{"Content-Type", "application/vnd.api+json"}},
		{"DELETE /connections/" + id + "?code=999", "", 400, "bad_code", nil},
		{"DELETE /connections/" + id + "?code=1006", "", 400, "bad_code", nil},
		{"DELETE /connections/" + id + "?code=2999", "", 400, "bad_code", nil},
		{"DELETE /connections/" + id + "?code=5000", "", 400, "bad_code", nil},
		{"DELETE /connections/" + id + "?code=-1", "", 400, "bad_code", nil},
		{"DELETE /connections/" + id + "?code=x", "", 400, "bad_code", nil},
		{"DELETE /connections/" + id + "?reason=" + long[:124], "", 400, "bad_code", nil},
		{"DELETE /users/ann?reason=%ff", "", 400, "bad_code", nil},
		{"GET /topics?limit=0", "", 400, "bad_limit", nil},
		{"GET /topics?limit=x", "", 400, "bad_limit", nil},
		{"GET /topics?limit=10001", "", 400, "bad_limit", nil},
		{"GET /users/ann?limit=-1", "", 400, "bad_limit", nil},
		{"POST /broadcast", "x", 400, "bad_key", []string{"Idempotency-Key", strings.Repeat("x", 256)}},
	} {
		before := a.Hooks.Stats().API[row.code]
		method, path, _ := strings.Cut(row.request, " ")
		status, text, header := a.ask(method, path, row.body, row.headers...)
		var got struct{ Error, Message string }
		if err := json.Unmarshal([]byte(text), &got); err != nil || status != row.status || got.Error != row.code || got.Message == "" {
			t.Errorf("%d: %.60s is answered %d %s, not %d %s", i, row.request, status, text, row.status, row.code)
		}
		if status == 401 && header.Get("WWW-Authenticate") == "" {
			t.Errorf("%d: it does not say how to authenticate", i)
		}
		if now := a.Hooks.Stats().API[row.code]; now != before+1 {
			t.Errorf("%d: %s was counted %d times", i, row.code, now-before)
		}
	}
	if n := a.Hooks.Stats().API["ok"]; n != 0 {
		t.Errorf("%d were done", n)
	}
	ann.send("nothing has come before this")
	ann.expect("nothing has come before this")
}

func TestARequestThatIsMadeAgainIsNotDoneAgain(t *testing.T) {
	t.Parallel()
	a, b := startChat(t)
	ann, id := a.enter(b, "ann")
	key := []string{"Idempotency-Key", "k1"}
	for i := range 3 {
		status, text, header := a.ask("POST", "/connections/"+id, "once", key...)
		if status != 202 || text != "{}" || (header.Get("Idempotency-Replayed") == "true") != (i > 0) {
			t.Errorf("%d: answered %d %s %v", i, status, text, header)
		}
	}
	a.does("POST", "/connections/"+id, "another", 422, "", key...)
	a.does("POST", "/topics/lobby", "once", 422, "", key...)
	a.does("POST", "/connections/"+id, "another", 202, "", "Idempotency-Key", "k2")
	ann.expect("once", "another")
	s := a.Hooks.Stats().API
	if s["repeated"] != 2 || s["key_reused"] != 2 || s["ok"] != 2 {
		t.Errorf("counted %v", s)
	}
}

// What API Gateway answers its clients.
func TestTheAPISpeaksLikeAmazons(t *testing.T) {
	t.Parallel()
	a, b := startChat(t)
	ann, id := a.enter(b, "ann")
	a.does("POST", "/prod/@connections/"+id, "hello", 200, "", "Content-Type", "application/octet-stream")
	a.does("POST", "/%40connections/"+id, "there", 200, "")
	ann.expect("hello", "there")
	a.does("POST", "/@connections/"+id, "\xff", 200, "")
	if kind, got, err := ann.Read(t.Context()); kind != websocket.MessageBinary || string(got) != "\xff" {
		t.Errorf("got %v %q, %v", kind, got, err)
	}
	a.does("GET", "/prod/@connections/"+id, "", 200, `{"identity":{"sourceIp":"127.0.0.1"}}`)
	a.does("DELETE", "/prod/@connections/"+id, "", 204, "")
	ann.ended(1000)
	a.counted("disconnects_told", 1)
	if status, _, header := a.ask("POST", "/prod/@connections/"+id, "x"); status != 410 || header.Get("X-Amzn-Errortype") != "GoneException" {
		t.Errorf("it is answered %d %v", status, header)
	}
}

// Without a token nobody may ask in a browser, and everybody else may.
func TestAnAPIWithoutATokenIsForPrograms(t *testing.T) {
	t.Parallel()
	r := startFor(t, startApp(t, &app{}), hooks.Options{})
	a := r.startAPI(hooks.APIOptions{})
	a.does("GET", "/topics", "", 200, "", "Authorization", "")
	a.does("POST", "/broadcast", "x", 403, "", "Origin", "https://example.com")
	a.does("POST", "/broadcast", "x", 403, "", "Sec-Fetch-Site", "cross-site")
}

// Any node takes the requests for the connections of all.
func TestNodesPassRequestsOn(t *testing.T) {
	t.Parallel()
	b := startApp(t, &app{connect: func(w http.ResponseWriter, c call) {}})
	var second *apiOf
	var way atomic.Value
	way.Store("")
	node := func(node string) http.RoundTripper {
		if second == nil || !strings.HasPrefix(node, "second.") {
			return nil
		}
		return roundTrip(func(r *http.Request) (*http.Response, error) {
			switch way.Load() {
			case "broken":
				return nil, fmt.Errorf("broken")
			case "busy":
				return &http.Response{StatusCode: 429, Body: io.NopCloser(strings.NewReader("{}"))}, nil
			case "endless":
				return &http.Response{StatusCode: 200, Body: io.NopCloser(zeros{})}, nil
			}
			there, _ := url.Parse(second.url)
			r.URL.Host = there.Host
			return http.DefaultTransport.RoundTrip(r)
		})
	}
	first := startHooks(t, hooks.Options{Node: "first", Backends: []hooks.Backend{{URL: b.URL}}}, server.Options{}).startAPI(hooks.APIOptions{Token: token, Peers: node})
	second = startHooks(t, hooks.Options{Node: "second", Backends: []hooks.Backend{{URL: b.URL}}}, server.Options{}).startAPI(hooks.APIOptions{Token: token, Peers: node})
	c, id := second.enter(b, "x")
	if !strings.HasPrefix(id, "second.") {
		t.Errorf("the ID is %s", id)
	}
	first.does("POST", "/connections/"+id, "hello", 202, "{}")
	first.does("POST", "/x/@connections/"+id, "there", 200, "")
	c.expect("hello", "there")
	first.does("POST", "/connections/"+id, "\xff", 400, "", "Content-Type", "text/plain")
	if _, text, _ := first.ask("GET", "/connections/"+id, ""); !strings.Contains(text, id) {
		t.Errorf("it is %s", text)
	}
	gone := id[:len(id)-1] + "f"
	first.does("POST", "/connections/"+gone, "x", 410, "")
	if _, _, header := first.ask("POST", "/@connections/"+gone, "x"); header.Get("X-Amzn-Errortype") != "GoneException" {
		t.Errorf("the error is %v", header)
	}
	first.does("POST", "/connections/third.abc-0000000100000000", "x", 410, "")
	first.does("POST", "/connections/"+id, "x", 410, "", "Lull-Forwarded", "1")
	way.Store("broken")
	first.does("POST", "/connections/"+id, "x", 502, "")
	first.does("POST", "/connections/"+id, strings.Repeat("x", 64<<10+1), 413, "") // it does not get there
	first.does("DELETE", "/connections/third", "x", 410, "")
	way.Store("busy")
	if status, _, header := first.ask("POST", "/@connections/"+id, "x"); status != 429 || header.Get("Retry-After") == "" || header.Get("X-Amzn-Errortype") != "LimitExceededException" {
		t.Errorf("it is answered %d, %v", status, header)
	}
	way.Store("endless")
	if _, text, _ := first.ask("GET", "/connections/"+id, ""); len(text) != 1<<20 {
		t.Errorf("the answer has %d bytes", len(text))
	}
	way.Store("")
	first.does("DELETE", "/@connections/"+id, "", 204, "")
	c.ended(1000)
}

// zeros are without end.
type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
