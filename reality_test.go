//go:build reality

package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-134acfd0/lull/internal/testkit"
	"github.com/seed-134acfd0/lull/loadgen"
	"github.com/seed-134acfd0/lull/loadgen/experiment"
	"github.com/seed-134acfd0/lull/tuning"
)

// This test compares the doctor's predictions with reality. Each row lowers one limit,
// asks the doctor, and runs the real server and generator into the limit. It needs root,
// some programs, and a machine that has little else to do; it takes some minutes. It
// restores every sysctl.
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
	// words are in the symptom that was seen, and symptom is in the doctor's.
	words, symptom string
	// moved is how much of the limit other programs have taken or given back meanwhile,
	// where it is the whole machine's.
	moved func(t *testing.T) int
}

// outcome is what a row's try has shown.
type outcome struct {
	predicted, reached int
	symptom, seen      string
	moved              int
}

func (o outcome) off() float64 { return 100 * (float64(o.predicted)/float64(o.reached) - 1) }

func TestThePredictionsAreTrue(t *testing.T) {
	takes(t)
	rows := []struct {
		name string
		row  func(*testing.T) reality
	}{
		{"descriptors", descriptors}, {"ports", ports}, {"watches", watches}, {"files", files}, {"backlog", backlog},
		{"tracking", tracking}, {"unread", unread}, {"cgroup", memoryMax},
	}
	var table strings.Builder
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			r, o := undisturbed(t, row.row)
			fmt.Fprintf(&table, "| %s | %d | %d | %+.1f %% | %s | %s |\n", r.limit, o.predicted, o.reached, o.off(), o.symptom, strings.TrimSpace(o.seen))
			if math.Abs(o.off()) > 5 {
				t.Errorf("%d were predicted, %d reached", o.predicted, o.reached)
			}
			if !strings.Contains(o.seen, r.words) {
				t.Errorf("saw %q, and not %q", o.seen, r.words)
			}
			if !strings.Contains(o.symptom, r.symptom) {
				t.Errorf("the symptom was to be %q, and is %q", o.symptom, r.symptom)
			}
		})
	}
	t.Run("buckets", func(t *testing.T) { buckets(t, &table) })
	fmt.Printf("\n| limit | predicted | reached | off by | symptom told | symptom seen |\n|---|--:|--:|--:|---|---|\n%s\n", &table)
}

// undisturbed tries a row until other programs have not moved the limit meanwhile by
// more than 2 % of what was reached.
func undisturbed(t *testing.T, row func(*testing.T) reality) (r reality, o outcome) {
	t.Helper()
	const triesMost = 10
	for try := 1; ; try++ {
		t.Run(fmt.Sprintf("try %d", try), func(t *testing.T) {
			r = row(t)
			t.Run("hit", func(t *testing.T) {
				o.predicted, o.symptom = r.ask(t)
				o.reached, o.seen = r.hit(t, r.within, o.predicted)
			})
			if r.moved != nil { // when everything else is gone
				o.moved = r.moved(t)
			}
		})
		switch {
		case t.Failed() || 50*o.moved <= o.reached:
			return r, o
		case try == triesMost:
			t.Fatalf("other programs disturb this: they moved %s by %d, in the last of %d tries", r.limit, o.moved, try)
		}
		t.Logf("again, because other programs moved %s by %d", r.limit, o.moved)
	}
}

// takes fails the test, and names what it needs and this machine does not have.
func takes(t *testing.T) {
	t.Helper()
	var missing []string
	if os.Getuid() != 0 {
		missing = append(missing, "root")
	}
	for _, tool := range []struct{ name, debian string }{
		{"ip", "iproute2"}, {"nft", "nftables"}, {"nsenter", "util-linux"}, {"prlimit", "util-linux"}, {"setpriv", "util-linux"}, {"sysctl", "procps"},
	} {
		if _, err := exec.LookPath(tool.name); err != nil {
			missing = append(missing, fmt.Sprintf("%s (in Debian's %s)", tool.name, tool.debian))
		}
	}
	if len(missing) > 0 {
		t.Fatalf("this needs %s", strings.Join(missing, ", "))
	}
}

