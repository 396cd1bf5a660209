package plan

import (
	"fmt"
	"math/rand/v2"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

func (c *checker) checkGroups() error {
	users := 0
	for i := range c.plan.Groups {
		g := &c.plan.Groups[i]
		f := &finder{g.Line, fmt.Sprintf("group %.80q", g.Name)}
		switch {
		case !isName(g.Name):
			return f.fault("name", "must be 1 to %d letters, digits, dots, hyphens and underscores", NameMax)
		case slices.ContainsFunc(c.plan.Groups[:i], func(other Group) bool { return other.Name == g.Name }):
			return f.fault("name", "is there twice")
		}
		if users += g.Users; users > UsersMax {
			return f.fault("users", "are %s with those of the groups before: all together may be %s", Thousands(users), Thousands(UsersMax))
		}
		if err := first(c.checkBehaviour(f, g), c.checkHead(f, g), c.checkScript(g)); err != nil {
			return err
		}
	}
	return nil
}

func isName(s string) bool {
	return s != "" && len(s) <= NameMax && !strings.ContainsFunc(s, func(r rune) bool { return !isAlphanumeric(r) && !strings.ContainsRune(".-_", r) })
}

func isAlphanumeric(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
}

// checkBehaviour checks what needs no templates.
func (c *checker) checkBehaviour(f *finder, g *Group) error {
	if g.HalfOpen {
		for _, also := range []struct {
			key string
			is  bool
		}{
			{"headers", g.Headers != nil}, {"subprotocols", g.Subprotocols != nil}, {"compress", g.Compress}, {"ping", g.Ping != 0}, {"mute", g.Mute},
			{"read_rate", g.ReadRate != 0}, {"fragment", g.Fragment != 0}, {"script", g.Script != nil},
		} {
			if also.is {
				return f.fault(also.key, "is not for half-open users: they send no request, and nothing after it")
			}
		}
	}
	return first(
		f.counts("users", g.Users, 0, UsersMax, ""),
		f.counts("rooms", g.Rooms, 0, UsersMax, ", and 0 for none"),
		f.optional("timeout", g.Timeout, TimeMin, TimeMax),
		f.optional("ping", g.Ping, TimeMin, TimeMax),
		f.counts("read_rate", g.ReadRate, 0, ReadRateMax, " bytes a second, and 0 for no limit"),
		f.counts("fragment", g.Fragment, 0, TextMax, " bytes, and 0 for a frame a message"),
	)
}

// checkHead checks what the request's head consists of.
func (c *checker) checkHead(f *finder, g *Group) error {
	switch {
	case len(g.URLs) == 0 || len(g.URLs) > URLsMax:
		return f.fault("urls", "are %d: there must be 1 to %d, such as ws://127.0.0.1:8080/", len(g.URLs), URLsMax)
	case len(g.Headers) > HeadersMax:
		return f.fault("headers", "are %d: there may be %d", len(g.Headers), HeadersMax)
	case len(g.Subprotocols) > ProtocolsMax:
		return f.fault("subprotocols", "are %d: there may be %d", len(g.Subprotocols), ProtocolsMax)
	}
	urlMax, others := 0, 0
	for _, u := range g.URLs {
		if err := c.checkURL(f, u); err != nil {
			return err
		}
		if u.has(room) && g.Rooms == 0 {
			return f.fault("rooms", "is missing: urls has {{.Room}}, and there must be some")
		}
		urlMax = max(urlMax, u.lengthMax(c.longest))
	}
	for i := range g.Headers {
		h := &g.Headers[i]
		if err := c.checkHeader(f, h); err != nil {
			return err
		}
		others += len(h.Name) + h.Value.lengthMax(c.longest)
	}
	for _, s := range g.Subprotocols {
		if err := c.checkText(f, "subprotocols", s, "letters, digits and !#$%&'*+-.^_`|~", isToken); err != nil {
			return err
		}
		others += s.lengthMax(c.longest)
	}
	if urlMax+others > HeadMax {
		return f.fault("urls", "with headers and subprotocols have up to %s bytes: they may have %s", Thousands(urlMax+others), Thousands(HeadMax))
	}
	return nil
}

// checkURL checks a URL (RFC 6455 section 3). Templates may change its path and query;
// its scheme and host are looked up once.
func (c *checker) checkURL(f *finder, t *Text) error {
	const allowed = "letters, digits and -._~:/?[]@!$&'()*+,;=%; others are written as %20 is for a space"
	if err := c.checkText(f, "urls", t, allowed, isURI); err != nil {
		return err
	}
	raw := t.String()
	scheme, rest, _ := strings.Cut(raw, "://")
	host, _, _ := strings.Cut(rest, "{{")
	end := strings.IndexAny(host, "/?")
	sample := string(t.Append(nil, &Values{Group: "g", Random: rand.New(rand.NewPCG(0, 0)), Files: c.plan.Files}))
	u, err := url.Parse(sample)
	switch s := strings.ToLower(scheme); {
	case s != "ws" && s != "wss":
		return f.fault("urls", "has %.80q: it must begin with ws:// or wss://, as in ws://127.0.0.1:8080/", raw)
	case end < 0 && len(host) < len(rest):
		return f.fault("urls", "has %.80q: templates may be in its path and query, not in its host", raw)
	case err != nil || u.Hostname() == "":
		return f.fault("urls", "has %.80q: it must have a host, as in ws://127.0.0.1:8080/", raw)
	case u.User != nil:
		return f.fault("urls", "has %.80q: user and password belong into the header Authorization", raw)
	}
	if port, err := strconv.ParseUint(u.Port(), 10, 16); u.Port() != "" && (err != nil || port == 0) {
		return f.fault("urls", "has %.80q: its port must be 1 to 65535", raw)
	}
	return nil
}

// ours are the headers that the generator writes itself, or that no handshake has.
var ours = []string{"host", "upgrade", "connection", "sec-websocket-key", "sec-websocket-version", "sec-websocket-extensions", "sec-websocket-protocol", "content-length", "transfer-encoding"}

func (c *checker) checkHeader(f *finder, h *Header) error {
	switch {
	case h.Name == "" || strings.ContainsFunc(h.Name, func(r rune) bool { return !isToken(r) }):
		return f.fault("headers", "has %.80q: a header's name has letters, digits and !#$%%&'*+-.^_`|~", h.Name)
	case slices.Contains(ours, strings.ToLower(h.Name)):
		return f.fault("headers", "has %s, which is made from url, subprotocols and compress", h.Name)
	}
	return c.checkText(f, "headers", h.Value, "printable ASCII", func(r rune) bool { return r >= ' ' && r <= '~' || r == '\t' })
}

// checkText checks that a template makes allowed characters only, whatever it is
// filled in with, and that there are the files that it names.
func (c *checker) checkText(f *finder, key string, t *Text, allowed string, ok func(rune) bool) error {
	if t == nil || t.raw == "" {
		return f.fault(key, "must not be empty")
	}
	bad := func(r rune) bool { return !ok(r) }
	for _, s := range t.constants() {
		if i := strings.IndexFunc(s, bad); i >= 0 {
			return f.fault(key, "has %q in %.80q: it may have %s", s[i:i+1], t.raw, allowed)
		}
	}
	for _, p := range t.parts {
		if p.field != line {
			continue
		}
		if i := c.firstBad(p.file, key, bad); i >= 0 {
			return f.fault(key, "takes lines of %.80q, and line %d of it has something else than %s", p.file, i+1, allowed)
		}
	}
	return c.checkSize(f, key, t)
}

// firstBad is the first line of a file that a key cannot have, or -1. A file is read
// once for each key, however many templates name it.
func (c *checker) firstBad(file, key string, bad func(rune) bool) int {
	at := [2]string{file, key}
	i, known := c.bad[at]
	if !known {
		i = slices.IndexFunc(c.plan.Files[file], func(line string) bool { return strings.ContainsFunc(line, bad) })
		c.bad[at] = i
	}
	return i
}

// checkSize checks that there are the files that a template names, and how much it
// makes.
func (c *checker) checkSize(f *finder, key string, t *Text) error {
	for _, name := range t.Files() {
		if _, known := c.plan.Files[name]; !known {
			return f.fault(key, "takes lines of %.80q, which is not there", name)
		}
	}
	return f.counts(key, t.lengthMax(c.longest), 0, TextMax, " bytes")
}

// isToken reports whether a header's name may have a character (RFC 9110 section
// 5.6.2).
func isToken(r rune) bool {
	return isAlphanumeric(r) || strings.ContainsRune("!#$%&'*+-.^_`|~", r)
}

// isURI reports whether a URI may have a character, but for "#", which a WebSocket's
// has not (RFC 3986 section 2).
func isURI(r rune) bool {
	return isAlphanumeric(r) || strings.ContainsRune("-._~:/?[]@!$&'()*+,;=%", r)
}
