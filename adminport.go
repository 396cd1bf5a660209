package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/seed-134acfd0/lull/server"
	"github.com/seed-134acfd0/lull/server/admin"
)

// adminPort is where the admin page is served, and to whom.
type adminPort struct {
	Admin             string `help:"Address of the admin page, the Prometheus metrics and the admin API: host:port, or unix:PATH for a unix socket. Port 0 picks a free port, an empty value turns them off. Without a token an address must be on loopback." default:"127.0.0.1:6060"`
	AdminSocketMode   string `help:"Who may open the unix socket of --admin, as a file's mode: 0660 adds its group." default:"0600" placeholder:"MODE"`
	AdminTokenFile    string `help:"File with the token that the admin address asks for, except at /healthz and /readyz. Or the token is in the variable LULL_ADMIN_TOKEN." placeholder:"FILE" predictor:"file"`
	AdminWithoutToken bool   `help:"Serve the admin page without a token also to other machines: whoever reaches the address can list connections, close them and send messages."`
	Pprof             bool   `help:"Also serve profiles, at /debug/pprof/ of the admin address."`
}

// check checks the flags.
func (p *adminPort) check() error {
	if mode, err := strconv.ParseUint(p.AdminSocketMode, 8, 32); err != nil || mode > 0o777 {
		return fmt.Errorf("--admin-socket-mode=%s: must be a file's mode from 0000 to 0777; for example --admin-socket-mode=0660", p.AdminSocketMode)
	}
	if path, ok := p.socket(); ok {
		if path == "" {
			return errors.New("--admin=unix: must have a path; for example --admin=unix:/run/lull/admin.sock")
		}
		return nil
	}
	return checkAddress("--admin", p.Admin, "127.0.0.1:6061")
}

// socket is the path of the unix socket, if it is one.
func (p *adminPort) socket() (path string, ok bool) { return strings.CutPrefix(p.Admin, "unix:") }

// tokenLeast is the shortest token that is accepted. Nobody counts guesses, so it has
// to be long.
const tokenLeast = 16

// token reads the token, empty if there is none.
func (p *adminPort) token() (string, error) {
	const variable = "LULL_ADMIN_TOKEN"
	token, where := os.Getenv(variable), variable
	if p.AdminTokenFile != "" {
		text, err := os.ReadFile(p.AdminTokenFile)
		if err != nil {
			return "", fmt.Errorf("--admin-token-file: %w", err)
		}
		where = "--admin-token-file=" + p.AdminTokenFile
		if token = strings.TrimSpace(string(text)); token == "" {
			return "", fmt.Errorf("%s: the file is empty", where)
		}
	}
	odd := func(r rune) bool { return r <= ' ' || r > '~' }
	if token != "" && (len(token) < tokenLeast || strings.ContainsFunc(token, odd)) {
		return "", fmt.Errorf("%s: must be a token of at least %d letters, digits and signs, without spaces; \"openssl rand -hex 32\" makes one", where, tokenLeast)
	}
	return token, nil
}

// watch serves the admin page of s until stop is called.
func (p *adminPort) watch(ctx context.Context, s *server.Server, log *slog.Logger) (stop func() error, err error) {
	token, err := p.token()
	if err != nil {
		return nil, err
	}
	l, err := p.listen(token, log)
	if err != nil {
		return nil, err
	}
	var names []string // by which browsers may know it; none for a unix socket
	if _, ok := p.socket(); !ok {
		host, _, _ := net.SplitHostPort(p.Admin) // Listen has accepted it
		names = append(names, host)
	}
	h := http.Server{
		Handler:           admin.New(ctx, s, admin.Options{Names: names, Pprof: p.Pprof, Token: token}),
		ReadHeaderTimeout: adminTimeout, ReadTimeout: 2 * adminTimeout, IdleTimeout: 6 * adminTimeout,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
	go h.Serve(l)
	return h.Close, nil
}

// adminTimeout is how long a request's head may take to arrive.
const adminTimeout = 10 * time.Second

// listen opens the admin address. It refuses one that other machines can reach, unless
// there is a token.
func (p *adminPort) listen(token string, log *slog.Logger) (net.Listener, error) {
	if path, ok := p.socket(); ok {
		l, err := listenSocket(path, p.AdminSocketMode)
		if err != nil {
			return nil, fmt.Errorf("admin: %w; --admin= turns the admin page off", err)
		}
		fmt.Printf("admin on %s\n", p.Admin)
		return l, nil
	}
	l, err := net.Listen("tcp", p.Admin)
	if err != nil {
		return nil, fmt.Errorf("admin: %w%s; --admin= turns the admin page off", err, listenHint(err, "--admin", []string{p.Admin}))
	}
	if token == "" && !l.Addr().(*net.TCPAddr).IP.IsLoopback() {
		if !p.AdminWithoutToken {
			l.Close()
			return nil, fmt.Errorf("--admin=%s: other machines can reach this address, and whoever reaches it can list connections, close them and send messages; "+
				"give it a token (--admin-token-file or LULL_ADMIN_TOKEN), or use 127.0.0.1 or unix:PATH, or say --admin-without-token", p.Admin)
		}
		log.Warn("the admin address has no authentication: everybody who can reach it can list connections, close them and send messages",
			"address", l.Addr().String())
	}
	fmt.Printf("admin on http://%s/\n", l.Addr())
	return l, nil
}

// listenSocket opens a unix socket in place of one that a server has left behind.
func listenSocket(path, mode string) (net.Listener, error) {
	if info, err := os.Lstat(path); err == nil {
		if info.Mode()&fs.ModeSocket == 0 {
			return nil, fmt.Errorf("%s is no socket: choose another path", path)
		}
		if c, err := net.Dial("unix", path); err == nil {
			c.Close()
			return nil, fmt.Errorf("%s is in use: another server answers there", path)
		} else if errors.Is(err, syscall.ECONNREFUSED) {
			_ = os.Remove(path) // if that fails, Listen says so
		}
	}
	bits, _ := strconv.ParseUint(mode, 8, 32) // it was checked
	before := syscall.Umask(0o177)            // nobody else may come in before the mode is set
	l, err := net.Listen("unix", path)
	syscall.Umask(before)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, fs.FileMode(bits)); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// checkAdmin checks the admin address beside the others.
func checkAdmin(p *adminPort, listen []string) error {
	if p.Admin == "" {
		return checkTwice(listen)
	}
	return cmp.Or(p.check(), checkTwice(append([]string{p.Admin}, listen...)))
}
