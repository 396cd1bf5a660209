//go:build reality

package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/seed-134acfd0/lull/loadgen"
	"github.com/seed-134acfd0/lull/tuning"
)

// This test compares the doctor's predictions with reality. Each row lowers one limit,
// asks the doctor, and runs the real server and generator into the limit. It needs root
// and takes some minutes. It restores every sysctl.
//
//	make test-predictions

// reality is one row: a limit, and how to run into it.
type reality struct {
	limit  string // as the doctor names it
	within []string
	doctor []string
	// hit runs into the limit. It returns how many connections there were, and the
	// symptom that was seen.
	hit func(t *testing.T, within []string, predicted int) (reached int, seen string)
	// words are both in the symptom that was seen and in the doctor's symptom.
	words, symptom string
}

func TestThePredictionsAreTrue(t *testing.T) {
	if os.Getuid() != 0 {
		t.Fatal("it takes root")
	}
	rows := map[string]func(*testing.T) reality{
		"descriptors": descriptors, "ports": ports, "watches": watches, "files": files, "backlog": backlog, "tracking": tracking,
		"unread": unread,
	}
	var table strings.Builder
	for name, row := range rows {
		t.Run(name, func(t *testing.T) {
			r := row(t)
			predicted, symptom := r.ask(t)
			reached, seen := r.hit(t, r.within, predicted)
			off := 100 * (float64(predicted)/float64(reached) - 1)
			fmt.Fprintf(&table, "| %s | %d | %d | %+.1f %% | %s | %s |\n", r.limit, predicted, reached, off, symptom, strings.TrimSpace(seen))
			if math.Abs(off) > 5 {
				t.Errorf("%d were predicted, %d reached", predicted, reached)
			}
			if !strings.Contains(seen, r.words) {
				t.Errorf("saw %q, and not %q", seen, r.words)
			}
			if !strings.Contains(symptom, r.symptom) {
				t.Errorf("the symptom was to be %q, and is %q", symptom, r.symptom)
			}
		})
	}
	fmt.Printf("\n| limit | predicted | reached | off by | symptom told | symptom seen |\n|---|--:|--:|--:|---|---|\n%s\n", &table)
}

// ask runs the doctor, which has to name this limit as the lowest.
func (r *reality) ask(t *testing.T) (conns int, symptom string) {
	out, errs, _ := runCommand(t, within(r.within, append([]string{"doctor", "--json"}, r.doctor...)...))
	var d tuning.Diagnosis
	if err := json.Unmarshal([]byte(out), &d); err != nil {
		t.Fatalf("%v: %s%s", err, out, errs)
	}
	lowest := ""
	for least, i := math.MaxInt, 0; i < len(d.Limits); i++ {
		if l := &d.Limits[i]; l.Conns != nil && *l.Conns < least {
			least, lowest = *l.Conns, l.Name
		}
	}
	for _, l := range d.Limits {
		if l.State == tuning.OK || l.State == tuning.Unseen {
			continue
		}
		if l.Name != r.limit {
			continue
		}
		if l.Conns != nil {
			if lowest != r.limit {
				t.Errorf("the doctor names %s first", lowest)
			}
			return *l.Conns, l.Symptom
		}
		return int(*l.Have), l.Symptom // a limit that does not grow with connections
	}
	t.Fatalf("the doctor is content with %s: %s", r.limit, d.Line)
	return 0, ""
}

// within runs lull under another command, for instance as another user.
func within(prefix []string, args ...string) *exec.Cmd {
	all := append(append(append([]string{}, prefix...), program), args...)
	return exec.Command(all[0], all[1:]...)
}

// sysctl sets a kernel setting until the test's end.
func sysctl(t *testing.T, name, value string) {
	t.Helper()
	path := "/proc/sys/" + strings.ReplaceAll(name, ".", "/")
	old, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.WriteFile(path, bytes.TrimSpace(old), 0); err != nil {
			t.Errorf("%s is not put back: %v", name, err)
		}
	})
	if err := os.WriteFile(path, []byte(value), 0); err != nil {
		t.Fatal(err)
	}
}

