package hooks

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/seed-134acfd0/lull/internal/percent"
)

// auth knows who has the token.
type auth struct {
	token string
	hash  [sha256.Size]byte
}

func newAuth(token string) *auth { return &auth{token, sha256.Sum256([]byte(token))} }

// amazonScheme is AWS's Signature Version 4.
const amazonScheme = "AWS4-HMAC-SHA256"

// check looks at a request's head. It returns true if the request is signed: then verify
// has to look at its body.
func (a *auth) check(r *http.Request, now time.Time) (signed bool, err error) {
	scheme, text, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	switch {
	case strings.EqualFold(scheme, "Bearer"):
		hash := sha256.Sum256([]byte(strings.TrimSpace(text)))
		if subtle.ConstantTimeCompare(hash[:], a.hash[:]) != 1 {
			return false, errWrongToken
		}
		return false, nil
	case scheme == amazonScheme:
		at, err := time.Parse(amazonTime, r.Header.Get("X-Amz-Date"))
		switch {
		case err != nil:
			return false, errSignature
		case now.Sub(at).Abs() > amazonLife:
			return false, errOld
		}
		return true, nil
	}
	return false, errNoToken
}

// amazonTime is how AWS writes times, and amazonLife how old a signature may be.
const (
	amazonTime = "20060102T150405Z"
	amazonLife = 5 * time.Minute
)

// verify checks the signature of a request, of which check has seen the head:
// https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
func (a *auth) verify(r *http.Request, body []byte) error {
	_, text, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	fields := map[string]string{}
	for part := range strings.SplitSeq(text, ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(part), "=")
		fields[name] = value
	}
	scope := strings.SplitN(fields["Credential"], "/", 2)
	parts := strings.Split(scope[len(scope)-1], "/") // date, region, service, aws4_request
	names := strings.Split(fields["SignedHeaders"], ";")
	date := r.Header.Get("X-Amz-Date")
	if len(scope) != 2 || len(parts) != 4 || !strings.HasPrefix(date, parts[0]) || !slices.Contains(names, "host") || !slices.Contains(names, "x-amz-date") {
		return errSignature
	}
	text = strings.Join([]string{amazonScheme, date, scope[1], hashOf(canonical(r, names, body))}, "\n")
	key := []byte("AWS4" + a.token)
	for _, part := range parts {
		key = macOf(key, part)
	}
	given, err := hex.DecodeString(fields["Signature"])
	switch {
	case err != nil:
		return errSignature
	case !hmac.Equal(given, macOf(key, text)):
		return errForged
	}
	return nil
}

// canonical is a request in the one form that is signed.
func canonical(r *http.Request, names []string, body []byte) string {
	var b strings.Builder
	b.WriteString(r.Method + "\n")
	for i, segment := range strings.Split(r.URL.EscapedPath(), "/") {
		if i > 0 {
			b.WriteByte('/')
		}
		b.WriteString(amazonEscape(segment)) // for the second time
	}
	b.WriteString("\n" + canonicalQuery(r) + "\n")
	for _, name := range names {
		value := strings.Join(r.Header.Values(name), ",")
		if name == "host" {
			value = r.Host
		}
		b.WriteString(name + ":" + strings.Join(strings.Fields(value), " ") + "\n")
	}
	b.WriteString("\n" + strings.Join(names, ";") + "\n" + hashOf(string(body)))
	return b.String()
}

func canonicalQuery(r *http.Request) string {
	var pairs []string
	for name, values := range r.URL.Query() {
		for _, value := range values {
			pairs = append(pairs, amazonEscape(name)+"="+amazonEscape(value))
		}
	}
	slices.Sort(pairs)
	return strings.Join(pairs, "&")
}

// amazonEscape escapes all but unreserved signs (RFC 3986 section 2.3).
func amazonEscape(text string) string {
	return percent.Encode(text, func(c byte) bool {
		return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("-._~", c) >= 0
	})
}

func hashOf(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

func macOf(key []byte, text string) []byte {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(text))
	return mac.Sum(nil)
}
