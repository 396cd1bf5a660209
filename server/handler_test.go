package server_test

import (
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/server"
)

func TestUpgradeSeesTheRequestAndChangesTheAnswer(t *testing.T) {
	everywhere(t, func(t *testing.T, o server.Options) {
		saw := make(chan string, 1)
		h := server.Handler{
			Upgrade: func(r *server.Request) error {
				saw <- fmt.Sprintf("%s %s %q %q %q %v", r.Path(), r.Target(), r.Header("cookie"), r.Header("X-None"), r.Protocols(), r.RemoteAddr())
				r.Tag = 1<<64 - 1
				r.Protocol = "chat.v2"
				r.ResponseHeader = http.Header{"X-Room": {"7"}}
				return nil
			},
			Message: func(c server.Conn, op frame.Op, _ []byte) { must(c.Send(op, fmt.Append(nil, c.Tag()))) },
		}
		c := start(t, h, o).dial()
		c.write(strings.Replace(with("Cookie: a=b", "Sec-WebSocket-Protocol: chat.v1, chat.v2"), "GET /", "GET /chat?room=7", 1))
		want := fmt.Sprintf(`/chat /chat?room=7 "a=b" "" ["chat.v1" "chat.v2"] %v`, c.LocalAddr())
		if got := <-saw; got != want {
			t.Errorf("Upgrade saw\n%s, want\n%s", got, want)
		}
		r, err := http.ReadResponse(c.in, nil)
		if err != nil || r.StatusCode != http.StatusSwitchingProtocols ||
			r.Header.Get("Sec-WebSocket-Protocol") != "chat.v2" || r.Header.Get("X-Room") != "7" {
			t.Errorf("answered %v, %v", r, err)
		}
		c.send(frame.Text, "who am I?")
		c.expect(frame.Text, "18446744073709551615")
	})
}

func TestARequestHasCookiesAndAQuery(t *testing.T) {
	saw := make(chan string, 1)
	s := start(t, server.Handler{Upgrade: func(r *server.Request) error {
		saw <- fmt.Sprint(r.Cookie("session"), r.Cookie("none"), r.Query()["room"], r.Query().Get("none"))
		return nil
	}}, server.Options{})
	for head, want := range map[string]string{
		with("Cookie: a=b; session=s1", "Cookie: session=s2"):                        "s1[]",
		with(`Cookie: bad={"a": "b"}; ; session="s 1"`):                              "s 1[]",
		with("cookie: session=") + "":                                                "[]",
		strings.Replace(request, "GET /", "GET /chat?room=a%20b&bad=%zz&room=7&", 1): "[a b 7]",
		strings.Replace(request, "GET /", "GET /chat?", 1):                           "[]",
	} {
		s.dial().write(head)
		if got := <-saw; got != want {
			t.Errorf("%q: %q, not %q", head, got, want)
		}
	}
}

func TestWithoutFunctionsMessagesAreIgnored(t *testing.T) {
	everywhere(t, func(t *testing.T, o server.Options) {
		s := start(t, server.Handler{}, o)
		c := s.open()
		c.write(message(frame.Text, "hello") + message(frame.Ping, "there?"))
		c.expect(frame.Pong, "there?")
		c.leave()
		s.counted("messages_in", 1)
		s.counted("closed_clean", 1)
	})
}

// diary records the calls of a handler for each connection, by tag.
type diary struct {
	mu    sync.Mutex
	notes map[uint64][]string
	last  uint64 // tag
}

func (d *diary) note(c server.Conn, what string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.notes[c.Tag()] = append(d.notes[c.Tag()], what)
}

func (d *diary) handler() server.Handler {
	return server.Handler{
		Upgrade: func(r *server.Request) error {
			d.mu.Lock()
			defer d.mu.Unlock()
			d.last++
			r.Tag = d.last
			return nil
		},
		Open: func(c server.Conn) { d.note(c, "open") },
		Message: func(c server.Conn, _ frame.Op, data []byte) {
			d.note(c, string(data))
			switch string(data) {
			case "panic":
				panic("as you wish")
			case "close":
				must(c.Close(frame.NormalClosure, ""))
			case "feed":
				_ = c.Send(frame.Binary, make([]byte, 2000)) // until the outbox is full
			}
		},
		Close: func(c server.Conn, code frame.Code, _ error) { d.note(c, fmt.Sprint("close ", code)) },
	}
}