// victim is a server that runs into a limit.
type victim struct {
	cmd  *exec.Cmd
	addr string

	mu  sync.Mutex
	log bytes.Buffer // guarded by mu
}

func (v *victim) Write(p []byte) (int, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.log.Write(p)
}

// said returns the first line of its log that contains the words.
func (v *victim) said(words string) string {
	v.mu.Lock()
	defer v.mu.Unlock()
	for line := range strings.Lines(v.log.String()) {
		if strings.Contains(line, words) {
			return words
		}
	}
	return ""
}

func startVictim(t *testing.T, prefix []string, args ...string) *victim {
	t.Helper()
	v := &victim{cmd: within(prefix, append([]string{"serve", "--listen", "127.0.0.1:0", "--admin=", "--status", "0s", "--anyway"}, args...)...)}
	v.cmd.Stderr = v
	v.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := v.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := v.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = v.cmd.Process.Kill()
		_ = v.cmd.Wait()
	})
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if rest, ok := strings.CutPrefix(lines.Text(), "listening on "); ok {
			v.addr, _, _ = strings.Cut(rest, " ")
			return v
		}
	}
	t.Fatalf("it does not listen: %s", &v.log)
	return nil
}

// load opens connections to a victim and returns the result.
func (v *victim) load(t *testing.T, prefix []string, args ...string) (r loadgen.Result, text string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "reality")
	if err == nil {
		defer os.RemoveAll(dir)
		err = os.Chmod(dir, 0o777) // for the user that the generator runs as
	}
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "result.json")
	out, errs, _ := runCommand(t, within(prefix, append([]string{"load", "--url", "ws://" + v.addr + "/", "--anyway", "--timeout", "5s", "--json", path}, args...)...))
	if b, err := os.ReadFile(path); err == nil {
		_ = json.Unmarshal(b, &r) // empty if the run was refused
	}
	return r, out + errs
}

func descriptors(*testing.T) reality {
	const limit = "4000"
	return reality{
		limit: "RLIMIT_NOFILE", within: []string{"prlimit", "--nofile=" + limit + ":" + limit},
		doctor:  []string{"--role", "server", "--target", "10000", "--fd-tables", "shared"},
		symptom: "EMFILE", words: "too many open files",
		hit: func(t *testing.T, _ []string, _ int) (int, string) {
			v := startVictim(t, nil, "--fd-tables", "shared", "--max-conns", "10000")
			// lull takes no more than its limit allows, so the limit comes later.
			if out, err := exec.Command("prlimit", "--pid", fmt.Sprint(v.cmd.Process.Pid), "--nofile="+limit+":"+limit).CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			r, _ := v.load(t, nil, "--conns", "10000")
			return r.Open, v.said("too many open files")
		},
	}
}

func ports(*testing.T) reality {
	return reality{
		limit: "source ports", doctor: []string{"--role", "loadgen", "--target", "70000", "--sources", "127.9.0.1"},
		symptom: "EADDRINUSE", words: "address already in use",
		hit: func(t *testing.T, _ []string, predicted int) (int, string) {
			v := startVictim(t, nil, "--max-conns", "100000")
			holding := within(nil, "load", "--url", "ws://"+v.addr+"/", "--sources", "127.9.0.1", "--conns", fmt.Sprint(predicted*97/100), "--hold", "1h", "--anyway")
			var log lines
			holding.Stderr, holding.SysProcAttr = &log, &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
			if err := holding.Start(); err != nil {
				t.Fatal(err)
			}
			defer func() {
				_ = holding.Process.Kill()
				_ = holding.Wait()
			}()
			log.await(t, `"name":"hold"`)
			to := netip.MustParseAddrPort(v.addr)
			reached := established(t, "", netip.MustParseAddr("127.9.0.1"), to)
			d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 9, 0, 1)}, Timeout: 10 * time.Second}
			more := 0
			for ; more < 4000; more++ {
				if _, err := d.Dial("tcp", v.addr); err != nil {
					return reached + more, err.Error()
				}
			}
			return reached + more, ""
		},
	}
}

