package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gorilla/websocket"

	"github.com/seed-134acfd0/lull/internal/testkit"
	"github.com/seed-134acfd0/lull/server/pusher"
)

// greets reports what a client of an app is greeted with: the event's name.
func greets(t *testing.T, url, key string) string {
	t.Helper()
	c, _, err := websocket.DefaultDialer.Dial(url+"app/"+key+"?protocol=7", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var hello struct{ Event string }
	if err := c.ReadJSON(&hello); err != nil {
		t.Fatal(err)
	}
	return hello.Event
}

const established, refused = "pusher:connection_established", "pusher:error"

// The apps are those of a file, as it is now.
func TestServeReadsAppsAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "apps.yaml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
	}
	app := func(key string) string { return fmt.Sprintf("  - {id: %s, key: %s, secret: s}\n", key, key) }
	write("apps:\n" + app("first"))
	url, stop := serve(t, "--mode", "pusher", "--pusher-apps", path)
	defer stop()
	if got := greets(t, url, "first") + " " + greets(t, url, "second"); got != established+" "+refused {
		t.Errorf("got %s", got)
	}
	write("apps: [}") // what cannot be read changes nothing
	write("apps:\n" + app("first") + app("second"))
	testkit.Eventually(t, "there is a second app", func() bool { return greets(t, url, "second") == established })
}

// Half a file of apps may be a file of fewer apps.
func TestAFileThatIsBeingWrittenIsNotRead(t *testing.T) {
	file := changes{"1", "1"}
	for i, look := range []struct {
		stamp string
		read  bool
	}{
		{"1", false}, {"2", false}, {"3", false}, {"3", true}, {"3", false}, // written for a while
		{"none", false}, {"4", false}, {"4", true}, // replaced
		{"5", false}, {"4", false}, {"4", false}, // written, and put back
		{"none", false}, {"none", true}, {"none", false}, // taken away
	} {
		if got := file.look(look.stamp); got != look.read {
			t.Errorf("look %d: %t", i, got)
		}
	}
}

func TestServeHasOneAppOfFlags(t *testing.T) {
	url, stop := serve(t, "--mode", "pusher", "--pusher-app", "1:key:secret:with:colons")
	defer stop()
	if got := greets(t, url, "key"); got != established {
		t.Errorf("got %s", got)
	}
}

func TestAppsThatCannotBe(t *testing.T) {
	file := func(text string) string {
		path := filepath.Join(t.TempDir(), "apps.yaml")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for want, args := range map[string][]string{
		"needs its apps":           {"--mode", "pusher"},
		"can only be used with":    {"--pusher-app", "1:k:s"},
		"must be ID:KEY:SECRET":    {"--mode", "pusher", "--pusher-app", "1:k"},
		"no such file":             {"--mode", "pusher", "--pusher-apps", "/nonexistent"},
		"there are no apps":        {"--mode", "pusher", "--pusher-apps", file("apps: []")},
		"it is empty":              {"--mode", "pusher", "--pusher-apps", file("")},
		"field name not found":     {"--mode", "pusher", "--pusher-apps", file("apps: [{name: x}]")},
		"it has no secret":         {"--mode", "pusher", "--pusher-apps", file("apps: [{id: a, key: b}]")},
		"there are two of its key": {"--mode", "pusher", "--pusher-apps", file("apps: [{id: a, key: b, secret: c}, {id: b, key: b, secret: c}]")},
	} {
		_, errs, code := run(t, append([]string{"serve", "--admin=", "--listen", "127.0.0.1:0"}, args...)...)
		if code == 0 || !strings.Contains(errs, want) {
			t.Errorf("%v: exit %d, %s", args, code, errs)
		}
	}
}

// The table in docs/pusher.md is made of the reasons in the program.
func TestThePusherPageHasAllReasons(t *testing.T) {
	const page = "docs/pusher.md"
	var table strings.Builder
	table.WriteString("| reason | code | |\n|---|---|---|\n")
	for _, r := range pusher.Reasons() {
		fmt.Fprintf(&table, "| `%s` | %d | %s |\n", r.Name, r.Code, r.Text)
	}
	begin, end := "<!-- refused -->\n", "<!-- end of what is refused -->\n"
	head, rest, found := strings.Cut(text(t, page), begin)
	_, tail, ends := strings.Cut(rest, end)
	if !found || !ends {
		t.Fatalf("%s lacks %q or %q", page, begin, end)
	}
	want := head + begin + table.String() + end + tail
	if *update {
		if err := os.WriteFile(page, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if text(t, page) != want {
		t.Errorf("%s is not what go test . -run Page -update makes of it", page)
	}
}
