// Command peer is an echo server on github.com/lxzan/gws, the fastest of Go's
// libraries that run a goroutine for each connection. `lull bench workers`
// compares lull with it.
//
//	peer -listen 127.0.0.1:0
//	peer -listen 127.0.0.1:0 -tls-cert FILE -tls-key FILE
//
// The second is wss://, by net/http and crypto/tls, with which `lull bench tls`
// compares lull.
//
// It prints the same "listening on" line as `lull serve`.
package main

import (
	"crypto/tls"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"

	"github.com/lxzan/gws"
)

// echo sends every message back.
type echo struct{ gws.BuiltinEventHandler }

func (echo) OnPing(c *gws.Conn, payload []byte) { _ = c.WritePong(payload) }

func (echo) OnMessage(c *gws.Conn, m *gws.Message) {
	_ = c.WriteMessage(m.Opcode, m.Bytes()) // on an error gws ends the connection
	_ = m.Close()
}

func main() {
	listen := flag.String("listen", "127.0.0.1:0", "address and port")
	cert := flag.String("tls-cert", "", "certificate, for wss://")
	key := flag.String("tls-key", "", "its private key")
	flag.Parse()
	l, err := net.Listen("tcp", *listen)
	if err != nil {
		fmt.Fprintln(os.Stderr, "peer:", err)
		os.Exit(1)
	}
	fmt.Printf("listening on %s (gws)\n", l.Addr())
	upgrader := gws.NewUpgrader(echo{}, &gws.ServerOption{})
	s := http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if c, err := upgrader.Upgrade(w, r); err == nil {
				go c.ReadLoop()
			}
		}),
		TLSConfig: &tls.Config{MinVersion: tls.VersionTLS13},
	}
	if *cert != "" {
		err = s.ServeTLS(l, *cert, *key)
	} else {
		err = s.Serve(l)
	}
	fmt.Fprintln(os.Stderr, "peer:", err)
	os.Exit(1)
}
