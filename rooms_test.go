package main

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	broker "github.com/nats-io/nats-server/v2/server"

	"github.com/seed-134acfd0/lull/internal/natsd/natsdtest"
	"github.com/seed-134acfd0/lull/internal/testkit"
)

// guest is a client in a room.
type guest struct {
	*websocket.Conn
	t *testing.T
}

// visit lets somebody into the room of a path.
func visit(t *testing.T, url, path string) guest {
	t.Helper()
	c, _, err := websocket.DefaultDialer.Dial(url+path, nil)
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	t.Cleanup(func() { c.Close() })
	return guest{c, t}
}

// turnedAway is the answer to somebody who is not let in.
func turnedAway(t *testing.T, url, path string) (status int, body string) {
	t.Helper()
	c, answer, err := websocket.DefaultDialer.Dial(url+path, nil)
	if err == nil {
		c.Close()
		return http.StatusSwitchingProtocols, ""
	}
	if answer == nil {
		t.Fatalf("%s: %v", path, err)
	}
	text := make([]byte, 1024)
	n, _ := answer.Body.Read(text) // gorilla has read it already
	return answer.StatusCode, string(text[:n])
}

func (g guest) says(text string) {
	g.t.Helper()
	if err := g.WriteMessage(websocket.TextMessage, []byte(text)); err != nil {
		g.t.Fatal(err)
	}
}

func (g guest) hears(want string) {
	g.t.Helper()
	if _, text, err := g.ReadMessage(); err != nil || string(text) != want {
		g.t.Fatalf("heard %q, %v, want %q", text, err, want)
	}
}

// A message goes to everybody in its sender's room, the sender included, and to nobody
// else, wherever handlers run.
func TestRooms(t *testing.T) {
	for _, args := range [][]string{nil, {"--handlers", "workers"}, {"--reactors", "1", "--fd-tables", "shared"}} {
		url, stop := serve(t, append(args, "--mode", "rooms")...)
		anna, ben := visit(t, url, "room/a"), visit(t, url, "room/a?name=ben")
		carl := visit(t, url, "room/b")
		anna.says("hello")
		ben.hears("hello")
		ben.says("hello, anna")
		for _, text := range []string{"hello", "hello, anna"} {
			anna.hears(text)
		}
		carl.says("nobody here")
		carl.hears("nobody here")
		ben.hears("hello, anna")
		for range 3 { // rooms end and begin anew
			ben.Close()
			anna.says("again")
			anna.hears("again")
			anna.Close()
			anna, ben = visit(t, url, "room/a"), visit(t, url, "room/a")
			anna.says("back")
			anna.hears("back")
			ben.hears("back")
		}
		stop()
	}
}

// A room's name is decoded: however it is written, it is the same room.
func TestNamesOfRoomsAreDecoded(t *testing.T) {
	url, stop := serve(t, "--mode", "rooms")
	defer stop()
	for _, paths := range [][2]string{
		{"room/caf%C3%A9", "room/caf%c3%a9"},
		{"room/%E6%97%A5%E6%9C%AC", "room/日本"},
		{"room/%72oom", "room/room"},
		{"room/a%2Fb", "room/a%2fb"},
		{"room/" + strings.Repeat("%C3%A9", 100), "room/" + strings.Repeat("é", 100)},
		{"room/..%3F", "room/..%3f"},
	} {
		one, other := visit(t, url, paths[0]), visit(t, url, paths[1])
		one.says(paths[0])
		one.hears(paths[0])
		other.hears(paths[0])
		other.Close()
		one.Close()
	}
}

// Where there is no room, nobody is let in, and the answer says why.
func TestPathsWithoutARoom(t *testing.T) {
	url, stop := serve(t, "--mode", "rooms", "--max-topics", "2")
	defer stop()
	const names = "1 to 200 bytes of UTF-8 without control characters"
	for path, want := range map[string]struct {
		status int
		says   string
	}{
		"":                                  {404, "/room/NAME"},
		"rooms/a":                           {404, "/room/NAME"},
		"room":                              {404, "/room/NAME"},
		"room/a/b":                          {404, "/room/NAME"},
		"x/room/a":                          {404, "/room/NAME"},
		"room/":                             {400, names},
		"room/?x":                           {400, names},
		"room/%00":                          {400, names},
		"room/a%0Ab":                        {400, names},
		"room/%C2%85":                       {400, names},
		"room/%FF":                          {400, names},
		"room/%ED%A0%80":                    {400, names},
		"room/" + strings.Repeat("x", 201):  {400, names},
		"room/" + strings.Repeat("é", 101):  {400, names},
		"room/" + strings.Repeat("x", 8000): {400, names},
	} {
		if status, body := turnedAway(t, url, path); status != want.status || !strings.Contains(body, want.says) {
			t.Errorf("%.40q: %d %q", path, status, body)
		}
	}
	a, b := visit(t, url, "room/a"), visit(t, url, "room/b")
	if status, body := turnedAway(t, url, "room/c"); status != http.StatusServiceUnavailable || !strings.Contains(body, "as many topics") {
		t.Errorf("a room too many: %d %q", status, body)
	}
	visit(t, url, "room/a").says("there is room in the rooms")
	a.hears("there is room in the rooms")
	b.Close()
	for { // once the server has noticed
		if status, _ := turnedAway(t, url, "room/c"); status == http.StatusSwitchingProtocols {
			break
		}
	}
}

