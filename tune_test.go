package main

import (
	"encoding/json"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/seed-134acfd0/lull/tuning"
)

// tunable is a stock m4.xlarge with systemd, in a directory that anybody may
// enter.
func tunable(t *testing.T) (root string) {
	t.Helper()
	root, err := os.MkdirTemp(filepath.Dir(program), "root")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(root) })
	if err := os.Chmod(root, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(root, os.DirFS("tuning/testdata/m4.xlarge")); err != nil {
		t.Fatal(err)
	}
	for path, text := range map[string]string{
		"proc/sys/kernel/random/boot_id": "8f1f0f38-0000-4000-8000-000000000001\n",
		"etc/systemd/system/other":       "other",
		"var/lib/other":                  "other",
	} {
		path = filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	link(t, root, "1", "proc/self")
	if err := os.MkdirAll(filepath.Join(root, "proc/1/ns"), 0o755); err != nil {
		t.Fatal(err)
	}
	link(t, root, "net:[4026531833]", "proc/1/ns/net")
	return root
}

// ofThisKernel is a directory whose /proc is the real one.
func ofThisKernel(t *testing.T) (root string) {
	t.Helper()
	root = tunable(t)
	if err := os.RemoveAll(filepath.Join(root, "proc")); err != nil {
		t.Fatal(err)
	}
	link(t, root, "/proc", "proc")
	return root
}

func link(t *testing.T, root, to, path string) {
	t.Helper()
	path = filepath.Join(root, path)
	_ = os.Remove(path)
	if err := os.Symlink(to, path); err != nil {
		t.Fatal(err)
	}
}

// contents are the names and contents of all files below a root.
func contents(t *testing.T, root string) string {
	t.Helper()
	var all strings.Builder
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		all.WriteString(d.Type().String() + " " + path + "\n")
		if d.Type().IsRegular() {
			text, err := os.ReadFile(path)
			all.Write(text)
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all.String()
}

func TestTuneRefusesInvalidArguments(t *testing.T) {
	for want, args := range map[string][]string{
		"must be one of":                        {"show", "--role", "client"},
		`1 to 1,073,741,824, not "0"`:           {"apply", "--target", "0"},
		`not "-5"`:                              {"show", "--target=-5"},
		`1 to 1,073,741,824, not "1000000000`:   {"apply", "--target", "1000000000000", "--yes"},
		`not "many"`:                            {"show", "--target", "many"},
		`there is no "net.core.somaxcon"`:       {"apply", "--only", "net.core.somaxcon"},
		`there is no "kernel.panic" to tune`:    {"apply", "--with", "kernel.panic", "--yes"},
		"--fanout: must be":                     {"show", "--fanout=-1"},
		"missing flags: --dev":                  {"addresses"},
		"only one of them":                      {"addresses", "--dev", "eth0", "--add", "1", "--remove"},
		"--add: must be a whole number from 0":  {"addresses", "--dev", "eth0", "--add=-1"},
		"--instance-type=m4.huge: unknown inst": {"addresses", "--dev", "eth0", "--instance-type", "m4.huge"},
		"invalid From IP":                       {"addresses", "--dev", "eth0", "--addresses", "nowhere"},
	} {
		_, errs, code := run(t, append([]string{"tune"}, args...)...)
		if code != exitUsage || !strings.Contains(errs, want) {
			t.Errorf("lull tune %v: exit %d, %q lacks %q", args, code, errs, want)
		}
	}
}

func TestTuneHelpHasExamples(t *testing.T) {
	for _, command := range []string{"", "show", "apply", "revert", "addresses"} {
		args := append([]string{"tune"}, strings.Fields(command)...)
		if out, _, code := run(t, append(args, "--help")...); code != 0 || !strings.Contains(out, "Examples:") {
			t.Errorf("lull %v --help: exit %d, %s", args, code, out)
		}
	}
}

func TestTuneWithoutYesChangesNothing(t *testing.T) {
	root := tunable(t)
	before := contents(t, root)
	for _, args := range [][]string{{"show"}, {"apply"}, {"apply", "--role", "both", "--with", "net.ipv4.tcp_mem"}} {
		out, errs, code := run(t, append(append([]string{"tune"}, args...), "--fd-tables", "shared", "--root", root)...)
		if code != 0 || !strings.Contains(out, "net.core.somaxconn") || errs != "" {
			t.Errorf("lull tune %v: exit %d, %s%s", args, code, out, errs)
		}
		if args[0] == "apply" {
			for _, says := range []string{"would write /etc/sysctl.d/90-lull.conf:\n", "  | net.core.somaxconn = 65535\n", "  | LimitNOFILE=2097152\n", "Nothing was changed"} {
				if !strings.Contains(out, says) {
					t.Errorf("lull tune %v does not say %q:\n%s", args, says, out)
				}
			}
		}
		if contents(t, root) != before {
			t.Errorf("lull tune %v has changed something", args)
		}
	}
}

func TestTuneAppliesAndReverts(t *testing.T) {
	root := tunable(t)
	before := contents(t, root)
	out, errs, code := run(t, "tune", "apply", "--yes", "--fd-tables", "shared", "--root", root)
	if code != 0 || !strings.Contains(out, "Wrote /etc/sysctl.d/90-lull.conf") || !strings.Contains(out, "lull tune revert") || !strings.Contains(out, "daemon-reload") {
		t.Fatalf("exit %d, %s%s", code, out, errs)
	}
	for path, want := range map[string]string{
		"proc/sys/net/core/somaxconn":                   "65535\n",
		"etc/sysctl.d/90-lull.conf":                     "\nnet.core.somaxconn = 65535\n",
		"etc/systemd/system/lull.service.d/limits.conf": "\nLimitNOFILE=2097152\n",
	} {
		if text, err := os.ReadFile(filepath.Join(root, path)); err != nil || !strings.Contains(string(text), want) {
			t.Errorf("%s: %s, %v", path, text, err)
		}
	}
	if out, _, code := run(t, "tune", "show", "--root", root); code != 0 || !strings.Contains(out, "net.core.somaxconn: 4096 → 65535") {
		t.Errorf("show: exit %d, %s", code, out)
	}
	if out, _, code := run(t, "tune", "apply", "--yes", "--fd-tables", "shared", "--root", root); code != 0 || !strings.Contains(out, "nothing to do") {
		t.Errorf("again: exit %d, %s", code, out)
	}
	if out, errs, code := run(t, "tune", "revert", "--root", root); code != 0 || !strings.Contains(out, "net.core.somaxconn: 4096\n") {
		t.Errorf("revert: exit %d, %s%s", code, out, errs)
	}
	if after := contents(t, root); after != before {
		t.Errorf("not as before:\n%s", after)
	}
	if out, errs, code := run(t, "tune", "revert", "--root", root); code != 0 || !strings.Contains(out, "nothing to revert") {
		t.Errorf("twice: exit %d, %s%s", code, out, errs)
	}
}

// What the doctor says is wanted, tune sets, with both kinds of descriptor tables.
func TestTuneAndDoctorAgree(t *testing.T) {
	for tables, want := range map[string]string{"shared": "2097152", "private": "2067"} {
		root := patient(t, "conntrack")
		args := []string{"--target", "1000000", "--fd-tables", tables, "--root", root}
		out, _, _ := run(t, append([]string{"doctor", "--json"}, args...)...)
		var g tuning.Diagnosis
		if err := json.Unmarshal([]byte(out), &g); err != nil {
			t.Fatal(err)
		}
		wanted := map[string]string{}
		for _, l := range g.Limits {
			wanted[l.Setting] = l.Want
		}
		if wanted["fs.nr_open"] != want {
			t.Errorf("%s: the doctor wants fs.nr_open to be %s, not %s", tables, wanted["fs.nr_open"], want)
		}
		shown, _, _ := run(t, append([]string{"tune", "show"}, args...)...)
		for _, name := range []string{"fs.nr_open", "net.core.somaxconn", "fs.epoll.max_user_watches", "net.netfilter.nf_conntrack_max"} {
			if !regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(name) + ` +\d+ +` + wanted[name] + ` `).MatchString(shown) {
				t.Errorf("%s: the doctor wants %s to be %s:\n%s", tables, name, wanted[name], shown)
			}
		}
	}
}

func TestTuneRevertReportsDrift(t *testing.T) {
	root := tunable(t)
	if out, errs, code := run(t, "tune", "apply", "--yes", "--root", root); code != 0 {
		t.Fatalf("exit %d, %s%s", code, out, errs)
	}
	path := filepath.Join(root, "proc/sys/net/core/somaxconn")
	if err := os.WriteFile(path, []byte("1000\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	out, errs, code := run(t, "tune", "revert", "--root", root)
	if code != exitFailed || !strings.Contains(out, "net.core.somaxconn: left at 1000: somebody else has changed it; it was 4096, and lull set it to 65535") {
		t.Errorf("exit %d, %s%s", code, out, errs)
	}
	if _, _, code := run(t, "tune", "revert", "--root", root); code != 0 {
		t.Errorf("twice: exit %d", code)
	}
}

func TestTuneWithoutProcSaysSo(t *testing.T) {
	for _, args := range [][]string{{"show"}, {"apply", "--yes"}, {"revert"}, {"addresses", "--dev", "lo"}} {
		_, errs, code := run(t, append(append([]string{"tune"}, args...), "--root", t.TempDir())...)
		if code != exitFailed || !strings.Contains(errs, "proc") || strings.Count(errs, "\n") != 1 {
			t.Errorf("lull tune %v: exit %d, %s", args, code, errs)
		}
	}
}

// anybody is a command that runs without privileges.
func anybody(args ...string) *exec.Cmd {
	cmd := exec.Command(program, args...)
	if os.Geteuid() == 0 {
		const nobody = 65534
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	}
	return cmd
}

func TestTuneWithoutRootDoesNothingAndSaysSo(t *testing.T) {
	root := tunable(t)
	if os.Geteuid() != 0 {
		t.Skip("this needs root, so that the files belong to another user")
	}
	before := contents(t, root)
	_, errs, code := runCommand(t, anybody("tune", "apply", "--yes", "--root", root))
	if code != exitFailed || !strings.Contains(errs, "nothing was changed") || !strings.Contains(errs, "root is needed") || strings.Count(errs, "\n") != 1 {
		t.Errorf("exit %d, %s", code, errs)
	}
	out, errs, code := runCommand(t, anybody("tune", "apply", "--root", root))
	if code != 0 || !strings.Contains(out, "cannot make these changes") || !strings.Contains(out, "root is needed") {
		t.Errorf("dry: exit %d, %s%s", code, out, errs)
	}
	if contents(t, root) != before {
		t.Error("something has changed")
	}
	// Another user can see what root has applied, with a warning, and cannot revert
	// it.
	if out, errs, code := run(t, "tune", "apply", "--yes", "--root", root); code != 0 {
		t.Fatalf("exit %d, %s%s", code, out, errs)
	}
	before = contents(t, root)
	if out, errs, code := runCommand(t, anybody("tune", "show", "--root", root)); code != 0 || !strings.Contains(out, "Warning: ") {
		t.Errorf("show: exit %d, %s%s", code, out, errs)
	}
	if _, errs, code := runCommand(t, anybody("tune", "revert", "--root", root)); code != exitFailed || !strings.Contains(errs, "root is needed") {
		t.Errorf("revert: exit %d, %s", code, errs)
	}
	if contents(t, root) != before {
		t.Error("something has changed")
	}
}

// In a container /proc/sys is often read-only.
func TestTuneOfAReadOnlyKernelDoesNothingAndSaysSo(t *testing.T) {
	root := ofThisKernel(t)
	before := contents(t, root)
	const readOnly = `mount --make-rprivate / && mount --bind /proc/sys /proc/sys && mount -o remount,bind,ro /proc/sys || exit 77; exec "$@"`
	cmd := exec.Command("sh", "-c", readOnly, "sh", program, "tune", "apply", "--only", "net.core.somaxconn", "--yes", "--root", root)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWNET}
	probe := exec.Command("true")
	probe.SysProcAttr = cmd.SysProcAttr
	if err := probe.Run(); err != nil {
		t.Skip("this needs CAP_SYS_ADMIN, to create namespaces: ", err)
	}
	_, errs, code := runCommand(t, cmd)
	if code != exitFailed || !strings.Contains(errs, "read-only file system") || !strings.Contains(errs, "nothing was changed") || strings.Count(errs, "\n") != 1 {
		t.Errorf("exit %d, %s", code, errs)
	}
	if contents(t, root) != before {
		t.Error("something has changed")
	}
}

func TestTuneAddsAndRemovesAddresses(t *testing.T) {
	root := ofThisKernel(t)
	before := contents(t, root)
	runtime.LockOSThread() // and never unlocks: the thread ends with the test, and the namespace with it
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Skip("this needs CAP_SYS_ADMIN, to create a network namespace: ", err)
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "eth7"
	device := &netlink.Veth{LinkAttrs: attrs, PeerName: "peer7"}
	if err := netlink.LinkAdd(device); err != nil {
		t.Fatal(err)
	}
	addr, err := netlink.ParseAddr("10.0.0.20/24")
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.AddrAdd(device, addr); err != nil {
		t.Fatal(err)
	}
	there := func() int {
		t.Helper()
		addrs, err := netlink.AddrList(device, unix.AF_INET)
		if err != nil {
			t.Fatal(err)
		}
		return len(addrs)
	}
	tune := func(wantCode, wantThere int, says string, args ...string) {
		t.Helper()
		out, errs, code := run(t, append([]string{"tune", "addresses", "--root", root, "--dev", "eth7"}, args...)...)
		if code != wantCode || there() != wantThere || !strings.Contains(out+errs, says) {
			t.Errorf("%v: exit %d, %d addresses, %s%s", args, code, there(), out, errs)
		}
	}
	const advice = "m4.xlarge: 4 interfaces × 15; you have 1 × 15, for 948,706 connections per server port; for 1,000,000 use two ports on the server, or"
	tune(0, 1, "you have 1 × 1, for 63,248 ")
	tune(0, 1, advice, "--add", "14", "--instance-type", "m4.xlarge")
	tune(0, 1, "--private-ip-addresses 10.0.0.21 10.0.0.22 ", "--add", "14", "--instance-type", "m4.xlarge")
	tune(0, 1, "would add to eth7: 10.0.0.21 10.0.0.22\n\nNothing was changed", "--add", "2")
	tune(exitFailed, 1, "has room for 250 more addresses", "--add", "1000")
	tune(exitFailed, 1, "is taken", "--addresses", "10.0.0.19-10.0.0.20", "--yes")
	tune(0, 1, "nothing to remove", "--remove", "--yes")
	tune(0, 15, "Added to eth7: 10.0.0.21", "--add", "14", "--yes")
	tune(0, 17, "Added to eth7: 10.0.0.8 10.0.0.9\n", "--addresses", "10.0.0.8-10.0.0.9", "--yes")
	tune(0, 17, "would remove 10.0.0.21/24 from eth7", "--remove")
	tune(0, 1, "10.0.0.34/24 on eth7: removed", "--remove", "--yes")
	tune(0, 1, "nothing to remove", "--remove", "--yes")
	if contents(t, root) != before {
		t.Error("not as before")
	}
	if _, errs, code := run(t, "tune", "addresses", "--root", root, "--dev", "none7", "--add", "1"); code != exitFailed || !strings.Contains(errs, "none7") {
		t.Errorf("exit %d, %s", code, errs)
	}
	if os.Geteuid() == 0 {
		_, errs, code := runCommand(t, anybody("tune", "addresses", "--root", root, "--dev", "eth7", "--add", "1", "--yes"))
		if code != exitFailed || !strings.Contains(errs, "root is needed") || there() != 1 {
			t.Errorf("nobody: exit %d, %s", code, errs)
		}
	}
}
