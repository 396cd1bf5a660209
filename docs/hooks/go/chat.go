// Command chat is a chat with login. See docs/hooks.md.
//
//	go run docs/hooks/go/chat.go
//	lull serve --mode hooks --hook http://127.0.0.1:8000/lull --origin http://127.0.0.1:8000
package main

import (
	"cmp"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

var (
	secret   = os.Getenv("LULL_HOOK_SECRET")
	api      = cmp.Or(os.Getenv("LULL_API"), "http://127.0.0.1:8081")
	pages    = cmp.Or(os.Getenv("PAGES"), "docs/hooks")
	sessions sync.Map // names of those who have logged in
)

func main() {
	network, address := "tcp", cmp.Or(os.Getenv("LISTEN"), "127.0.0.1:8000")
	if strings.HasPrefix(address, "/") {
		network = "unix"
	}
	l, err := net.Listen(network, address)
	if err != nil {
		log.Fatal(err)
	}
	http.HandleFunc("/{$}", index)
	http.HandleFunc("/lull", lull)
	log.Fatal(http.Serve(l, nil))
}

func index(w http.ResponseWriter, r *http.Request) {
	_, known := nameOf(r)
	switch {
	case r.Method == http.MethodPost:
		session := rand.Text()
		sessions.Store(session, r.PostFormValue("name"))
		http.SetCookie(w, &http.Cookie{Name: "session", Value: session, HttpOnly: true, SameSite: http.SameSiteLaxMode})
		http.Redirect(w, r, "/", http.StatusFound)
	case known:
		http.ServeFile(w, r, filepath.Join(pages, "chat.html"))
	default:
		http.ServeFile(w, r, filepath.Join(pages, "login.html"))
	}
}

func nameOf(r *http.Request) (name any, known bool) {
	c, err := r.Cookie("session")
	if err != nil {
		return nil, false
	}
	return sessions.Load(c.Value)
}

func lull(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	event := r.Header.Get("Lull-Event")
	user, _ := url.PathUnescape(r.Header.Get("Lull-User"))
	if err != nil || secret != "" && event != "" && !genuine(r, body) {
		http.Error(w, "this is not from lull", http.StatusForbidden)
		return
	}
	switch event {
	case "connect":
		name, known := nameOf(r)
		if !known {
			http.Error(w, "log in first", http.StatusForbidden)
			return
		}
		json.NewEncoder(w).Encode(map[string]any{"user": name, "topics": []string{"chat"}})
	case "message":
		w.Header().Set("Content-Type", "text/plain")
		w.Header().Set("Lull-Topic", "chat")
		fmt.Fprintf(w, "%s: %s", user, body)
	case "disconnect":
		if answer, err := http.Post(api+"/topics/chat", "text/plain", strings.NewReader(user+" has left")); err == nil {
			answer.Body.Close()
		}
	}
}

func genuine(r *http.Request, body []byte) bool {
	mac := hmac.New(sha256.New, []byte(secret))
	for _, name := range []string{"Timestamp", "Id", "Event", "Connection", "User"} {
		fmt.Fprintln(mac, r.Header.Get("Lull-"+name))
	}
	mac.Write(body)
	at, _ := strconv.ParseInt(r.Header.Get("Lull-Timestamp"), 10, 64)
	got, _ := hex.DecodeString(strings.TrimPrefix(r.Header.Get("Lull-Signature"), "v1="))
	return hmac.Equal(got, mac.Sum(nil)) && time.Since(time.Unix(at, 0)).Abs() < 5*time.Minute
}
