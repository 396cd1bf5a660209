package page

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// token is what everybody has to show who wants more than health checks. Programs
// send it as a bearer token (RFC 6750 section 2.1). A browser sends it once, from the
// form that it is shown, and gets a cookie: a session, which is made from the token
// and a key of this process, and is of no use after it.
type token struct {
	hash    [sha256.Size]byte
	session string
	cookie  string // its name
	open    []string
}

func newToken(g Guard) *token {
	key := make([]byte, sha256.Size)
	_, _ = rand.Read(key) // it never fails
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(g.Token))
	return &token{sha256.Sum256([]byte(g.Token)), fmt.Sprintf("%x", mac.Sum(nil)), g.Cookie, append([]string{"/shared.css"}, g.Open...)} // the form needs its style
}

// is compares in a time that tells nothing about the token, not even its length.
func (t *token) is(text string) bool {
	hash := sha256.Sum256([]byte(text))
	return subtle.ConstantTimeCompare(hash[:], t.hash[:]) == 1
}

// shown reports whether a request shows the token, or has a session.
func (t *token) shown(r *http.Request) bool {
	if scheme, text, ok := strings.Cut(r.Header.Get("Authorization"), " "); ok && strings.EqualFold(scheme, "Bearer") {
		return t.is(strings.TrimSpace(text))
	}
	c, err := r.Cookie(t.cookie)
	return err == nil && subtle.ConstantTimeCompare([]byte(c.Value), []byte(t.session)) == 1
}

// guard asks for the token.
func (t *token) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case t.shown(r) || slices.Contains(t.open, r.URL.Path):
			next.ServeHTTP(w, r)
		case r.Method == http.MethodPost && r.URL.Path == "/session":
			t.begin(w, r)
		case r.Method == http.MethodGet && r.URL.Path == "/":
			t.form(w, "")
		default:
			w.Header().Set("WWW-Authenticate", `Bearer realm="lull"`)
			http.Error(w, "show the token: Authorization: Bearer TOKEN", http.StatusUnauthorized)
		}
	})
}

// begin begins a session for whoever has filled in the form.
func (t *token) begin(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, 4<<10)
	if !t.is(strings.TrimSpace(r.PostFormValue("token"))) {
		t.form(w, "That is not the token.")
		return
	}
	http.SetCookie(w, &http.Cookie{
		Name: t.cookie, Value: t.session, HttpOnly: true, SameSite: http.SameSiteStrictMode, Secure: r.TLS != nil,
	})
	w.Header().Set("Location", "./") // relative, because the handler may be mounted anywhere
	w.WriteHeader(http.StatusSeeOther)
}

// form asks for the token in a browser.
func (t *token) form(w http.ResponseWriter, problem string) {
	page, _ := shared.ReadFile("shared/token.html") // it is embedded
	w.Header().Set("WWW-Authenticate", `Bearer realm="lull"`)
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(http.StatusUnauthorized)
	_, _ = w.Write([]byte(strings.Replace(string(page), "PROBLEM", problem, 1)))
}
