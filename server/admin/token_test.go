package admin_test

import (
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/seed-134acfd0/lull/server"
	"github.com/seed-134acfd0/lull/server/admin"
)

const secret = "correct-horse-battery-staple"

// locked is a site with a token, mounted below a path.
func locked(t *testing.T) *site {
	s := start(t, server.Handler{}, server.Options{})
	web := httptest.NewServer(http.StripPrefix("/lull", admin.New(t.Context(), s.Server, admin.Options{Token: secret, Pprof: true})))
	t.Cleanup(web.Close)
	s.url = web.URL + "/lull"
	return s
}

// Programs, Prometheus among them, show the token as a bearer token.
func TestProgramsShowTheToken(t *testing.T) {
	s := locked(t)
	for _, row := range []struct {
		authorization, path string
		code                int
	}{
		{"", "/metrics", 401}, {"", "/api/status", 401}, {"", "/api/connections", 401}, {"", "/page.js", 401},
		{"", "/debug/pprof/heap", 401}, {"", "/nothing", 401}, {"", "/", 401},
		{"", "/healthz", 200}, {"", "/readyz", 200},
		{"Bearer " + secret, "/metrics", 200}, {"bearer  " + secret, "/api/status", 200}, {"Bearer " + secret, "/", 200},
		{"Bearer " + secret, "/nothing", 404}, {"Bearer " + secret + "x", "/metrics", 401}, {"Bearer " + secret[1:], "/metrics", 401},
		{"Bearer", "/metrics", 401}, {"Bearer ", "/metrics", 401}, {"Basic " + secret, "/metrics", 401}, {secret, "/metrics", 401},
	} {
		r := s.request("GET", row.path, "")
		if row.authorization != "" {
			r.Header.Set("Authorization", row.authorization)
		}
		answer, body := s.do(r)
		if answer.StatusCode != row.code {
			t.Errorf("%s with %q: %s %.100s, want %d", row.path, row.authorization, answer.Status, body, row.code)
		}
		if row.code == 401 && !strings.HasPrefix(answer.Header.Get("WWW-Authenticate"), "Bearer") {
			t.Errorf("%s: %v", row.path, answer.Header)
		}
	}
	for _, row := range []struct{ method, path string }{{"POST", "/api/broadcast"}, {"DELETE", "/api/connections/1"}, {"POST", "/session"}} {
		if answer, _ := s.do(s.request(row.method, row.path, "x")); answer.StatusCode != http.StatusUnauthorized {
			t.Errorf("%s %s: %s", row.method, row.path, answer.Status)
		}
	}
}

// A browser sends the token once, by a form, and has a cookie that scripts cannot read
// and that no other site's page makes it send.
func TestABrowserShowsTheTokenOnce(t *testing.T) {
	s := locked(t)
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	browser := &http.Client{Jar: jar}
	sign := func(token string) *http.Response {
		answer, err := browser.PostForm(s.url+"/session", url.Values{"token": {token}})
		if err != nil {
			t.Fatal(err)
		}
		answer.Body.Close()
		return answer
	}
	if answer := sign("a guess"); answer.StatusCode != http.StatusUnauthorized || len(answer.Cookies()) > 0 {
		t.Errorf("a wrong token: %s, %v", answer.Status, answer.Cookies())
	}
	answer := sign(" " + secret + "\n")
	if answer.StatusCode != http.StatusOK || answer.Request.URL.Path != "/lull/" {
		t.Errorf("the token leads to %s, %s", answer.Request.URL, answer.Status)
	}
	c := answer.Request.Response.Cookies()
	if len(c) != 1 || !c[0].HttpOnly || c[0].SameSite != http.SameSiteStrictMode || strings.Contains(c[0].Value, secret) {
		t.Fatalf("the cookie is %v", c)
	}
	for _, path := range []string{"/", "/page.js", "/api/status", "/metrics"} {
		answer, err := browser.Get(s.url + path)
		if err != nil {
			t.Fatal(err)
		}
		if answer.Body.Close(); answer.StatusCode != http.StatusOK {
			t.Errorf("%s: %s", path, answer.Status)
		}
	}
	other := locked(t)
	r := other.request("GET", "/api/status", "")
	r.AddCookie(c[0])
	if answer, _ := other.do(r); answer.StatusCode != http.StatusUnauthorized {
		t.Errorf("another server with this token takes the cookie: %s", answer.Status)
	}
}
