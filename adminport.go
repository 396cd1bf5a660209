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
	return checkGuardedPort("--admin", p.Admin, p.AdminSocketMode, "127.0.0.1:6061")
}

// checkGuardedPort checks the flags of an address: host:port, unix:PATH, or nothing.
func checkGuardedPort(flag, address, mode, example string) error {
	if bits, err := strconv.ParseUint(mode, 8, 32); err != nil || bits > 0o777 {
		return fmt.Errorf("%s-socket-mode=%s: must be a file's mode from 0000 to 0777; for example %s-socket-mode=0660", flag, mode, flag)
	}
	switch path, ok := strings.CutPrefix(address, "unix:"); {
	case ok && path == "":
		return fmt.Errorf("%s=unix: must have a path; for example %s=unix:/run/lull/%s.sock", flag, flag, strings.TrimPrefix(flag, "--"))
	case ok || address == "":
		return nil
	}
	return checkAddress(flag, address, example)
}

// socket is the path of the unix socket, if it is one.
func (p *adminPort) socket() (path string, ok bool) { return strings.CutPrefix(p.Admin, "unix:") }

// watch serves the admin page of s until stop is called. Of o it sets what the flags say.
func (p *adminPort) watch(ctx context.Context, s *server.Server, o admin.Options, log *slog.Logger) (stop func() error, err error) {
	o.Pprof = p.Pprof
	o.Token, err = readToken("--admin-token-file", p.AdminTokenFile, "LULL_ADMIN_TOKEN")
	if err != nil {
		return nil, err
	}
	l, err := p.listen(o.Token, log)
	if err != nil {
		return nil, err
	}
	if _, ok := p.socket(); !ok { // which browsers know by no name
		host, _, _ := net.SplitHostPort(p.Admin) // Listen has accepted it
		o.Names = append(o.Names, host)
	}
	return serveHTTP(l, admin.New(ctx, s, o), log), nil
}

// serveHTTP serves HTTP on an address of its own until stop is called.
func serveHTTP(l net.Listener, h http.Handler, log *slog.Logger) (stop func() error) {
	const head = 10 * time.Second // how long a request's head may take to arrive
	s := http.Server{
		Handler: h, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelWarn),
		ReadHeaderTimeout: head, ReadTimeout: 2 * head, IdleTimeout: 6 * head,
	}
	go s.Serve(l)
	return s.Close
}

// listen opens the admin address.
func (p *adminPort) listen(token string, log *slog.Logger) (net.Listener, error) {
	const harm = "list connections, close them and send messages"
	port := guardedPort{
		flag: "--admin", name: "admin", what: "the admin page", harm: harm, open: p.AdminWithoutToken,
		guards: "give it a token (--admin-token-file or LULL_ADMIN_TOKEN), or use 127.0.0.1 or unix:PATH, or say --admin-without-token",
	}
	l, guarded, err := port.listen(p.Admin, p.AdminSocketMode, token)
	if err == nil && !guarded {
		log.Warn("the admin address has no authentication: everybody who can reach it can "+harm, "address", l.Addr().String())
	}
	return l, err
}

// guardedPort is an address whose visitors can do harm.
type guardedPort struct {
	flag   string
	name   string // in what is printed
	what   string // is turned off without an address
	harm   string // what they can do
	guards string // what keeps strangers away
	open   bool   // strangers may come in
}

// listen opens an address, host:port or unix:PATH, and prints it. It refuses one that other
// machines can reach without a token, unless it is open: it is not guarded then.
func (p *guardedPort) listen(address, mode, token string) (l net.Listener, guarded bool, err error) {
	prefix, off := strings.ToLower(p.name), p.flag+"= turns "+p.what+" off"
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		if l, err = listenSocket(path, mode); err != nil {
			return nil, false, fmt.Errorf("%s: %w; %s", prefix, err, off)
		}
		fmt.Printf("%s on %s\n", p.name, address)
		return l, true, nil
	}
	if l, err = net.Listen("tcp", address); err != nil {
		return nil, false, fmt.Errorf("%s: %w%s; %s", prefix, err, listenHint(err, p.flag, []string{address}), off)
	}
	guarded = token != "" || l.Addr().(*net.TCPAddr).IP.IsLoopback()
	if !guarded && !p.open {
		l.Close()
		return nil, false, fmt.Errorf("%s=%s: other machines can reach this address, and whoever reaches it can %s; %s", p.flag, address, p.harm, p.guards)
	}
	fmt.Printf("%s on http://%s/\n", p.name, l.Addr())
	return l, guarded, nil
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
