package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/seed-134acfd0/lull/tuning"
)

// patient copies one of tuning's machines and adds /proc/self. It is a symbolic link in
// a real /proc, and a module cannot contain links.
func patient(t *testing.T, name string) (root string) {
	t.Helper()
	root = t.TempDir()
	if err := os.CopyFS(root, os.DirFS(filepath.Join("tuning/testdata", name))); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("1", filepath.Join(root, "proc/self")); err != nil {
		t.Fatal(err)
	}
	return root
}

func TestDoctorsExitCodes(t *testing.T) {
	// 65,535 descriptors less 64, one for the listener, and two for each reactor.
	shared := fmt.Sprintf("tops out at %s connections because of RLIMIT_NOFILE", humanize.Comma(int64(65_470-2*runtime.NumCPU())))
	rows := []struct {
		machine string
		args    []string
		code    int
		line    string
	}{
		{"amazon", nil, 1, "this machine tops out at 2,974,786 connections because of memory; next is fs.epoll.max_user_watches at 3,663,415"},
		{"amazon", []string{"--target", "3000000"}, 2, "because of memory"},
		{"amazon", []string{"--fd-tables", "shared"}, 2, shared},
		// Its 15 addresses are found.
		{"debian", []string{"--role", "loadgen"}, 2, "tops out at 948,706 connections because of source ports"},
		{"debian", []string{"--role", "loadgen", "--listen-ports", "2"}, 1, "tops out at 1,897,412 connections because of source ports; next is memory at 2,938,796"},
		{"debian", []string{"--role", "loadgen", "--sources", "10.0.0.1-10.0.0.3", "--target", "200000"}, 2, "tops out at 189,742 connections because of source ports"},
		{"debian", []string{"--role", "both", "--target", "256000"}, 1, "because of memory"},
		{"cgroup2", []string{"--target", "300000"}, 2, "because of cgroup memory"},
		// Without messages a connection takes half of it: 1,283,457,024 ÷ 4129.9.
		{"cgroup2", []string{"--target", "300000", "--fanout", "0"}, 1, "tops out at 310,771 connections because of cgroup memory"},
		{"conntrack", nil, 2, "tops out at 260,944 connections because of net.netfilter.nf_conntrack_max"},
		{"garbage", nil, 3, "nothing that can be seen stops this machine; not seen: memory"},
		{"amazon", []string{"--role", "loadgen"}, 3, "not seen: source ports"},
	}
	for _, r := range rows {
		out, errs, code := run(t, append([]string{"doctor", "--root", patient(t, r.machine)}, r.args...)...)
		lines := strings.Split(strings.TrimSpace(out), "\n")
		if code != r.code || errs != "" || !strings.Contains(lines[len(lines)-1], r.line) {
			t.Errorf("%s %q: exit code %d, want %d: %s%s", r.machine, r.args, code, r.code, lines[len(lines)-1], errs)
		}
		if strings.Contains(out, "\x1b") {
			t.Errorf("%s: colours in the output of a pipe", r.machine)
		}
	}
}

// Balancers that close what is silent for a minute cannot be seen, so they are a
// warning and change no exit code.
func TestDoctorWarnsOfLoadBalancers(t *testing.T) {
	for timeout, says := range map[string]string{
		"10m": "--idle-timeout: pings a silent connection after 300 s: application load balancers", "0s": "after 31536000 s: application", "2m": "", "100s": "",
	} {
		out, _, code := run(t, "doctor", "--root", patient(t, "conntrack"), "--idle-timeout", timeout)
		if code != 2 || strings.Contains(out, "application load balancers") != (says != "") || !strings.Contains(out, says) {
			t.Errorf("--idle-timeout %s: exit code %d, %s", timeout, code, out)
		}
	}
	for ping, warns := range map[string]bool{"61s": true, "60s": false} {
		out, _, _ := run(t, "doctor", "--root", patient(t, "debian"), "--ping", ping)
		if strings.Contains(out, "pings a silent connection after 61 s: application load balancers") != warns {
			t.Errorf("--ping %s: %s", ping, out)
		}
	}
	if out, _, _ := run(t, "doctor", "--root", patient(t, "debian"), "--role", "loadgen"); strings.Contains(out, "application load balancers") {
		t.Errorf("a generator has no --idle-timeout: %s", out)
	}
}