// A load over many rooms counts what each member should receive. Of a chat, in which a
// message goes to all rooms, it says that messages stray.
func TestRoomsAndLoadGetAlong(t *testing.T) {
	for mode, want := range map[string]struct {
		code int
		says string
	}{
		"rooms": {0, "1500 of 1500"},
		"chat":  {exitFailed, "stray"},
	} {
		url, stop := serve(t, "--mode", mode)
		out, errs, code := run(t, "load", url+"room/{{.Room}}", "--conns", "500", "--rooms", "60", "--broadcasts", "6", "--burst", "3", "--web=")
		if code != want.code || !strings.Contains(out, want.says) {
			t.Errorf("%s: exit %d\n%s%s", mode, code, out, errs)
		}
		stop()
	}
}

// returning is a client that comes back to wherever it is sent, with its position.
type returning struct {
	t     *testing.T
	at    string
	heard []string
}

// visit comes to a server, and hears what is said until the connection ends, which it returns.
func (r *returning) visit(url string, came func()) error {
	dialer := websocket.Dialer{Subprotocols: []string{"lull.rooms.v1"}}
	c, _, err := dialer.Dial(url+"room/tea?after="+r.at, nil)
	if err != nil {
		return err
	}
	defer c.Close()
	for {
		var said struct {
			Type, Text, At string
			Messages       []struct{ Text string }
			Complete       bool
		}
		if err := c.ReadJSON(&said); err != nil {
			return err
		}
		switch said.Type {
		case "missed":
			if !said.Complete {
				r.t.Error("something is missing")
			}
			for _, m := range said.Messages {
				r.heard = append(r.heard, m.Text)
			}
			came()
		case "message":
			r.heard = append(r.heard, said.Text)
		}
		r.at = said.At
		if said.Text == "end" {
			return nil
		}
	}
}

// The clients of a node that is drained come to another one, and miss nothing of what is said
// meanwhile.
func TestClientsOfADrainedNodeMissNothing(t *testing.T) {
	b := newBroker(t, "")
	node := func(name string) (url string, process *os.Process, wait func()) {
		return serving(t, "--mode", "rooms", "--history", "1000", "--nats", b.ClientURL(), "--node-name", name, "--drain", "500ms", "--return", "100ms")
	}
	leaves, process, waitLeaves := node("leaves")
	stays, other, waitStays := node("stays")
	defer func() {
		_ = other.Signal(syscall.SIGTERM)
		waitStays()
	}()
	const clients = 20
	var came, back sync.WaitGroup
	came.Add(1 + clients)
	all := make([]*returning, 1+clients)
	for i := range all {
		r, url := &returning{t: t}, leaves
		if i == 0 {
			url = stays
		}
		all[i] = r
		back.Go(func() {
			arrived := sync.OnceFunc(came.Done)
			err := r.visit(url, arrived)
			var closed *websocket.CloseError
			if i > 0 && errors.As(err, &closed) && closed.Code == websocket.CloseServiceRestart && strings.HasPrefix(closed.Text, "retry=") {
				err = r.visit(stays, arrived)
			} else if i > 0 {
				t.Errorf("client %d ended with %v", i, err)
			}
			if err != nil {
				t.Errorf("client %d: %v", i, err)
			}
		})
	}
	came.Wait()
	host := visit(t, stays, "room/tea") // a client without the subprotocol
	begun, said := time.Now(), 0
	say := func() {
		said++
		host.says(fmt.Sprint(said))
		host.hears(fmt.Sprint(said))
	}
	const slack = 2 * time.Second // positions have to be younger than the rooms, whatever the nodes' clocks
	testkit.Eventually(t, "positions are younger than the rooms", func() bool { return time.Since(begun) > slack+200*time.Millisecond })
	for range 10 {
		say()
	}
	_ = process.Signal(syscall.SIGTERM)
	gone := make(chan struct{})
	go func() { waitLeaves(); close(gone) }()
	testkit.Eventually(t, "the node has ended", func() bool {
		if said < 500 {
			say()
		}
		select {
		case <-gone:
			return true
		default:
			return false
		}
	})
	say()
	host.says("end")
	back.Wait()
	for i, r := range all {
		if len(r.heard) != said+1 {
			t.Errorf("client %d heard %d messages, and %d were said", i, len(r.heard), said+1)
			continue
		}
		for n, text := range r.heard[:said] {
			if text != fmt.Sprint(n+1) {
				t.Errorf("client %d heard %s in place of %d", i, text, n+1)
				break
			}
		}
	}
}

