// Command backend is a backend for lull's hooks that answers at once: a message with itself,
// and everything else with nothing. It is what the hooks are measured with.
//
//	backend -addr 127.0.0.1:8000
package main

import (
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
)

func main() {
	addr := flag.String("addr", "127.0.0.1:0", "address to listen on")
	flag.Parse()
	l, err := net.Listen("tcp", *addr)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("listening on %s\n", l.Addr())
	log.Fatal(http.Serve(l, http.HandlerFunc(answer)))
}

// answer answers a message with itself. What wrk sends has no event.
func answer(w http.ResponseWriter, r *http.Request) {
	if event := r.Header.Get("Lull-Event"); event != "" && event != "message" {
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	w.Header().Set("Content-Type", r.Header.Get("Content-Type"))
	_, _ = w.Write(body) // an error means that the client has gone
}