// On a machine where everything was raised, nothing is left to raise.
func TestDoctorOfATunedMachine(t *testing.T) {
	root := patient(t, "amazon")
	for name, value := range map[string]string{
		"core/somaxconn": "65535", "ipv4/tcp_mem": "190473 1000000 1000000",
		"ipv4/tcp_ehash_entries": "1048576", "ipv4/tcp_max_orphans": "524288", "ipv4/tcp_max_tw_buckets": "524288", // after a boot
	} {
		if err := os.WriteFile(filepath.Join(root, "proc/sys/net", name), []byte(value+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if out, errs, code := run(t, "doctor", "--root", root); code != 0 || errs != "" {
		t.Errorf("exit code %d: %s%s", code, out, errs)
	}
}

func TestDoctorsUsage(t *testing.T) {
	rows := []struct {
		args []string
		says string
	}{
		{[]string{"--role", "client"}, "--role"},
		{[]string{"--target", "0"}, "--target: must be a whole number from 1 to 1,073,741,824, not \"0\""},
		{[]string{"--target", "-5"}, "--target"},
		{[]string{"--target", "1000000000000"}, "--target: must be a whole number from 1 to 1,073,741,824"},
		{[]string{"--target", "many"}, "--target"},
		{[]string{"--listen-ports", "0"}, "--listen-ports"},
		{[]string{"--listen-ports", "70000"}, "--listen-ports"},
		{[]string{"--fanout=-1"}, "--fanout: "},
		{[]string{"--idle-timeout=-1s"}, "--idle-timeout: "},
		{[]string{"--sources", "10.0.0.0.1"}, "10.0.0.0.1"},
		{[]string{"--fd-tables", "round"}, "--fd-tables"},
		{[]string{"--root", "/does/not/exist"}, "--root"},
		{[]string{"now"}, "now"},
	}
	for _, r := range rows {
		out, errs, code := run(t, append([]string{"doctor"}, r.args...)...)
		if code != exitUsage || !strings.Contains(errs, r.says) || strings.Contains(out, "tops out") {
			t.Errorf("%q: exit code %d: %s%s", r.args, code, out, errs)
		}
	}
}

// Without a /proc, or without the right to read it, the doctor cannot tell anything.
func TestDoctorWithoutProc(t *testing.T) {
	out, errs, code := run(t, "doctor", "--root", t.TempDir())
	if code != 3 || out != "" || strings.Count(errs, "\n") != 1 || !strings.HasPrefix(errs, "lull: the machine cannot be read: tuning: read the machine: ") {
		t.Errorf("exit code %d: %q %q", code, out, errs)
	}
}

func TestDoctorThatMayNotReadProc(t *testing.T) {
	root := patient(t, "amazon")
	for path := root; path != filepath.Clean(os.TempDir()); path = filepath.Dir(path) {
		if err := os.Chmod(path, 0o755); err != nil { // so that the user nobody can enter the directories
			t.Fatal(err)
		}
	}
	if err := os.Chmod(filepath.Join(root, "proc"), 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Chmod(filepath.Join(root, "proc"), 0o755) })
	out, errs, code := runCommand(t, asNobody(exec.Command(program, "doctor", "--root", root)))
	if code != 3 || !strings.Contains(out+errs, "not seen: memory") {
		t.Errorf("exit code %d: %s%s", code, out, errs)
	}
}

// The doctor needs no privileges. Without them it assumes the slab sizes.
func TestDoctorOfThisMachineAsNobody(t *testing.T) {
	out, errs, code := runCommand(t, asNobody(exec.Command(program, "doctor", "--target", "100", "--role", "both", "--fanout", "0")))
	if code > 1 || errs != "" || !strings.Contains(out, "none that let limits be raised") || !strings.Contains(out, "this machine tops out at ") {
		t.Errorf("exit code %d: %s%s", code, out, errs)
	}
}

func asNobody(cmd *exec.Cmd) *exec.Cmd {
	if os.Getuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	}
	return cmd
}

func TestDoctorsJSON(t *testing.T) {
	out, errs, code := run(t, "doctor", "--root", patient(t, "debian"), "--role", "loadgen", "--json")
	var g tuning.Diagnosis
	if err := json.Unmarshal([]byte(out), &g); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if code != 2 || errs != "" || g.Schema != "lull.doctor" || g.Version != 1 || g.Verdict != 2 || g.Role != "loadgen" || g.Target != 1_000_000 {
		t.Errorf("exit code %d, %+v %s", code, g, errs)
	}
	if g.Conns == nil || *g.Conns != 948_706 || g.Because == nil || g.Because.Name != "source ports" || g.Next == nil || g.Next.Conns != 2_903_666 {
		t.Errorf("%s: %+v, then %+v", g.Line, g.Because, g.Next)
	}
}

// watchedMachine is a machine whose counters the test changes.
func watchedMachine(t *testing.T) (m *tuning.Machine, count func(overflows string)) {
	t.Helper()
	root := patient(t, "conntrack")
	m, err := tuning.Read(root)
	if err != nil {
		t.Fatal(err)
	}
	return m, func(overflows string) {
		text := "TcpExt: ListenOverflows ListenDrops\nTcpExt: " + overflows + " 345\n"
		if err := os.WriteFile(filepath.Join(root, "proc/1/net/netstat"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// Each second is compared with the one before.
func TestWatchShowsCountersThatGrow(t *testing.T) {
	for _, asJSON := range []bool{false, true} {
		m, count := watchedMachine(t)
		count("345")
		ctx, stop := context.WithCancel(context.Background())
		tick, done := make(chan time.Time), make(chan error)
		read, write := io.Pipe()
		lines := bufio.NewReader(read)
		c := &doctorCommand{JSON: asJSON}
		go func(last tuning.Counters) { done <- c.watch(ctx, m, last, tick, write) }(m.Counters())
		at := time.Date(2024, 5, 1, 12, 0, 0, 0, time.UTC)
		for i, overflows := range []string{"350", "1350"} {
			count(overflows)
			tick <- at.Add(time.Duration(i+1) * time.Second)
			line, err := lines.ReadString('\n')
			if err != nil {
				t.Fatal(err)
			}
			want := []string{"12:00:01  ListenOverflows +5\n", "12:00:02  ListenOverflows +1,000\n"}[i]
			if asJSON {
				want = []string{
					`{"schema":"lull.doctor.watch","version":1,"time":"2024-05-01T12:00:01Z","moved":{"ListenOverflows":5}}` + "\n",
					`{"schema":"lull.doctor.watch","version":1,"time":"2024-05-01T12:00:02Z","moved":{"ListenOverflows":1000}}` + "\n",
				}[i]
			}
			if line != want {
				t.Errorf("%q, want %q", line, want)
			}
		}
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func TestWatchIsSilentWhileNoCounterGrows(t *testing.T) {
	var b bytes.Buffer
	for _, asJSON := range []bool{false, true} {
		if err := (&doctorCommand{JSON: asJSON}).tell(&b, time.Now(), tuning.Counters{}); err != nil || b.Len() > 0 {
			t.Errorf("%q, %v", &b, err)
		}
	}
}

func TestWatchEndsWhenInterrupted(t *testing.T) {
	cmd := exec.Command(program, "doctor", "--watch", "--root", patient(t, "conntrack"))
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	var text bytes.Buffer
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		text.WriteString(lines.Text())
		if strings.HasPrefix(lines.Text(), "this machine tops out at") { // the whole report is printed
			if err := cmd.Process.Signal(os.Interrupt); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := cmd.Wait(); cmd.ProcessState.ExitCode() != 2 {
		t.Errorf("%v: %s", err, &text)
	}
}