// ask runs the doctor, which has to name this limit as the lowest.
func (r *reality) ask(t *testing.T) (conns int, symptom string) {
	out, errs, _ := runCommand(t, prefixed(r.within, append([]string{"doctor", "--json"}, r.doctor...)...))
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

// prefixed is lull under another command, for instance as another user.
func prefixed(prefix []string, args ...string) *exec.Cmd {
	all := append(append(append([]string{}, prefix...), program), args...)
	return exec.Command(all[0], all[1:]...)
}

// sysctl sets a kernel setting until the test's end.
func sysctl(t *testing.T, name, value string) {
	t.Helper()
	alone(t)
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

// alone waits until no other lull tunes this machine, and keeps others from it until the
// test's end. An experiment, for instance, would raise what this test has lowered.
func alone(t *testing.T) {
	t.Helper()
	dir := filepath.Dir(tuning.RunFile)
	for {
		made := os.Mkdir(dir, 0o700) == nil
		held, err := os.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		if err := unix.Flock(int(held.Fd()), unix.LOCK_EX); err != nil {
			t.Fatal(err)
		}
		mine, err1 := held.Stat()
		there, err2 := os.Stat(dir)
		if err1 == nil && err2 == nil && os.SameFile(mine, there) {
			t.Cleanup(func() {
				if made {
					_ = os.Remove(dir) // fails while there is something in it
				}
				_ = held.Close()
			})
			return
		}
		_ = held.Close() // whoever had it has removed it
	}
}

// victim is a server that runs into a limit.
type victim struct {
	cmd  *exec.Cmd
	addr string
	log  testkit.Log
}

// said returns the first line of its log that contains the words.
func (v *victim) said(words string) string {
	for line := range strings.Lines(v.log.String()) {
		if strings.Contains(line, words) {
			return words
		}
	}
	return ""
}

func startVictim(t *testing.T, prefix []string, args ...string) *victim {
	t.Helper()
	v := &victim{cmd: prefixed(prefix, append([]string{"serve", "--listen", "127.0.0.1:0", "--admin=", "--status", "0s", "--anyway"}, args...)...)}
	v.cmd.Stderr = &v.log
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
	out, errs, _ := runCommand(t, prefixed(prefix, append([]string{"load", "--url", "ws://" + v.addr + "/", "--anyway", "--timeout", "5s", "--json", path}, args...)...))
	if b, err := os.ReadFile(path); err == nil {
		_ = json.Unmarshal(b, &r) // empty if the run was refused
	}
	return r, out + errs
}

// hold opens connections to a victim, and keeps them until the test's end.
func (v *victim) hold(t *testing.T, prefix []string, conns int, args ...string) {
	t.Helper()
	holding := prefixed(prefix, append([]string{"load", "--url", "ws://" + v.addr + "/", "--conns", fmt.Sprint(conns), "--hold", "1h", "--anyway"}, args...)...)
	var log testkit.Log
	holding.Stderr, holding.SysProcAttr = &log, &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := holding.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = holding.Process.Kill()
		_ = holding.Wait()
	})
	await(t, &log, `"name":"hold"`)
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

// ports are used up in a namespace of their own, because nobody else could connect.
func ports(t *testing.T) reality {
	_, prefix := space(t)
	return reality{
		limit: "source ports", within: prefix, doctor: []string{"--role", "loadgen", "--target", "70000", "--sources", "127.9.0.1"},
		symptom: "no source port is left", words: "port",
		hit: func(t *testing.T, within []string, predicted int) (int, string) {
			v := startVictim(t, within, "--max-conns", "100000")
			v.hold(t, within, predicted, "--sources", "127.9.0.1")
			// Another generator uses what was left to spare, and then finds nothing.
			r, text := v.load(t, within, "--sources", "127.9.0.1", "--conns", "5000")
			for line := range strings.Lines(text) {
				if strings.Contains(line, "taken") || strings.Contains(line, "source port") {
					return predicted + r.Counts["connected"], line
				}
			}
			return predicted + r.Counts["connected"], text
		},
	}
}

// user is a user to whom limits apply, as a prefix of a command.
func user(id int) []string {
	return []string{"setpriv", fmt.Sprintf("--reuid=%d", id), fmt.Sprintf("--regid=%d", id), "--clear-groups"}
}

var nobody = user(65534)

func watches(t *testing.T) reality {
	sysctl(t, "fs.epoll.max_user_watches", "6000")
	return reality{
		limit: "fs.epoll.max_user_watches", within: nobody,
		doctor:  []string{"--role", "server", "--target", "10000"},
		symptom: "ENOSPC", words: "no space left on device",
		hit: func(t *testing.T, within []string, _ int) (int, string) {
			v := startVictim(t, within, "--max-conns", "10000")
			// The limit is each user's, root's too: two generators stay below it.
			const first = 4000
			v.hold(t, user(65533), first)
			r, _ := v.load(t, user(65532), "--conns", "4000")
			return first + r.Open, v.said("no space left on device")
		},
	}
}

func files(t *testing.T) reality {
	const room = 100_000 // so many that other programs matter little
	others := []int{openFiles(t)}
	sysctl(t, "fs.file-max", fmt.Sprint(others[0]+room))
	return reality{
		limit: "fs.file-max", within: nobody,
		moved:   func(t *testing.T) int { return spread(append(others, openFiles(t))) },
		doctor:  []string{"--role", "both", "--target", "100000"},
		symptom: "ENFILE", words: "too many open files in system",
		hit: func(t *testing.T, within []string, _ int) (int, string) {
			v := startVictim(t, within, "--max-conns", "100000")
			r, text := v.load(t, within, "--conns", "60000")
			seen := v.said("too many open files in system")
			if seen == "" && strings.Contains(text, "too many open files in system") {
				seen = "too many open files in system"
			}
			return r.Open, seen
		},
	}
}

func spread(all []int) int { return slices.Max(all) - slices.Min(all) }

// openFiles is how many files are open on the whole machine.
func openFiles(t *testing.T) (n int) {
	t.Helper()
	fmt.Sscan(text(t, "/proc/sys/fs/file-nr"), &n)
	return n
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

// unread broadcasts to peers that do not read, with little memory for TCP. Messages on
// their way count too, a thousand or two for a processor that is busy, and so do other
// programs'; the room is so large that these matter little.
func unread(t *testing.T) reality {
	const unreadMost = 80_000
	others := []int{pagesOfTCP(t)}
	pressure := others[0] + unreadMost
	sysctl(t, "net.ipv4.tcp_mem", fmt.Sprint(pressure/2, pressure, 10*pressure))
	return reality{
		limit:   "net.ipv4.tcp_mem",
		doctor:  []string{"--role", "both", "--target", "200000", "--fanout", "32"},
		moved:   func(t *testing.T) int { return spread(append(others, pagesOfTCP(t))) },
		symptom: "TCPMemoryPressures", words: "TCPMemoryPressures",
		hit: func(t *testing.T, _ []string, _ int) (int, string) {
			v := startVictim(t, nil, "--max-conns", "200000")
			presses := func(deaf int) (grown int) {
				before := counter(t, nil, "TCPMemoryPressures")
				others = append(others, pagesOfTCP(t))
				v.load(t, nil, "--conns", fmt.Sprint(deaf+1), "--deaf", fmt.Sprint(deaf), "--broadcasts", "1")
				return counter(t, nil, "TCPMemoryPressures") - before
			}
			for deaf := unreadMost * 94 / 100; deaf < unreadMost*11/10; deaf += unreadMost / 50 {
				// Twice, because another program's messages may have done it once.
				if n := presses(deaf); n > 0 && presses(deaf) > 0 {
					return others[len(others)-1] + deaf, fmt.Sprintf("TCPMemoryPressures grew by %d", n)
				}
			}
			return 0, ""
		},
	}
}

// pagesOfTCP is how much memory TCP uses for messages on the whole machine.
func pagesOfTCP(t *testing.T) (n int) {
	t.Helper()
	for line := range strings.Lines(proc(t, nil, "sockstat")) {
		if _, pages, found := strings.Cut(line, " mem "); found && strings.HasPrefix(line, "TCP:") {
			fmt.Sscan(pages, &n)
		}
	}
	return n
}

// memoryMax gives a server a control group with little memory.
func memoryMax(t *testing.T) reality {
	const limit = 256 << 20 // much more than a process without connections
	dir, killed := group(t, limit)
	return reality{
		limit: "cgroup memory", within: []string{"sh", "-c", "echo $$ >" + dir + "/cgroup.procs && exec \"$@\"", "sh"},
		doctor:  []string{"--role", "server", "--target", "1000000", "--fanout", "0"},
		symptom: "the OOM killer ends the process", words: "oom_kill 1",
		hit: func(t *testing.T, within []string, predicted int) (int, string) {
			v := startVictim(t, within, "--max-conns", "1000000", "--no-memory-guard")
			r, _ := v.load(t, nil, "--conns", fmt.Sprint(predicted*5/4))
			return r.Counts["connected"], killed()
		},
	}
}

// group makes a control group with a limit of memory. killed tells how often the OOM
// killer came to it.
func group(t *testing.T, limit int) (dir string, killed func() string) {
	t.Helper()
	limitFile, events := "memory.max", "memory.events"
	dir = fmt.Sprintf("/sys/fs/cgroup/lull%d", os.Getpid())
	if _, err := os.Stat("/sys/fs/cgroup/memory"); err == nil { // version 1
		dir, limitFile, events = fmt.Sprintf("/sys/fs/cgroup/memory/lull%d", os.Getpid()), "memory.limit_in_bytes", "memory.oom_control"
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Skipf("no control group can be made: %v", err)
	}
	t.Cleanup(func() {
		if err := os.Remove(dir); err != nil {
			t.Error(err)
		}
	})
	if err := os.WriteFile(filepath.Join(dir, limitFile), []byte(fmt.Sprint(limit)), 0); err != nil {
		t.Skipf("a control group has no memory controller here: %v", err)
	}
	return dir, func() string {
		for line := range strings.Lines(text(t, filepath.Join(dir, events))) {
			if strings.HasPrefix(line, "oom_kill ") {
				return line
			}
		}
		return ""
	}
}

// buckets compares a hash table with long chains with one whose buckets are enough.
// Here the doctor predicts no number of connections, but that packets take longer.
func buckets(t *testing.T, table *strings.Builder) {
	const conns, few, enough = 20_000, 512, 65_536
	cost := map[int]time.Duration{}
	for _, n := range []int{enough, few, enough, few} { // in turn, for a machine whose speed changes
		prefix := hashed(t, n)
		out, errs, _ := runCommand(t, prefixed(prefix, "doctor", "--json", "--role", "both", "--target", fmt.Sprint(conns)))
		var d tuning.Diagnosis
		if err := json.Unmarshal([]byte(out), &d); err != nil {
			t.Fatalf("%v: %s%s", err, out, errs)
		}
		for _, l := range d.Limits {
			if l.Name == "TCP hash table" && (*l.Have != int64(n) || (l.State == tuning.Raise) != (n == few)) {
				t.Errorf("with %d buckets the doctor says %s, of %d", n, l.State, *l.Have)
			}
		}
		v := startVictim(t, prefix, "--max-conns", "30000")
		r, text := v.load(t, prefix, "--conns", fmt.Sprint(conns), "--broadcasts", "10")
		if r.Open != conns || r.Lost > 0 {
			t.Fatalf("with %d buckets: %s", n, text)
		}
		_ = v.cmd.Process.Signal(syscall.SIGKILL)
		_ = v.cmd.Wait()
		cost[n] += v.cmd.ProcessState.SystemTime()
	}
	ratio := float64(cost[few]) / float64(cost[enough])
	fmt.Fprintf(table, "| TCP hash table, %d sockets in a bucket | slower | system time × %.1f | – | each packet takes longer | server %v, %v |\n",
		2*conns/few, ratio, cost[few].Round(time.Millisecond), cost[enough].Round(time.Millisecond))
	if ratio < 1.2 {
		t.Errorf("with %d sockets in a bucket the server takes %.2f times as much", 2*conns/few, ratio)
	}
}

// hashed makes a network namespace whose TCP hash table has so many buckets.
func hashed(t *testing.T, buckets int) (prefix []string) {
	t.Helper()
	space, err := experiment.NewNamespace(buckets)
	if err != nil {
		t.Skip(err)
	}
	inside := exec.Command("sleep", "infinity") // what the namespace lives in
	if err := space.Start(inside); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = inside.Process.Kill()
		_ = inside.Wait()
		space.Leave()
	})
	return []string{"nsenter", fmt.Sprintf("--net=/proc/%d/ns/net", inside.Process.Pid)}
}

// await waits until a process has printed the words.
func await(t *testing.T, log *testkit.Log, words string) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); !log.Has(words); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %q in %s", words, log)
		}
	}
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
