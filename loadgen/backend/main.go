// Command backend is a backend for lull's hooks that answers at once: a message with itself,
// a batch with its messages, a handshake with a user and a topic if that is wanted, and
// everything else with nothing. It is what the hooks are measured
// with.
//
//	backend -addr 127.0.0.1:8000 -unix /tmp/backend.sock
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"sync/atomic"
)

func main() {
	addr := flag.String("addr", "127.0.0.1:0", "address to listen on")
	path := flag.String("unix", "", "unix socket to listen on too")
	flag.BoolVar(&users, "users", false, "each connection is another user's, and all subscribe to one topic")
	flag.Parse()
	l, err := net.Listen("tcp", *addr)
	if err != nil {
		log.Fatal(err)
	}
	if *path != "" {
		also, err := net.Listen("unix", *path)
		if err != nil {
			log.Fatal(err)
		}
		go func() { log.Fatal(http.Serve(also, http.HandlerFunc(answer))) }()
	}
	fmt.Printf("listening on %s\n", l.Addr())
	log.Fatal(http.Serve(l, http.HandlerFunc(answer)))
}

// users is whether connections have users, and lastUser the number of the last.
var (
	users    bool
	lastUser atomic.Uint64
)

// answer answers a message with itself. What wrk sends has no event.
func answer(w http.ResponseWriter, r *http.Request) {
	event := r.Header.Get("Lull-Event")
	if event == "connect" && users {
		fmt.Fprintf(w, `{"user": "user-%07d", "topics": ["news"]}`, lastUser.Add(1))
		return
	}
	if event != "" && event != "message" && event != "messages" {
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	if event == "messages" {
		body = replies(body)
	}
	w.Header().Set("Content-Type", r.Header.Get("Content-Type"))
	_, _ = w.Write(body) // an error means that the client has gone
}

// replies answers each message of a batch with itself.
func replies(batch []byte) []byte {
	var all []struct {
		Text   string `json:"text,omitempty"`
		Base64 []byte `json:"base64,omitempty"`
	}
	if err := json.Unmarshal(batch, &all); err != nil {
		return nil
	}
	out, _ := json.Marshal(all) // there is nothing in it that has no JSON
	return out
}