// nobody is a user to whom limits apply.
var nobody = []string{"setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"}

func watches(t *testing.T) reality {
	sysctl(t, "fs.epoll.max_user_watches", "6000")
	return reality{
		limit: "fs.epoll.max_user_watches", within: nobody,
		doctor:  []string{"--role", "server", "--target", "10000"},
		symptom: "ENOSPC", words: "no space left on device",
		hit: func(t *testing.T, within []string, _ int) (int, string) {
			v := startVictim(t, within, "--max-conns", "10000")
			r, _ := v.load(t, nil, "--conns", "10000")
			return r.Open, v.said("no space left on device")
		},
	}
}

func files(t *testing.T) reality {
	b, err := os.ReadFile("/proc/sys/fs/file-nr")
	if err != nil {
		t.Fatal(err)
	}
	var open int
	fmt.Sscan(string(b), &open)
	sysctl(t, "fs.file-max", fmt.Sprint(open+12000))
	return reality{
		limit: "fs.file-max", within: nobody,
		doctor:  []string{"--role", "both", "--target", "10000"},
		symptom: "ENFILE", words: "too many open files in system",
		hit: func(t *testing.T, within []string, _ int) (int, string) {
			v := startVictim(t, within, "--max-conns", "10000")
			r, text := v.load(t, within, "--conns", "10000")
			seen := v.said("too many open files in system")
			if seen == "" && strings.Contains(text, "too many open files in system") {
				seen = "too many open files in system"
			}
			return r.Open, seen
		},
	}
}

// space makes a network namespace.
func space(t *testing.T) (name string, prefix []string) {
	t.Helper()
	name = fmt.Sprintf("lull%d", os.Getpid())
	for _, args := range [][]string{{"netns", "add", name}, {"-n", name, "link", "set", "lo", "up"}} {
		if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			t.Fatalf("ip %v: %v: %s", args, err, out)
		}
	}
	t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", name).Run() })
	return name, []string{"ip", "netns", "exec", name}
}

func backlog(t *testing.T) reality {
	_, prefix := space(t)
	if out, err := exec.Command(prefix[0], append(prefix[1:], "sysctl", "-w", "net.core.somaxconn=500")...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return reality{
		limit: "net.core.somaxconn", within: prefix,
		doctor:  []string{"--role", "server", "--target", "10000"},
		symptom: "ListenOverflows", words: "ListenOverflows",
		hit: func(t *testing.T, within []string, _ int) (int, string) {
			v := startVictim(t, within, "--max-conns", "10000")
			// Many connections at once, while the server is stopped.
			if err := v.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
				t.Fatal(err)
			}
			v.load(t, within, "--conns", "3000")
			waiting := queued(t, within, netip.MustParseAddrPort(v.addr))
			if n := counter(t, within, "ListenOverflows"); n > 0 {
				return waiting, fmt.Sprintf("ListenOverflows is %d", n)
			}
			return waiting, ""
		},
	}
}

func tracking(t *testing.T) reality {
	name, prefix := space(t)
	rules := exec.Command(prefix[0], append(prefix[1:], "nft", "-f", "-")...)
	rules.Stdin = strings.NewReader("table inet t { chain c { type filter hook input priority 0; ct state invalid drop; }; }")
	if out, err := rules.CombinedOutput(); err != nil {
		t.Fatalf("nft: %v: %s", err, out)
	}
	sysctl(t, "net.netfilter.nf_conntrack_max", "5000")
	return reality{
		limit: "net.netfilter.nf_conntrack_max", within: prefix,
		doctor:  []string{"--role", "server", "--target", "10000"},
		symptom: "table full", words: "drop",
		hit: func(t *testing.T, within []string, _ int) (int, string) {
			v := startVictim(t, within, "--max-conns", "10000")
			r, _ := v.load(t, within, "--conns", "10000")
			if n := dropped(t, within); n > 0 {
				return r.Open, fmt.Sprintf("conntrack: %d drops in %s", n, strings.TrimRight(name, "0123456789"))
			}
			return r.Open, ""
		},
	}
}

