package hooks

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// vanilla is a request of AWS's test suite for Signature Version 4.
func vanilla() *http.Request {
	r := httptest.NewRequest("GET", "/", nil)
	r.Host = "example.amazonaws.com"
	r.Header.Set("X-Amz-Date", "20150830T123600Z")
	r.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, SignedHeaders=host;x-amz-date, "+
		"Signature=5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31")
	return r
}

var vanillaTime = time.Date(2015, 8, 30, 12, 36, 0, 0, time.UTC)

func TestASignatureOfAWSIsVerified(t *testing.T) {
	a := newAuth("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")
	check := func(r *http.Request, body string, now time.Time) error {
		signed, err := a.check(r, now)
		if err == nil && !signed {
			t.Fatal("it is not signed")
		}
		if err != nil {
			return err
		}
		return a.verify(r, []byte(body))
	}
	if err := check(vanilla(), "", vanillaTime.Add(299*time.Second)); err != nil {
		t.Error(err)
	}
	change := func(old, new string) *http.Request {
		r := vanilla()
		r.Header.Set("Authorization", strings.Replace(r.Header.Get("Authorization"), old, new, 1))
		return r
	}
	other := func(do func(*http.Request)) *http.Request {
		r := vanilla()
		do(r)
		return r
	}
	for name, row := range map[string]struct {
		r    *http.Request
		body string
		now  time.Time
		want error
	}{
		"old":                   {vanilla(), "", vanillaTime.Add(301 * time.Second), errOld},
		"of the future":         {vanilla(), "", vanillaTime.Add(-301 * time.Second), errOld},
		"another body":          {vanilla(), "x", vanillaTime, errForged},
		"another path":          {other(func(r *http.Request) { r.URL.Path = "/x" }), "", vanillaTime, errForged},
		"another query":         {other(func(r *http.Request) { r.URL.RawQuery = "x=1" }), "", vanillaTime, errForged},
		"another method":        {other(func(r *http.Request) { r.Method = "POST" }), "", vanillaTime, errForged},
		"another host":          {other(func(r *http.Request) { r.Host = "x" }), "", vanillaTime, errForged},
		"another moment":        {other(func(r *http.Request) { r.Header.Set("X-Amz-Date", "20150830T123601Z") }), "", vanillaTime, errForged},
		"another day":           {other(func(r *http.Request) { r.Header.Set("X-Amz-Date", "20150831T123600Z") }), "", vanillaTime.Add(24 * time.Hour), errSignature},
		"no moment":             {other(func(r *http.Request) { r.Header.Del("X-Amz-Date") }), "", vanillaTime, errSignature},
		"another region":        {change("us-east-1", "us-east-2"), "", vanillaTime, errForged},
		"another signature":     {change("5fa", "5fb"), "", vanillaTime, errForged},
		"a short signature":     {change("=5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31", "=5f"), "", vanillaTime, errForged},
		"no signature":          {change("Signature=", "Signatur="), "", vanillaTime, errForged},
		"no hexadecimal":        {change("5fa", "xyz"), "", vanillaTime, errSignature},
		"no scope":              {change("/20150830/us-east-1/service/aws4_request", ""), "", vanillaTime, errSignature},
		"the host is left out":  {change("host;", ""), "", vanillaTime, errSignature},
		"the time is left out":  {change(";x-amz-date", ""), "", vanillaTime, errSignature},
		"another header signed": {change("host;", "accept;host;"), "", vanillaTime, errForged},
		"nothing":               {change("Credential", "X"), "", vanillaTime, errSignature},
	} {
		if err := check(row.r, row.body, row.now); err != row.want {
			t.Errorf("%s: %v, not %v", name, err, row.want)
		}
	}
}

func TestTokens(t *testing.T) {
	a := newAuth("a token of its own")
	for header, want := range map[string]error{
		"Bearer a token of its own":   nil,
		"bearer  a token of its own ": nil,
		"":                            errNoToken,
		"Bearer":                      errWrongToken,
		"Bearer ":                     errWrongToken,
		"Bearer a token of its owN":   errWrongToken,
		"Bearer a token":              errWrongToken,
		"Basic a token of its own":    errNoToken,
		"a token of its own":          errNoToken,
		"AWS4-HMAC-SHA256":            errSignature,
	} {
		r := httptest.NewRequest("GET", "/", nil)
		r.Header.Set("Authorization", header)
		if signed, err := a.check(r, time.Now()); signed || err != want {
			t.Errorf("%q: %v, not %v", header, err, want)
		}
	}
}