// A handler's functions are called once for everything, in order, with Close last,
// in whatever way the connection ends.
func TestHandlersAreCalledOnceAndInOrder(t *testing.T) {
	t.Parallel()
	rows := []struct {
		name string
		does func(*client)
		want string // after "open", "1" and "2"
	}{
		{"the peer closes", func(c *client) { c.leave() }, "close 1000"},
		{"the peer closes and vanishes", func(c *client) { c.write(closing(4001, "")); c.Close() }, "close 4001"},
		{"the peer vanishes", func(c *client) { c.Close() }, "close 1006"},
		{"the peer resets", func(c *client) { c.reset() }, "close 1006"},
		{"the server closes", func(c *client) {
			c.send(frame.Text, "close")
			c.expectClose(frame.NormalClosure)
			c.write(message(frame.Text, "late") + closing(4002, ""))
			c.expectEnd()
		}, "close, close 4002"},
		{"the server closes, the peer vanishes", func(c *client) { c.send(frame.Text, "close"); c.expectClose(1000); c.Close() }, "close, close 1006"},
		{"the server closes, the peer is silent", func(c *client) { c.send(frame.Text, "close"); c.expectClose(1000); c.expectCut() }, "close, close 1006"},
		{"the server closes, the peer breaks the protocol", func(c *client) {
			c.send(frame.Text, "close")
			c.expectClose(1000)
			c.write(piece(fin|text, "\xff"))
			c.expectEnd()
		}, "close, close 1007"},
		{"a breach", func(c *client) { c.write(piece(fin, "") + message(frame.Text, "more")); c.expectClose(1002) }, "close 1002"},
		{"a message too big", func(c *client) { c.write(message(frame.Binary, xs(smallest+1))); c.expectClose(1009) }, "close 1009"},
		{"bad text", func(c *client) { c.write(piece(text, "\xff") + message(frame.Text, "more")); c.expectClose(1007) }, "close 1007"},
		{"a panic", func(c *client) {
			c.write(message(frame.Text, "panic") + message(frame.Text, "more"))
			c.expectClose(1011)
		}, "panic, close 1011"},
		{"a silent peer", func(c *client) { c.expect(frame.Ping, ""); c.expectClose(1001) }, "close 1001"},
		{"a peer that does not read", func(c *client) { c.write(strings.Repeat(message(frame.Text, "feed"), 2000)) }, "close 1006"},
		{"the server's end", func(*client) {}, "close 1006"},
	}
	everywhere(t, func(t *testing.T, o server.Options) {
		t.Parallel()
		d := &diary{notes: map[uint64][]string{}}
		o.MaxMessage = smallest
		o.CloseTimeout = 2 * time.Second
		o.IdleTimeout, o.WriteTimeout = 4*time.Second, 250*time.Millisecond
		o.Grace = -1
		s := start(t, d.handler(), o)
		for _, row := range rows {
			c := s.dialDeaf()
			c.write(request + message(frame.Text, "1") + fragments(frame.Text, "2", 1))
			c.accepted()
			row.does(c)
		}
		eventually(t, "all but the last have ended", func() bool { return s.Stats().Open <= 1 })
		s.stop()
		for i, row := range rows {
			notes := slices.DeleteFunc(d.notes[uint64(i+1)], func(n string) bool { return n == "feed" })
			got, want := strings.Join(notes, ", "), "open, 1, 2, "+row.want
			if row.name == "the peer resets" && o.Mode == server.Workers {
				// Messages that no worker has handled are discarded.
				got, want = got[strings.LastIndex(got, "close"):], row.want
			}
			if got != want {
				t.Errorf("%s: the calls are %q, want %q", row.name, got, want)
			}
		}
	})
}

