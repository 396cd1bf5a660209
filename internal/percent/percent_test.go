package percent

import (
	"net/url"
	"testing"
)

// Text comes back as it was, and what is plain stands for itself.
func TestTextComesBack(t *testing.T) {
	letter := func(c byte) bool { return c >= 'a' && c <= 'z' }
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	for text, want := range map[string]string{"": "", "abc": "abc", "a b%": "a%20b%25", "é": "%C3%A9", string(all): ""} {
		got := Encode(text, letter)
		if want != "" && got != want {
			t.Errorf("%q is spelled %q, want %q", text, got, want)
		}
		if back, err := url.PathUnescape(got); err != nil || back != text {
			t.Errorf("%q is spelled %q, which is %q: %v", text, got, back, err)
		}
	}
}
