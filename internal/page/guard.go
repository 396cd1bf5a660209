package page

import (
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
)

// Guard says who may ask for what.
type Guard struct {
	// Names are the host names under which browsers may open the page. Addresses
	// and localhost are always allowed.
	Names []string
	// Public are the paths for programs. They may be requested under any name and by
	// any page, so they must reveal nothing about anybody.
	Public []string
	// Token is what everybody has to show, but for Open: programs as "Authorization:
	// Bearer TOKEN", people in a form that is shown at /. Without a token there is no
	// authentication.
	Token string
	// Open are the paths for which no token is needed.
	Open []string
	// Cookie is the name of the cookie of those who have filled in the form. Pages on
	// one host need different names, because a cookie does not belong to a port.
	Cookie string
}

// Handler lets through to next what g allows. All answers have headers that keep
// browsers from doing anything with them other than showing them.
func (g Guard) Handler(next http.Handler) http.Handler {
	if g.Token != "" {
		next = newToken(g).guard(next)
	}
	return sealed(g.known(g.sameOrigin(next)))
}

// known rejects requests whose Host is not a name of this server. An attacker's
// page can make its own name point to 127.0.0.1 after it was loaded (DNS
// rebinding). Its requests then reach this server and are same-origin for the
// browser, but their Host is still the attacker's name. This cannot be done with
// an address, so addresses are allowed.
//
// Together with sameOrigin this means: only the page itself can read or do anything
// here.
func (g *Guard) known(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !g.knows(r.Host) && !slices.Contains(g.Public, r.URL.Path) {
			http.Error(w, "use this server's address, or localhost: "+
				"under an unknown name, a page of another site could pretend to be this one", http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (g *Guard) knows(host string) bool {
	name := (&url.URL{Host: host}).Hostname()
	if _, err := netip.ParseAddr(name); err == nil {
		return true
	}
	ours := func(n string) bool { return strings.EqualFold(n, name) }
	return name != "" && (ours("localhost") || slices.ContainsFunc(g.Names, ours))
}

// sameOrigin rejects requests that a browser makes for a page of another site. That
// page could not read the answer, but the request would still have an effect. Programs
// send no Sec-Fetch-Site, and a browser sends "none" if the user has typed the address.
// Old browsers send only Origin, with requests that change something;
// http.CrossOriginProtection compares it with Host.
func (g *Guard) sameOrigin(next http.Handler) http.Handler {
	next = http.NewCrossOriginProtection().Handler(next)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.Header.Get("Sec-Fetch-Site") {
		case "", "none", "same-origin":
		default:
			if !slices.Contains(g.Public, r.URL.Path) {
				http.Error(w, "this request comes from a page of another site; open the address yourself", http.StatusForbidden)
				return
			}
		}
		next.ServeHTTP(w, r)
	})
}

// policy lets the page load its own files, call its own API and send its own form, and
// nothing else.
// Text cannot become HTML (trusted-types), and no other page can show this one in
// a frame to steal clicks.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; " +
	"base-uri 'none'; form-action 'self'; frame-ancestors 'none'; require-trusted-types-for 'script'"

// sealed adds the headers that keep browsers from doing anything with an answer
// other than showing it.
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
