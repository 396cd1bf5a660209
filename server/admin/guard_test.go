package admin_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/seed-134acfd0/lull/server"
	"github.com/seed-134acfd0/lull/server/admin"
)

// A page from elsewhere must not act here, whether the browser says where it is
// from or its name has been pointed here (DNS rebinding).
func TestForeignPagesAreTurnedAway(t *testing.T) {
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
		{"a form elsewhere", "POST", "/api/broadcast", own, http.Header{"Origin": {"http://evil.test"}, "Sec-Fetch-Site": {"cross-site"}}, 403},
		{"the same in an old browser", "POST", "/api/broadcast", own, http.Header{"Origin": {"http://evil.test"}}, 403},
		{"a sandboxed frame", "POST", "/api/broadcast", own, http.Header{"Origin": {"null"}}, 403},
		{"another port of this machine", "POST", "/api/broadcast", own, http.Header{"Origin": {"http://127.0.0.1:1"}, "Sec-Fetch-Site": {"same-site"}}, 403},
		{"a script elsewhere", "DELETE", "/api/connections/0000000100000000", own, http.Header{"Sec-Fetch-Site": {"cross-site"}}, 403},
		{"a name pointed here", "POST", "/api/broadcast", "evil.test:6060", http.Header{"Origin": {"http://evil.test:6060"}, "Sec-Fetch-Site": {"same-origin"}}, 403},
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

// The page may load its own files and nothing else, and nobody may frame it.
func TestThePageIsSealed(t *testing.T) {
	s := start(t, server.Handler{}, server.Options{})
	for _, path := range []string{"/", "/page.css", "/page.js", "/api/status", "/metrics", "/nothing"} {
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
		if strings.HasPrefix(path, "/page") || path == "/" {
			if answer.StatusCode != http.StatusOK || len(body) < 1000 {
				t.Errorf("%s: %s, %d bytes", path, answer.Status, len(body))
			}
		}
	}
}

// Below a path of somebody else's the page's links still lead to its own.
func TestItCanBeMountedBelowAPath(t *testing.T) {
	s := start(t, server.Handler{}, server.Options{})
	mux := http.NewServeMux()
	mux.Handle("/lull/", http.StripPrefix("/lull", admin.New(t.Context(), s.Server)))
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
