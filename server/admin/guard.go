package admin

import (
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
)

// known turns away who came by a name that is not this machine's. A page from
// elsewhere can have its own name point to 127.0.0.1 after it was loaded (DNS
// rebinding); its requests then come from this machine's browser and go to
// their own origin, but their Host is still that name. An address is nobody's to
// point elsewhere.
//
// Together with http.CrossOriginProtection, which compares Origin with Host, no
// page but this package's own can close connections or broadcast.
func (a *admin) known(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !a.knows(r.Host) && !slices.Contains(public, r.URL.Path) {
			http.Error(w, "use this server's address, or localhost: "+
				"under another name a page from elsewhere could pretend to be this one", http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// public are the paths for programs that come by any name. What is there tells
// nothing of anybody.
var public = []string{"/metrics", "/healthz", "/readyz"}

func (a *admin) knows(host string) bool {
	name := (&url.URL{Host: host}).Hostname()
	if _, err := netip.ParseAddr(name); err == nil {
		return true
	}
	ours := func(n string) bool { return strings.EqualFold(n, name) }
	return ours("localhost") || slices.ContainsFunc(a.names, ours)
}

// policy lets the page load its own files and ask its own API, and nothing
// else. Text cannot become HTML (trusted-types), and no page can frame it to
// borrow clicks.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"

// sealed gives all answers the headers that keep browsers from doing more with
// them than showing them.
func sealed(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cache-Control", "no-store")
		next.ServeHTTP(w, r)
	})
}
