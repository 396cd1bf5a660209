package loadgen

import (
	"strings"
	"testing"
	"time"

	"github.com/seed-134acfd0/lull/netpoll"
)

func TestConfigHasDefaults(t *testing.T) {
	c, err := Config{URLs: []string{"ws://127.0.0.1/"}, Conns: 1}.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	if c.ConnectTimeout != 30*time.Second || c.Patience != time.Minute || c.Tables != netpoll.Private {
		t.Errorf("%+v", c)
	}
	given := Config{
		URLs: c.URLs, Conns: 1, ConnectTimeout: 1, Patience: 3, Tables: netpoll.Shared,
	}
	c, err = given.withDefaults()
	if err != nil || c.ConnectTimeout != 1 || c.Patience != 3 || c.Tables != netpoll.Shared {
		t.Errorf("%+v, %v", c, err)
	}
}

func TestImpossibleConfigsAreRefused(t *testing.T) {
	rows := []struct {
		why    string
		change func(*Config)
		fails  string
	}{
		{"as it is", func(*Config) {}, ""},
		{"smallest message", func(c *Config) { c.Broadcasts, c.Size = 1, 16 }, ""},
		{"largest message", func(c *Config) { c.Broadcasts, c.Size = 1, 64<<10 }, ""},
		{"largest for the floor", func(c *Config) { c.Broadcasts, c.Floor, c.Size = 1, true, 125 }, ""},
		{"all active", func(c *Config) { c.Active = 10 }, ""},

		{"no URL", func(c *Config) { c.URLs = nil }, "URL"},
		{"no connection", func(c *Config) { c.Conns = 0 }, "at least one connection"},
		{"fewer than none", func(c *Config) { c.Conns = -1 }, "at least one connection"},
		{"no room for the time", func(c *Config) { c.Broadcasts, c.Size = 1, 15 }, "size is 15: it must be 16 to 65"},
		{"negative size", func(c *Config) { c.Size = -1 }, "negative"},
		{"more than a socket's buffer", func(c *Config) { c.Broadcasts, c.Size = 1, 64<<10+1 }, "it must be 16 to 65"},
		{"too much for the floor", func(c *Config) { c.Broadcasts, c.Floor, c.Size = 1, true, 126 }, "125"},
		{"TLS to the floor", func(c *Config) { c.Floor, c.URLs = true, []string{"wss://127.0.0.1:1/"} }, "does not speak TLS"},
		{"more active than there are", func(c *Config) { c.Active = 11 }, "11 active"},
	}
	for _, r := range rows {
		c := Config{URLs: []string{"ws://127.0.0.1:1/"}, Conns: 10}
		r.change(&c)
		_, err := c.withDefaults()
		switch {
		case (err != nil) != (r.fails != ""):
			t.Errorf("%s: %v", r.why, err)
		case err != nil && !strings.Contains(err.Error(), r.fails):
			t.Errorf("%s: error %v does not contain %q", r.why, err, r.fails)
		}
		if result, runErr := Run(t.Context(), c); r.fails != "" && (runErr == nil || result != nil) {
			t.Errorf("%s: Run returns %v, %v", r.why, result, runErr)
		}
	}
}

func TestResolve(t *testing.T) {
	rows := []struct{ url, addr, host, path string }{
		{"ws://127.0.0.1:8080/chat?room=1&name=%C3%A4", "127.0.0.1:8080", "127.0.0.1:8080", "/chat?room=1&name=%C3%A4"},
		{"ws://127.0.0.1", "127.0.0.1:80", "127.0.0.1", "/"},
		{"ws://127.0.0.1?room=1", "127.0.0.1:80", "127.0.0.1", "/?room=1"},
		{"ws://127.0.0.1/a%20b", "127.0.0.1:80", "127.0.0.1", "/a%20b"},
		{"WS://127.0.0.1:8080/", "127.0.0.1:8080", "127.0.0.1:8080", "/"},
		{"ws://user@127.0.0.1/", "127.0.0.1:80", "127.0.0.1", "/"},
		{"ws://[::1]:8080/", "[::1]:8080", "[::1]:8080", "/"},
		{"ws://[::ffff:127.0.0.1]:8080/", "127.0.0.1:8080", "[::ffff:127.0.0.1]:8080", "/"},
		{"wss://127.0.0.1:8443/chat", "127.0.0.1:8443", "127.0.0.1:8443", "/chat"},
		{"wss://127.0.0.1/", "127.0.0.1:443", "127.0.0.1", "/"},
		{"ws://localhost:8080/", "127.0.0.1:8080", "localhost:8080", "/"}, // IPv4 where there is a choice
	}
	for _, r := range rows {
		got, err := new(Config).resolve(t.Context(), r.url)
		if secure := strings.HasPrefix(r.url, "wss:"); (got.tls != nil) != secure {
			t.Errorf("%s: TLS is %v", r.url, got.tls)
		}
		if err != nil || got.addr.String() != r.addr || got.host != r.host || got.path.String() != r.path {
			t.Errorf("%s: %+v, %v", r.url, got, err)
		}
	}
}

func TestResolveSaysWhatIsWrong(t *testing.T) {
	rows := []struct{ url, fails string }{
		{"http://127.0.0.1/", "must begin with ws://"},
		{"127.0.0.1:8080", "loadgen: "},
		{"localhost:8080", "must begin with ws://"},
		{"", "must begin with ws://"},
		{"ws://", "loadgen: ws://"},
		{"ws://:8080/", "loadgen: ws://:8080/"},
		{"ws://no..such..host/", "no..such..host"}, // not a valid name, so no DNS server is asked
		{"ws://127.0.0.1:99999/", "99999"},
		{"ws://127.0.0.1:http/", "port"},
		{"ws://127.0.0.1:8080/%zz", "%zz"},
		{"ws://127.0.0.1\r\nX: y/", "loadgen: "},
	}
	for _, r := range rows {
		got, err := new(Config).resolve(t.Context(), r.url)
		if err == nil {
			t.Errorf("%q became %+v", r.url, got)
			continue
		}
		if !strings.Contains(err.Error(), r.fails) || !strings.HasPrefix(err.Error(), "loadgen: ") {
			t.Errorf("%q: error %v does not contain %q", r.url, err, r.fails)
		}
		if _, err := Run(t.Context(), Config{URLs: []string{"ws://127.0.0.1/", r.url}, Conns: 1}); err == nil {
			t.Errorf("%q: Run returned no error", r.url)
		}
	}
}

// With a negative Burst a run would never end, and with a negative Rate it would
// never open a connection.
func TestNegativeNumbersAreRefused(t *testing.T) {
	for why, change := range map[string]func(*Config){
		"rate":       func(c *Config) { c.Rate = -1 },
		"burst":      func(c *Config) { c.Burst = -1 },
		"broadcasts": func(c *Config) { c.Broadcasts = -1 },
		"workers":    func(c *Config) { c.Workers, c.Tables = -1, netpoll.Shared },
		"timeout":    func(c *Config) { c.ConnectTimeout = -1 },
		"patience":   func(c *Config) { c.Patience = -1 },
		"active":     func(c *Config) { c.Active = -1 },
		"hold":       func(c *Config) { c.Hold = -1 },
		"echo":       func(c *Config) { c.Echo = -1 },
		"probe":      func(c *Config) { c.Probe = -1 },
	} {
		c := Config{URLs: []string{"ws://127.0.0.1:1/"}, Conns: 1}
		change(&c)
		if _, err := c.withDefaults(); err == nil || !strings.Contains(err.Error(), "negative") {
			t.Errorf("%s: %v", why, err)
		}
	}
}
