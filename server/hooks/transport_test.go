package hooks_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/seed-134acfd0/lull/internal/testkit"
	"github.com/seed-134acfd0/lull/server"
	"github.com/seed-134acfd0/lull/server/hooks"
)

// startWith starts a backend that speaks certain protocols.
func startWith(t *testing.T, l net.Listener, secure bool, speaks func(*http.Protocols)) *app {
	t.Helper()
	a := &app{}
	a.Server = httptest.NewUnstartedServer(a)
	if l != nil {
		a.Listener.Close()
		a.Listener = l
	}
	a.Config.Protocols = new(http.Protocols)
	speaks(a.Config.Protocols)
	a.EnableHTTP2 = a.Config.Protocols.HTTP2()
	if secure {
		certificate, _ := testkit.Certificate()
		a.TLS = &tls.Config{Certificates: []tls.Certificate{certificate}}
		a.StartTLS()
	} else {
		a.Start()
	}
	t.Cleanup(a.Close)
	return a
}

func TestBackendsSpeakHTTPOfAllKinds(t *testing.T) {
	t.Parallel()
	http1 := func(p *http.Protocols) { p.SetHTTP1(true) }
	h2 := func(p *http.Protocols) { p.SetHTTP2(true) }
	h2c := func(p *http.Protocols) { p.SetUnencryptedHTTP2(true) }
	path := filepath.Join(t.TempDir(), "socket")
	socket, err := net.Listen("unix", path)
	must(t, err)
	for name, row := range map[string]struct {
		secure bool
		listen net.Listener
		speaks func(*http.Protocols)
		url    string
		proto  string
	}{
		"http":        {false, nil, http1, "http://ADDRESS/lull?x=1", "HTTP/1.1"},
		"https":       {true, nil, http1, "https://ADDRESS/lull?x=1", "HTTP/1.1"},
		"h2c":         {false, nil, h2c, "h2c://ADDRESS/lull?x=1", "HTTP/2.0"},
		"h2":          {true, nil, h2, "h2://ADDRESS/lull?x=1", "HTTP/2.0"},
		"unix socket": {false, socket, http1, "unix:" + path + ":/lull?x=1", "HTTP/1.1"},
	} {
		t.Run(name, func(t *testing.T) {
			a := startWith(t, row.listen, row.secure, row.speaks)
			o := hooks.Options{
				Backends: []hooks.Backend{{URL: strings.Replace(row.url, "ADDRESS", a.Listener.Addr().String(), 1)}},
				Secret:   []byte("secret"), Failures: 2,
			}
			_, o.Roots = testkit.Certificate()
			if row.proto == "HTTP/2.0" { // what is sent while its connection ends may have been seen
				o.Retries = 3
			}
			r := startHooks(t, o, server.Options{})
			var clients []*client
			for range 5 {
				clients = append(clients, r.open("/"))
			}
			for _, c := range clients {
				c.send("a", "b")
			}
			for _, c := range clients {
				c.expect("a", "b")
			}
			for _, c := range a.told("") {
				if c.request.Proto != row.proto || c.request.RequestURI != "/lull?x=1" || c.user != "" || len(c.request.Header.Get("Lull-Signature")) != 67 {
					t.Errorf("told by %s %s %v", c.request.Proto, c.request.RequestURI, c.request.Header)
				}
			}
			if row.listen != nil {
				return
			}
			address := a.Listener.Addr().String()
			a.Close()
			clients[0].send("c")
			eventually(t, "it is down", func() bool { return r.backend().Down })
			l, err := net.Listen("tcp", address)
			must(t, err)
			startWith(t, l, row.secure, row.speaks)
			clients[0].expect("c")
			r.counted("messages_lost", 0)
		})
	}
}

func TestHTTP2AnswersMayFailToo(t *testing.T) {
	t.Parallel()
	a := startWith(t, nil, false, func(p *http.Protocols) { p.SetUnencryptedHTTP2(true) })
	release := make(chan struct{})
	defer close(release)
	a.message = func(w http.ResponseWriter, c call) {
		switch c.body {
		case "large":
			_, _ = w.Write(make([]byte, 1<<20))
		case "late":
			<-release
		case "cut":
			w.Header().Set("Content-Length", "10")
			_, _ = w.Write([]byte("x"))
			panic(http.ErrAbortHandler)
		default:
			echo(w, c)
		}
	}
	r := startHooks(t, hooks.Options{
		Backends: []hooks.Backend{{URL: "h2c://" + a.Listener.Addr().String()}}, Failures: 1000, Timeout: 3 * time.Second,
	}, server.Options{})
	c := r.open("/")
	for name, text := range map[string]string{"fault_large": "large", "fault_late": "late", "fault_cut": "cut"} {
		c.send(text)
		r.counted(name, 1)
	}
	c.send("fine")
	c.expect("fine")
	r.counted("messages_lost", 3)
}

// A backend checks a signature as docs/hooks.md says.
func TestCallsAreSigned(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	checked := 0
	secret := []byte("a secret")
	check := func(w http.ResponseWriter, c call) {
		h := c.request.Header
		mac := hmac.New(sha256.New, secret)
		for _, name := range []string{"Lull-Timestamp", "Lull-Id", "Lull-Event", "Lull-Connection", "Lull-User"} {
			mac.Write([]byte(h.Get(name) + "\n"))
		}
		mac.Write([]byte(c.body))
		at, _ := strconv.ParseInt(h.Get("Lull-Timestamp"), 10, 64)
		if h.Get("Lull-Signature") != "v1="+hex.EncodeToString(mac.Sum(nil)) || time.Since(time.Unix(at, 0)).Abs() > time.Minute {
			t.Errorf("%s is not signed: %v", c.event, h)
		}
		mu.Lock()
		checked++
		mu.Unlock()
		if c.event == "connect" {
			welcome(w, map[string]any{"user": "Zoë"})
		}
		if c.event == "message" {
			echo(w, c)
		}
	}
	r := startFor(t, startApp(t, &app{connect: check, message: check, disconnect: check}), hooks.Options{Secret: secret})
	c := r.open("/")
	c.send("", "a\nb")
	c.send("end")
	c.expect("a\nb", "end")
	c.leave()
	r.counted("disconnects_told", 1)
	mu.Lock()
	defer mu.Unlock()
	if checked != 5 {
		t.Errorf("%d were checked", checked)
	}
}
