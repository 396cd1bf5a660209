package server_test

import (
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/server"
)

// A handler that blocks its reactor is logged once, with its stack.
func TestAStallIsLogged(t *testing.T) {
	t.Parallel()
	block := func(release chan struct{}) { <-release }
	for _, in := range []string{"Upgrade", "Open", "Message", "Close"} {
		t.Run(in, func(t *testing.T) {
			onBothTables(t, func(t *testing.T, o server.Options) {
				t.Parallel()
				release := make(chan struct{})
				var h server.Handler
				switch in {
				case "Upgrade":
					h.Upgrade = func(*server.Request) error { block(release); return nil }
				case "Open":
					h.Open = func(server.Conn) { block(release) }
				case "Message":
					h.Message = func(server.Conn, frame.Op, []byte) { block(release) }
				case "Close":
					h.Close = func(server.Conn, frame.Code, error) { block(release) }
				}
				o.StallAfter = 500 * time.Millisecond // long enough that nothing else counts as a stall
				s := start(t, h, o)
				unblock := sync.OnceFunc(func() { close(release) })
				t.Cleanup(unblock) // otherwise a failing test would hang
				c := s.dial()
				c.write(request + message(frame.Text, "hello") + closing(frame.NormalClosure, ""))
				eventually(t, "the stall is logged", func() bool {
					for _, line := range s.log.all() {
						if strings.Contains(line, "in=Handler."+in) && strings.Contains(line, "TestAStallIsLogged") && strings.Contains(line, "reactor=0") {
							return true
						}
					}
					return false
				})
				if count(s.Stats(), "stalls") == 0 {
					t.Error("the stall is not counted")
				}
				unblock()
				c.accepted()
			})
		})
	}
}