// All servers of a room are restarted, here the only one: it is killed, or ends. Who comes back gets
// what was stored.
func TestRoomsOfServersThatWereRestarted(t *testing.T) {
	b := natsdtest.Start(t, func(o *broker.Options) { o.JetStream, o.StoreDir = true, t.TempDir() })
	stored := func() uint64 {
		usage, err := b.Jsz(nil)
		if err != nil {
			t.Fatal(err)
		}
		return usage.Messages
	}
	for name, keeps := range map[string][]string{
		"killed": {"--history-stream", "--nats", b.ClientURL()},
		"ended":  {"--history-store", t.TempDir()},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			args := append([]string{"--mode", "rooms", "--history", "1000"}, keeps...)
			url, process, wait := serving(t, args...)
			r := &returning{t: t}
			came, left := make(chan struct{}), make(chan error, 1)
			go func() { left <- r.visit(url, sync.OnceFunc(func() { close(came) })) }()
			<-came
			host := visit(t, url, "room/tea") // a client without the subprotocol
			begun := time.Now()
			testkit.Eventually(t, "positions are younger than the store, whatever the clocks", func() bool { return time.Since(begun) > 2200*time.Millisecond })
			say := func(texts ...string) {
				t.Helper()
				for _, text := range texts {
					host.says(text)
					host.hears(text)
				}
			}
			say("1", "2", "3", "end")
			if err := <-left; err != nil {
				t.Fatal(err)
			}
			say("4", "5", "6")
			if name == "killed" {
				testkit.Eventually(t, "all is stored", func() bool { return stored() == 7 })
				_ = process.Kill()
				_, _ = process.Wait()
			} else {
				host.Close()
				_ = process.Signal(syscall.SIGTERM)
				wait()
			}
			url, process, wait = serving(t, args...)
			came = make(chan struct{})
			go func() { left <- r.visit(url, sync.OnceFunc(func() { close(came) })) }()
			<-came
			host = visit(t, url, "room/tea")
			say("7", "end")
			if err := <-left; err != nil {
				t.Fatal(err)
			}
			if heard := strings.Join(r.heard, " "); heard != "1 2 3 end 4 5 6 7 end" {
				t.Errorf("heard %s", heard)
			}
			host.Close()
			_ = process.Signal(syscall.SIGTERM)
			wait()
		})
	}
}

// One server alone knows its members, and keeps messages, without a broker beside it.
func TestRoomsOfOneServerHaveMembers(t *testing.T) {
	url, stop := serve(t, "--mode", "rooms", "--presence", "--max-members", "1")
	defer stop()
	dialer := websocket.Dialer{Subprotocols: []string{"lull.rooms.v1"}}
	c, _, err := dialer.Dial(url+"room/a?name=anna&data=x", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	guest{c, t}.hears(`{"type":"members","members":[{"name":"anna","data":"x"}]}`)
	_, answer, err := dialer.Dial(url+"room/a?name=ben", nil)
	if err == nil || answer == nil || answer.StatusCode != http.StatusServiceUnavailable {
		t.Error(err)
	}
}

func TestFlagsOfRoomsThatDoNotFit(t *testing.T) {
	for line, want := range map[string]string{
		"--presence":                                                                         "--presence and --history: can only be used with --mode=rooms",
		"--mode echo --history 1":                                                            "--presence and --history: can only be used with --mode=rooms",
		"--mode rooms --history -1":                                                          "--history",
		"--mode rooms --history-stream --nats nats://a:1":                                    "--history-stream and --history-store: need --history",
		"--mode rooms --history 1 --history-stream":                                          "--history-stream: needs --nats",
		"--mode rooms --history 1 --history-store /x --nats nats://a:1":                      "--history-store: cannot be used with --nats",
		"--mode rooms --history 1 --history-store /x --cluster 127.0.0.1:0":                  "--history-stream and --history-store: cannot be used with --cluster",
		"--mode rooms --history 1 --history-store /dev/null/x --listen 127.0.0.1:0 --admin=": "--presence, --history and --history-store: cluster: the store",
		"--mode rooms --history 1 --history-store /x --history-stream-bytes 1":               "--history-stream-bytes",
		"--mode rooms --history 1000001":                                                     "--history",
		"--mode rooms --history-age 1ms":                                                     "--history-age",
		"--mode rooms --history-bytes 0":                                                     "--history-bytes",
		"--mode rooms --presence --max-members 0":                                            "--max-members",
	} {
		if _, errs, code := run(t, append([]string{"serve"}, strings.Fields(line)...)...); code == 0 || !strings.Contains(errs, want) {
			t.Errorf("%s: exit %d, %q, not %q", line, code, errs, want)
		}
	}
}
