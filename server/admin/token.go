package admin

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
}

// sessionCookie is the cookie's name.
const sessionCookie = "lull-admin"

func newToken(text string) *token {
	key := make([]byte, sha256.Size)
	_, _ = rand.Read(key) // it never fails
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(text))
	return &token{sha256.Sum256([]byte(text)), fmt.Sprintf("%x", mac.Sum(nil))}
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
	c, err := r.Cookie(sessionCookie)
	return err == nil && subtle.ConstantTimeCompare([]byte(c.Value), []byte(t.session)) == 1
}

// unlocked are the paths for which no token is needed: a balancer has none, and the
// form needs its style.
var unlocked = []string{"/healthz", "/readyz", "/page.css"}

// guard asks for the token.
func (t *token) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case t.shown(r) || slices.Contains(unlocked, r.URL.Path):
			next.ServeHTTP(w, r)
		case r.Method == http.MethodPost && r.URL.Path == "/session":
			t.begin(w, r)
		case r.Method == http.MethodGet && r.URL.Path == "/":
			t.form(w, "")
		default:
			w.Header().Set("WWW-Authenticate", `Bearer realm="lull"`)
			http.Error(w, "show the admin token: Authorization: Bearer TOKEN", http.StatusUnauthorized)
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
		Name: sessionCookie, Value: t.session, HttpOnly: true, SameSite: http.SameSiteStrictMode, Secure: r.TLS != nil,
	})
	w.Header().Set("Location", "./") // relative, because the handler may be mounted anywhere
	w.WriteHeader(http.StatusSeeOther)
}

// form asks for the token in a browser.
func (t *token) form(w http.ResponseWriter, problem string) {
	page, _ := pages.ReadFile("page/token.html") // it is embedded
	w.Header().Set("WWW-Authenticate", `Bearer realm="lull"`)
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(http.StatusUnauthorized)
	_, _ = w.Write([]byte(strings.Replace(string(page), "PROBLEM", problem, 1)))
}
