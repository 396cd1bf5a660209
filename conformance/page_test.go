package conformance

import (
	"flag"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
)

const page = "../docs/conformance.md"

var update = flag.Bool("update", false, "write "+page)

// The page lists the cases as they are.
func TestThePageListsTheCases(t *testing.T) {
	was, err := os.ReadFile(page)
	if err != nil && !*update {
		t.Fatal(err)
	}
	now := write()
	if *update {
		must(os.WriteFile(page, []byte(now), 0o644))
	} else if string(was) != now {
		t.Errorf("%s is not what go test ./conformance -run Page -update makes of it", page)
	}
}

// autobahn is how many cases each section of Autobahn has, 517 in all.
var autobahn = map[string]int{
	"1.1": 8, "1.2": 8, "2": 11, "3": 7, "4.1": 5, "4.2": 5, "5": 20,
	"6.1": 3, "6.2": 4, "6.3": 2, "6.4": 4, "6.5": 5, "6.6": 11, "6.7": 4, "6.8": 2, "6.9": 4, "6.10": 3, "6.11": 5, "6.12": 8,
	"6.13": 5, "6.14": 10, "6.15": 1, "6.16": 3, "6.17": 5, "6.18": 5, "6.19": 5, "6.20": 7, "6.21": 8, "6.22": 34, "6.23": 7,
	"7.1": 6, "7.3": 6, "7.5": 1, "7.7": 13, "7.9": 9, "7.13": 2,
	"9.1": 6, "9.2": 6, "9.3": 9, "9.4": 9, "9.5": 6, "9.6": 6, "9.7": 6, "9.8": 6, "10.1": 1,
	"12.1": 18, "12.2": 18, "12.3": 18, "12.4": 18, "12.5": 18,
	"13.1": 18, "13.2": 18, "13.3": 18, "13.4": 18, "13.5": 18, "13.6": 18, "13.7": 18,
}

func TestAutobahnsCasesAreThere(t *testing.T) {
	ours := map[string]bool{}
	for _, s := range sections {
		for i := range s.talks {
			ours[s.talks[i].id] = true
		}
	}
	total := 0
	for section, n := range autobahn {
		total += n
		for i := range n {
			if id := fmt.Sprintf("%s.%d", section, i+1); !ours[id] {
				t.Errorf("%s is missing", id)
			}
		}
	}
	if total != 517 {
		t.Errorf("Autobahn has 517 cases, not %d", total)
	}
}

// Each number is there once.
func TestNumbersAreUnique(t *testing.T) {
	seen := map[string]bool{}
	number := func(id string) {
		if seen[id] || id == "" {
			t.Errorf("the number %q is there twice", id)
		}
		seen[id] = true
	}
	for _, s := range sections {
		for i := range s.talks {
			number(s.talks[i].id)
		}
	}
	for _, c := range chapters {
		for i := range c.abuses {
			number(c.abuses[i].id)
		}
	}
}

func write() string {
	var talks, abuses int
	var lists strings.Builder
	for _, s := range sections {
		talks += len(s.talks)
		fmt.Fprintf(&lists, "\n## %s\n\n", s.title)
		if s.about != "" {
			fmt.Fprintf(&lists, "%s\n\n", s.about)
		}
		lists.WriteString("| case | the client sends | RFC | the server |\n|---|---|---|---|\n")
		for i := range s.talks {
			c := &s.talks[i]
			fmt.Fprintf(&lists, "| %s | %s | %s | %s |\n", c.id, cell(c.what), c.rfc, c.says())
		}
	}
	for _, c := range chapters {
		abuses += len(c.abuses)
		fmt.Fprintf(&lists, "\n## %s\n\n| case | the request has | RFC | the server |\n|---|---|---|---|\n", c.title)
		for i := range c.abuses {
			a := &c.abuses[i]
			fmt.Fprintf(&lists, "| %s | %s | %s | %s |\n", a.id, cell(a.what), a.rfc, a.says())
		}
	}
	var b strings.Builder
	fmt.Fprintf(&b, `# Conformance

What RFC 6455 (WebSocket) and RFC 7692 (permessage-deflate) ask of a server, in %d cases, and what it has to do with opening
handshakes that nobody should send, in %d. The cases are the tables in the package [conformance](../conformance), from which this page
is made. Sections 1 to 13 have the numbers of the Autobahn test suite, whose cases are all among them; numbers that it does not have come
last in their section. Each case is run against `+"`lull serve --mode echo`"+`, by a client that shares no code with it:

`+"```sh"+`
go test ./conformance                         # all of them
go test ./conformance -run Talks/7.1.7        # one
`+"```"+`

| sent | how |
|---|---|
`, talks, abuses)
	for _, d := range []*delivery{whole, early, single, odd} {
		fmt.Fprintf(&b, "| %s | %s |\n", d.name, d.about)
	}
	b.WriteString("\n| server | sent to it |\n|---|---|\n")
	for _, s := range servers {
		var ways []string
		for _, d := range s.ways {
			ways = append(ways, d.name)
		}
		fmt.Fprintf(&b, "| %s | %s |\n", s.about(), strings.Join(ways, ", "))
	}
	b.WriteString(`
A message is *echoed*: sent back as it was. A *Close frame* is the last that the server sends, and it ends the TCP connection after that,
without a reset; over TLS it says close_notify first. A client that has not sent a Close frame by the end of its case sends one with the
code 1000, and gets it back.
`)
	return b.String() + lists.String()
}

func (s *server) about() string {
	switch {
	case s.tls != nil && s.compress:
		return "TLS 1.3, `--compress`"
	case s.tls != nil:
		return "TLS 1.3"
	case s.compress:
		return "TCP, `--compress`"
	}
	return "TCP"
}

// says is what the server answers.
func (t *talk) says() string {
	want := t.expected()
	var says []string
	count := func(n int, one, more string) {
		switch {
		case n == 1:
			says = append(says, one)
		case n > 1:
			says = append(says, fmt.Sprintf("%d %s", n, more))
		}
	}
	count(len(want.messages), "echo", "echoes")
	count(len(want.pongs), "Pong", "Pongs, or the last of them")
	switch {
	case !want.closed:
		says = append(says, "the end")
	case want.code == 1005:
		says = append(says, "Close frame without code")
	case want.code != 1000 || len(says) == 0:
		says = append(says, fmt.Sprintf("Close frame %d", want.code))
	}
	if t.agreed != "" && t.agreed != terms {
		says = append(says, "agrees to `"+strings.TrimPrefix(t.agreed, terms+"; ")+"`")
	}
	return strings.Join(says, ", ")
}

func (a *abuse) says() string {
	switch {
	case a.hangs:
		return "the end"
	case a.code != 0:
		return fmt.Sprintf("%d, Close frame %d", a.status, a.code)
	}
	return fmt.Sprintf("%d %s", a.status, http.StatusText(a.status))
}

// cell is a text as a table may have it.
func cell(s string) string {
	return strings.NewReplacer("|", `\|`, "<", "&lt;", "*", `\*`, "\u212a", `\u212a`).Replace(s)
}
