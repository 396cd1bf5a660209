package admin_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/seed-134acfd0/lull/server"
	"github.com/seed-134acfd0/lull/server/admin"
)

// A page of another site must not act on the server, whether the browser names that
// site or the site's own name points to this server (DNS rebinding).
func TestPagesOfOtherSitesCannotAct(t *testing.T) {
	s := start(t, server.Handler{}, server.Options{})
	own := strings.TrimPrefix(s.url, "http://")
	for _, row := range []struct {
		why, method, path, host string
		header                  http.Header
		code                    int
	}{
		{"curl", "POST", "/api/broadcast", own, nil, 200},
		{"the page itself", "POST", "/api/broadcast", own, http.Header{"Origin": {s.url}, "Sec-Fetch-Site": {"same-origin"}}, 200},
		{"the page in an old browser", "POST", "/api/broadcast", own, http.Header{"Origin": {s.url}}, 200},
		{"a form of another site", "POST", "/api/broadcast", own, http.Header{"Origin": {"http://evil.test"}, "Sec-Fetch-Site": {"cross-site"}}, 403},
		{"the same in an old browser", "POST", "/api/broadcast", own, http.Header{"Origin": {"http://evil.test"}}, 403},
		{"a sandboxed frame", "POST", "/api/broadcast", own, http.Header{"Origin": {"null"}}, 403},
		{"another port of this machine", "POST", "/api/broadcast", own, http.Header{"Origin": {"http://127.0.0.1:1"}, "Sec-Fetch-Site": {"same-site"}}, 403},
		{"a script of another site", "DELETE", "/api/connections/0000000100000000", own, http.Header{"Sec-Fetch-Site": {"cross-site"}}, 403},
		{"a name that points to this server", "POST", "/api/broadcast", "evil.test:6060", http.Header{"Origin": {"http://evil.test:6060"}, "Sec-Fetch-Site": {"same-origin"}}, 403},
		{"the same, to look", "GET", "/api/status", "evil.test:6060", nil, 403},
		{"the same, for profiles", "GET", "/debug/pprof/heap", "evil.test", nil, 403},
		{"the same, for the page", "GET", "/", "evil.test", nil, 403},
		{"a name that begins like an address", "GET", "/api/status", "127.0.0.1.evil.test", nil, 403},
		{"a name that ends like ours", "GET", "/api/status", "notlull.test", nil, 403},
		{"no host at all", "GET", "/api/status", ":80", nil, 403},

		{"localhost", "GET", "/api/status", "localhost:6060", nil, 200},
		{"an address", "GET", "/api/status", "192.0.2.1", nil, 200},
		{"an IPv6 address", "GET", "/api/status", "[::1]:6060", nil, 200},
		{"a name that was given", "GET", "/api/status", "LULL.test:6060", nil, 200},
		{"a balancer by any name", "GET", "/healthz", "whatever.test", nil, 200},
		{"another", "GET", "/readyz", "whatever.test", nil, 200},
		{"Prometheus by any name", "GET", "/metrics", "whatever.test", nil, 200},
	} {
		r := s.request(row.method, row.path, "")
		r.Host = row.host
		for key, values := range row.header {
			r.Header[key] = values
		}
		if answer, body := s.do(r); answer.StatusCode != row.code {
			t.Errorf("%s: %s %.100s, want %d", row.why, answer.Status, body, row.code)
		}
	}
}

// A page of another site must not even read, because a request may be expensive.
func TestPagesOfOtherSitesCannotRead(t *testing.T) {
	s := start(t, server.Handler{}, server.Options{})
	codes := map[string]int{"": 200, "none": 200, "same-origin": 200, "same-site": 403, "cross-site": 403, "something new": 403}
	for _, path := range []string{"/", "/page.js", "/api/status", "/api/connections", "/debug/pprof/", "/debug/pprof/profile?seconds=1", "/debug/pprof/trace?seconds=0.01"} {
		for site, want := range codes {
			if want == 200 && strings.Contains(path, "profile?") && site != "none" {
				continue // a profile takes a second
			}
			if code := s.from(site, path); code != want {
				t.Errorf("%s, %q: %d, want %d", path, site, code, want)
			}
		}
	}
	for _, path := range []string{"/metrics", "/healthz", "/readyz"} {
		for site := range codes {
			if code := s.from(site, path); code != 200 {
				t.Errorf("%s, %q: %d", path, site, code)
			}
		}
	}
}

// from gets a path as a browser does for a page of another site.
func (s *site) from(site, path string) (code int) {
	s.t.Helper()
	r := s.request("GET", path, "")
	if site != "" {
		r.Header.Set("Sec-Fetch-Site", site)
	}
	answer, _ := s.do(r)
	return answer.StatusCode
}

func TestProfilesAreServedOnlyIfAskedFor(t *testing.T) {
	s := start(t, server.Handler{}, server.Options{})
	web := httptest.NewServer(admin.New(t.Context(), s.Server, admin.Options{}))
	defer web.Close()
	s.url = web.URL
	for _, path := range []string{"/debug/pprof/", "/debug/pprof/heap", "/debug/pprof/profile", "/debug/pprof/cmdline", "/debug/pprof/trace", "/debug/pprof/symbol"} {
		if code, _ := s.get(path); code != http.StatusNotFound {
			t.Errorf("%s: %d", path, code)
		}
	}
	if code, _ := s.get("/api/status"); code != http.StatusOK {
		t.Errorf("the status: %d", code)
	}
}

// Its headers also forbid other pages to show it in a frame.
func TestThePageLoadsOnlyItsOwnFiles(t *testing.T) {
	s := start(t, server.Handler{}, server.Options{})
	for _, path := range []string{"/", "/page.css", "/page.js", "/shared.css", "/shared.js", "/api/status", "/metrics", "/nothing"} {
		answer, body := s.do(s.request("GET", path, ""))
		policy := answer.Header.Get("Content-Security-Policy")
		for _, want := range []string{"default-src 'none'", "script-src 'self'", "frame-ancestors 'none'", "require-trusted-types-for 'script'"} {
			if !strings.Contains(policy, want) {
				t.Errorf("%s: the policy %q lacks %s", path, policy, want)
			}
		}
		if strings.Contains(policy, "unsafe") || answer.Header.Get("X-Content-Type-Options") != "nosniff" || answer.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: %v", path, answer.Header)
		}
		if strings.HasPrefix(path, "/page") || strings.HasPrefix(path, "/shared") || path == "/" {
			if answer.StatusCode != http.StatusOK || len(body) < 500 {
				t.Errorf("%s: %s, %d bytes", path, answer.Status, len(body))
			}
		}
	}
}

// The links of the page are right even if a program mounts it below another path.
func TestItCanBeMountedBelowAPath(t *testing.T) {
	s := start(t, server.Handler{}, server.Options{})
	mux := http.NewServeMux()
	mux.Handle("/lull/", http.StripPrefix("/lull", admin.New(t.Context(), s.Server, admin.Options{Pprof: true})))
	web := httptest.NewServer(mux)
	defer web.Close()
	s.url = web.URL
	for _, path := range []string{"/lull/", "/lull/page.js", "/lull/api/status", "/lull/metrics", "/lull/debug/pprof/"} {
		if code, body := s.get(path); code != http.StatusOK {
			t.Errorf("%s: %d %s", path, code, body)
		}
	}
	if _, body := s.get("/lull/"); strings.Contains(body, `="/`) {
		t.Error("the page has links to the top")
	}
	if _, script := s.get("/lull/page.js"); strings.Contains(script, `fetch("/`) || strings.Contains(script, "fetch(`/") {
		t.Error("the script asks at the top")
	}
}