// unread broadcasts to peers that do not read, with little memory for TCP.
func unread(t *testing.T) reality {
	const pressure = 15000
	sysctl(t, "net.ipv4.tcp_mem", fmt.Sprint(pressure/2, pressure, 10*pressure))
	return reality{
		limit:   "net.ipv4.tcp_mem",
		doctor:  []string{"--role", "both", "--target", "20000", "--fanout", "32"},
		symptom: "TCPMemoryPressures", words: "TCPMemoryPressures",
		hit: func(t *testing.T, _ []string, _ int) (int, string) {
			v := startVictim(t, nil, "--max-conns", "30000")
			for deaf := pressure * 9 / 10; deaf < pressure*11/10; deaf += pressure / 50 {
				before := counter(t, nil, "TCPMemoryPressures")
				v.load(t, nil, "--conns", fmt.Sprint(deaf+1), "--deaf", fmt.Sprint(deaf), "--broadcasts", "1")
				if n := counter(t, nil, "TCPMemoryPressures") - before; n > 0 {
					return deaf, fmt.Sprintf("TCPMemoryPressures grew by %d", n)
				}
			}
			return 0, ""
		},
	}
}

// lines keeps what a process prints, for await.
type lines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

// await waits until the process has printed the words.
func (l *lines) await(t *testing.T, words string) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		l.mu.Lock()
		text := l.text.String()
		l.mu.Unlock()
		if strings.Contains(text, words) {
			return
		}
	}
	t.Fatalf("waited in vain for %q in %s", words, &l.text)
}

// proc reads a file of /proc/net in a namespace.
func proc(t *testing.T, prefix []string, file string) string {
	t.Helper()
	all := append(append([]string{}, prefix...), "cat", "/proc/net/"+file)
	out, err := exec.Command(all[0], all[1:]...).Output()
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// established counts the connections from an address to another.
func established(t *testing.T, _ string, from netip.Addr, to netip.AddrPort) (n int) {
	t.Helper()
	for line := range strings.Lines(proc(t, nil, "tcp")) {
		fields := strings.Fields(line)
		if len(fields) > 3 && fields[3] == "01" && strings.HasPrefix(fields[1], hexAddr(from)+":") && fields[2] == hexAddr(to.Addr())+":"+fmt.Sprintf("%04X", to.Port()) {
			n++
		}
	}
	return n
}

// queued is how many connections wait to be accepted.
func queued(t *testing.T, prefix []string, at netip.AddrPort) (n int) {
	t.Helper()
	for line := range strings.Lines(proc(t, prefix, "tcp")) {
		fields := strings.Fields(line)
		if len(fields) > 4 && fields[3] == "0A" && fields[1] == hexAddr(at.Addr())+":"+fmt.Sprintf("%04X", at.Port()) {
			_, rx, _ := strings.Cut(fields[4], ":")
			fmt.Sscanf(rx, "%x", &n)
		}
	}
	return n
}

func hexAddr(a netip.Addr) string {
	b := a.As4()
	return fmt.Sprintf("%02X%02X%02X%02X", b[3], b[2], b[1], b[0])
}

// counter reads a counter of /proc/net/netstat.
func counter(t *testing.T, prefix []string, name string) (n int) {
	t.Helper()
	var names []string
	for line := range strings.Lines(proc(t, prefix, "netstat")) {
		fields := strings.Fields(line)
		if names == nil {
			names = fields
			continue
		}
		for i := range min(len(names), len(fields)) {
			if names[i] == name {
				fmt.Sscan(fields[i], &n)
			}
		}
		names = nil
	}
	return n
}

// dropped is how many packets were dropped because conntrack's table was full.
func dropped(t *testing.T, prefix []string) (sum int) {
	t.Helper()
	column := -1
	for line := range strings.Lines(proc(t, prefix, "stat/nf_conntrack")) {
		fields := strings.Fields(line)
		if column < 0 {
			for i, name := range fields {
				if name == "drop" {
					column = i
				}
			}
			continue
		}
		var n int
		fmt.Sscanf(fields[column], "%x", &n)
		sum += n
	}
	return sum
}
