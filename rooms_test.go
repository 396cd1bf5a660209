package main

import (
	"net/http"
	"strings"
	"testing"

	"github.com/gorilla/websocket"
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

func TestARoomsNameIsNoEscapeThatIsNone(t *testing.T) {
	for _, escaped := range []string{"%", "%z", "%zz", "a%2"} {
		if _, err := roomOf("/room/" + escaped); err == nil || !strings.Contains(err.Error(), "invalid URL escape") {
			t.Errorf("%s: %v", escaped, err)
		}
	}
}

// A room of which nobody is left takes no memory.
func TestRoomsThatAreEmptyAreForgotten(t *testing.T) {
	table := &roomTable{numbers: map[string]uint64{}, rooms: map[uint64]*room{}}
	a, b := table.enter("a"), table.enter("b")
	if table.enter("a") != a || a == b || table.name(a) != "a" || table.name(b) != "b" {
		t.Errorf("a is %d, b is %d", a, b)
	}
	for _, number := range []uint64{a, b, a} {
		table.leave(number)
	}
	if len(table.numbers)+len(table.rooms) > 0 {
		t.Errorf("left are %v", table.numbers)
	}
	if again := table.enter("a"); again == a {
		t.Error("a late message to the former room would reach this one")
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