func TestAPanicHarmsOnlyItsConnection(t *testing.T) {
	rows := []struct {
		name    string
		panics  func(*server.Handler)
		ends    func(*client)
		code    frame.Code
		cause   error
		counter string
	}{
		{"Open", func(h *server.Handler) { h.Open = func(server.Conn) { panic("secret") } },
			func(c *client) { c.write(message(frame.Text, "more")) }, frame.InternalError, server.ErrPanic, "closed_panic"},
		{"Message", func(h *server.Handler) { h.Message = func(server.Conn, frame.Op, []byte) { panic("secret") } },
			func(c *client) { c.write(message(frame.Text, "a") + message(frame.Text, "b")) }, frame.InternalError, server.ErrPanic, "closed_panic"},
		{"Message, with the end of fragments", func(h *server.Handler) { h.Message = func(server.Conn, frame.Op, []byte) { panic("secret") } },
			func(c *client) { c.write(fragments(frame.Text, "hello", 1)) }, frame.InternalError, server.ErrPanic, "closed_panic"},
		{"Close", func(h *server.Handler) {
			tell := h.Close
			h.Close = func(c server.Conn, code frame.Code, cause error) {
				tell(c, code, cause)
				panic("secret")
			}
		}, func(c *client) { c.write(closing(frame.GoingAway, "")) }, frame.GoingAway, nil, "closed_clean"},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			onBothTables(t, func(t *testing.T, o server.Options) {
				// The tags say which connections panic.
				quiet := echo
				loud, told := quiet, (<-chan ending)(nil)
				loud.Close, told = endings()
				row.panics(&loud)
				h := server.Handler{
					Upgrade: func(r *server.Request) error {
						if r.Path() == "/panic" {
							r.Tag = 1
						}
						return nil
					},
					Open: func(c server.Conn) {
						if c.Tag() == 1 && loud.Open != nil {
							loud.Open(c)
						}
					},
					Message: func(c server.Conn, op frame.Op, data []byte) {
						if c.Tag() == 1 {
							loud.Message(c, op, data)
						} else {
							quiet.Message(c, op, data)
						}
					},
					Close: func(c server.Conn, code frame.Code, cause error) {
						if c.Tag() == 1 {
							loud.Close(c, code, cause)
						}
					},
				}
				s := start(t, h, o)
				bystander := s.open()
				for n := 1; n <= 3; n++ {
					c := s.dial()
					c.write(swap("GET /", "GET /panic"))
					c.accepted()
					row.ends(c)
					if reason := c.expectClose(row.code); strings.Contains(reason, "secret") {
						t.Errorf("the reason of the Close frame is %q", reason)
					}
					c.expectEnd()
					expectEnding(t, told, row.code, row.cause)
					c.Close()
					bystander.echoed("hello")
					s.counted(row.counter, n)
				}
				eventually(t, "the panics are logged with their stacks", func() bool {
					logged := 0
					for _, line := range s.log.all() {
						if strings.Contains(line, "ERROR handler panicked panic=secret") && strings.Contains(line, "goroutine") {
							logged++
						}
					}
					return logged == 3
				})
				if n := s.Stats().Open; n != 1 {
					t.Errorf("%d connections are open", n)
				}
			})
		})
	}
}

func TestRemoteAddrOfAPeerThatHasLeft(t *testing.T) {
	onBothTables(t, func(t *testing.T, o server.Options) {
		h := newObliging()
		asked := make(chan bool, 1)
		s := start(t, server.Handler{
			Upgrade: func(r *server.Request) error {
				if r.Path() == "/gone" {
					asked <- r.RemoteAddr().IsValid()
				}
				return nil
			},
			Message: h.message,
		}, o)
		release := h.hold(s.open())
		conn, err := net.Dial("tcp", s.address())
		must(err)
		c := newClient(t, conn)
		c.write(swap("GET /", "GET /gone"))
		c.reset()
		release()
		s.counted("closed_gone", 1)
		if len(asked) == 1 && <-asked {
			t.Error("a peer that has left has an address")
		}
	})
}
