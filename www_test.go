package main

import (
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gorilla/websocket"
)

// The chat of the README: a page, and its WebSocket on the same port.
func TestServeHasAPageAndItsChat(t *testing.T) {
	url, stop := serve(t, "--www", "docs/chat")
	page := strings.Replace(url, "ws:", "http:", 1)
	if status, body := get(t, page); status != http.StatusOK || !strings.Contains(body, "new WebSocket") {
		t.Errorf("the page: %d %q", status, body)
	}
	var guests [2]*websocket.Conn
	for i := range guests {
		c, _, err := websocket.DefaultDialer.Dial(url, http.Header{"Origin": {strings.TrimSuffix(page, "/")}})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		guests[i] = c
	}
	if err := guests[0].WriteMessage(websocket.TextMessage, []byte("hello")); err != nil {
		t.Fatal(err)
	}
	if _, text, err := guests[1].ReadMessage(); err != nil || string(text) != "hello" {
		t.Errorf("heard %q, %v", text, err)
	}
	for _, c := range guests {
		c.Close()
	}
	stop()
}

func TestPagesAreThoseOfTheirDirectory(t *testing.T) {
	above := t.TempDir()
	www := filepath.Join(above, "www")
	if err := os.Mkdir(www, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{"secret", "www/a.txt"} {
		if err := os.WriteFile(filepath.Join(above, file), []byte(file), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("../secret", filepath.Join(www, "link")); err != nil {
		t.Fatal(err)
	}
	url, stop := serve(t, "--www", www)
	defer stop()
	url = strings.Replace(url, "ws:", "http:", 1)
	if status, body := get(t, url+"a.txt"); status != http.StatusOK || body != "www/a.txt" {
		t.Errorf("a.txt: %d %q", status, body)
	}
	for _, path := range []string{"none", "link", "%2e%2e/secret"} {
		if status, _ := get(t, url+path); status == http.StatusOK {
			t.Errorf("%s is served", path)
		}
	}
	if _, errs, code := run(t, "serve", "--www", filepath.Join(above, "none")); code != exitUsage || !strings.Contains(errs, "--www") {
		t.Errorf("a directory that does not exist: exit %d, %s", code, errs)
	}
}

func get(t *testing.T, url string) (status int, body string) {
	t.Helper()
	r, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	data, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return r.StatusCode, string(data)
}
