package frame_test

import (
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/seed-134acfd0/lull/frame"
)

// padded is a head of exactly n bytes.
func padded(n int) string {
	head := strings.TrimSuffix(good, "\r\n") + "X-Padding: "
	return head + strings.Repeat("x", n-len(head)-len("\r\n\r\n")) + "\r\n\r\n"
}

func TestHeadLen(t *testing.T) {
	unended := strings.TrimSuffix(padded(frame.MaxHead+5), "\r\n\r\n")
	rows := []struct {
		name, in string
		want     int
		status   int // of the Reject, zero for none
	}{
		{"nothing", "", 0, 0},
		{"half a request line", "GET /", 0, 0},
		{"no empty line yet", strings.TrimSuffix(good, "\r\n"), 0, 0},
		{"half of the empty line", strings.TrimSuffix(good, "\n"), 0, 0},
		{"a line end cut in half", "GET / HTTP/1.1\r", 0, 0},
		{"whole", good, len(good), 0},
		{"frames behind it", good + "\x81\x80\r\n\r\n", len(good), 0},
		{"a bare line feed among frames behind it", good + "\n", len(good), 0},
		{"a second head behind it", good + good, len(good), 0},
		{"nothing but an empty line", "\r\n", 0, 0},
		{"nothing but empty lines", "\r\n\r\n", 0, 0},
		{"an empty line before it", "\r\n" + good, 2 + len(good), 0},
		{"as many empty lines before it as are allowed", "\r\n\r\n\r\n\r\n" + good + "\x81", 8 + len(good), 0},
		{"too many empty lines before it", "\r\n\r\n\r\n\r\n\r\n" + good, 0, http.StatusBadRequest},
		{"too many empty lines and nothing else", "\r\n\r\n\r\n\r\n\r\n", 0, http.StatusBadRequest},
		{"half an empty line before it", "\r" + good, len("\r" + good), 0}, // which Upgrade refuses
		{"empty lines count for the limit", "\r\n" + padded(frame.MaxHead), 0, http.StatusRequestHeaderFieldsTooLarge},
		{"empty lines up to the limit", "\r\n" + padded(frame.MaxHead-2), frame.MaxHead, 0},
		{"exactly the limit", padded(frame.MaxHead), frame.MaxHead, 0},
		{"exactly the limit, frames behind it", padded(frame.MaxHead) + "\x81", frame.MaxHead, 0},
		{"one byte below the limit, no end", unended[:frame.MaxHead-1], 0, 0},
		{"the limit, no end", unended[:frame.MaxHead], 0, http.StatusRequestHeaderFieldsTooLarge},
		{"beyond the limit, no end", unended, 0, http.StatusRequestHeaderFieldsTooLarge},
		{"an end beyond the limit", padded(frame.MaxHead + 1), 0, http.StatusRequestHeaderFieldsTooLarge},
		{"a bare line feed", "GET / HTTP/1.1\n", 0, http.StatusBadRequest},
		{"a bare line feed first of all", "\n", 0, http.StatusBadRequest},
		{"a bare line feed in a later line", "GET / HTTP/1.1\r\nHost: a\n\n", 0, http.StatusBadRequest},
		{"two bare line feeds", "GET / HTTP/1.1\n\n", 0, http.StatusBadRequest},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			got, err := frame.HeadLen([]byte(r.in))
			if got != r.want {
				t.Errorf("length %d, want %d", got, r.want)
			}
			reject, refused := errors.AsType[*frame.Reject](err)
			if refused != (r.status != 0) || refused && reject.Status != r.status {
				t.Fatalf("error %v, want status %d", err, r.status)
			}
			if refused {
				refusal(t, reject.Response(""), r.status)
			}
		})
	}
}

func TestHeadLenWaitsForTheLastByte(t *testing.T) {
	in := []byte("\r\n\r\n" + good)
	for i := range in {
		if n, err := frame.HeadLen(in[:i]); n != 0 || err != nil {
			t.Fatalf("%d of %d bytes: length %d, error %v", i, len(in), n, err)
		}
	}
}

func TestNewKeyIsBase64(t *testing.T) {
	// The nonce of the example in section 1.3.
	if k := frame.NewKey([16]byte([]byte("the sample nonce"))); k != frame.SampleKey {
		t.Errorf("got %s, want %s", k, frame.SampleKey)
	}
}
