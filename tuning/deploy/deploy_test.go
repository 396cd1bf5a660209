// Package deploy holds the files and scripts that install lull on machines. Its
// tests generate the files whose content follows from other code, and check what
// can be checked without other programs. The script check runs those programs.
package deploy

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v2"

	"github.com/seed-134acfd0/lull/tuning"
)

var update = flag.Bool("update", false, "write the generated files")

// conns is how many connections the files are made for, on an m4.xlarge.
const conns = 1_000_000

// stock is an m4.xlarge, 16 GB, as it comes with a systemd of 240 or newer, a Linux
// of 6.1 or newer, and GRUB as in Debian.
var stock = map[string]string{
	"etc/default/grub":                          "GRUB_CMDLINE_LINUX=\"\"\n",
	"usr/sbin/update-grub":                      "",
	"proc/meminfo":                              "MemTotal: 16463508 kB\nMemFree: 15204416 kB\nBuffers: 2088 kB\nCached: 512304 kB\n",
	"proc/self/limits":                          "Max open files            1024                 524288               files     \n",
	"proc/self/status":                          "Name:\tlull\nCapEff:\t0000000000000000\n",
	"proc/sys/fs/epoll/max_user_watches":        "3663543",
	"proc/sys/fs/file-max":                      "9223372036854775807",
	"proc/sys/fs/file-nr":                       "1504 0 9223372036854775807",
	"proc/sys/fs/nr_open":                       "1048576",
	"proc/sys/kernel/osrelease":                 "6.12.43+deb13-cloud-amd64",
	"proc/sys/net/core/netdev_max_backlog":      "1000",
	"proc/sys/net/core/somaxconn":               "4096",
	"proc/sys/net/ipv4/ip_local_port_range":     "32768 60999",
	"proc/sys/net/ipv4/tcp_ehash_entries":       "131072",
	"proc/sys/net/ipv4/tcp_max_orphans":         "65536",
	"proc/sys/net/ipv4/tcp_max_syn_backlog":     "1024",
	"proc/sys/net/ipv4/tcp_max_tw_buckets":      "65536",
	"proc/sys/net/ipv4/tcp_mem":                 "190473 253965 380946",
	"proc/sys/net/ipv4/tcp_syncookies":          "1",
	"proc/sys/net/ipv4/tcp_timestamps":          "1",
	"proc/sys/net/ipv4/tcp_tw_reuse":            "2",
	"proc/sys/net/ipv4/ip_local_reserved_ports": "",
}

// roles are the machines of the experiment.
var roles = []struct {
	name   string
	demand tuning.Demand
	sysctl string // the file for sysctl.d
	boot   string // the file for GRUB
	unit   string
	data   string // for cloud-init
}{
	{"server", tuning.Demand{Conns: conns, Server: true, Private: true, Targets: 4},
		"90-lull-server.conf", "90-lull-server.cfg", tuning.ServerUnit, "server.yaml"},
	{"generator", tuning.Demand{Conns: conns, Generator: true, Private: true, Sources: 15, Targets: 4},
		"90-lull-load.conf", "90-lull-load.cfg", tuning.GeneratorUnit, "generator.yaml"},
}

// generated compares a file with its expected content, or writes it with -update.
func generated(t *testing.T, path string, want []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got := read(t, path); got != string(want) {
		t.Errorf("%s is not what go test ./tuning/deploy -update makes of it:\n%s", path, want)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// write makes a tree of files, by path and content.
func write(t *testing.T, root string, files map[string]string) {
	t.Helper()
	for path, text := range files {
		path = filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// harmless are the keys that the files may set: none of them harms other programs,
// and no machine has higher values by default. All other keys are left to lull
// tune, which reads the current values first: fs.file-max and fs.nr_open, which
// some versions of systemd set to the maximum, and values that depend on memory.
var harmless = []string{
	"net.core.netdev_max_backlog",
	"net.core.somaxconn",
	"net.ipv4.tcp_syncookies",
	"net.ipv4.tcp_tw_reuse",
}

func stockMachine(t *testing.T) *tuning.Machine {
	t.Helper()
	root := t.TempDir()
	write(t, root, stock)
	m, err := tuning.Read(root)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// The files for sysctl.d hold what lull tune raises, as far as it is harmless.
func TestSysctlFilesAreWhatTuneWants(t *testing.T) {
	m := stockMachine(t)
	for _, role := range roles {
		plan, err := m.Plan(role.demand, tuning.Choice{})
		if err != nil {
			t.Fatal(err)
		}
		var settings []tuning.Setting
		for _, r := range plan.Rows {
			if r.Skip == "" && slices.Contains(harmless, r.Name) {
				r.Setting.Want = r.After
				settings = append(settings, r.Setting)
			}
		}
		if len(settings) == 0 {
			t.Errorf("nothing is raised for the %s", role.name)
		}
		_, body, _ := bytes.Cut(tuning.SysctlFile(settings), []byte("\n"))
		head := fmt.Sprintf("# A %s of 1,000,000 connections: what lull tune raises on a stock m4.xlarge.\n"+
			"# Made by go test ./tuning/deploy -update.\n", role.name)
		generated(t, filepath.Join("sysctl.d", role.sysctl), append([]byte(head), body...))
	}
}

// The files for GRUB are what lull tune writes, but for who removes them.
func TestBootFilesAreWhatTuneWants(t *testing.T) {
	m := stockMachine(t)
	for _, role := range roles {
		plan, err := m.Plan(role.demand, tuning.Choice{Only: []string{"thash_entries"}})
		if err != nil || len(plan.Files) != 1 || plan.Files[0].Path != tuning.BootPath {
			t.Fatalf("%+v, %v", plan, err)
		}
		_, body, _ := bytes.Cut(plan.Files[0].Text, []byte("\n"))
		head := fmt.Sprintf("# A %s of 1,000,000 connections on an m4.xlarge. Run update-grub.\n"+
			"# Made by go test ./tuning/deploy -update.\n", role.name)
		generated(t, filepath.Join("grub.d", role.boot), append([]byte(head), body...))
	}
}

var sysctlLine = regexp.MustCompile(`^([a-z0-9_.]+) = (\d+)$`)

func TestSysctlFilesSetOnlyWhatIsHarmless(t *testing.T) {
	files, err := filepath.Glob("sysctl.d/*")
	if err != nil || len(files) != len(roles) {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, file := range files {
		for line := range strings.Lines(read(t, file)) {
			line = strings.TrimSpace(line)
			if line == "" || strings.HasPrefix(line, "#") {
				continue
			}
			m := sysctlLine.FindStringSubmatch(line)
			if m == nil || !slices.Contains(harmless, m[1]) {
				t.Errorf("%s: %s", file, line)
			}
		}
	}
}

// userDataMax is EC2's limit, in bytes before they are encoded.
const userDataMax = 16 << 10

// userData is what cloud-init does on a role's machine. All of it is generated from
// the other files of this folder.
func userData(t *testing.T, role int) []byte {
	t.Helper()
	r := roles[role]
	unit, conf, boot := "/etc/systemd/system/"+r.unit, "/etc/sysctl.d/"+r.sysctl, "/etc/default/grub.d/"+r.boot
	var b bytes.Buffer
	fmt.Fprintf(&b, "#cloud-config\n# A %s, but for the program: put it to /usr/local/bin/lull.\n"+
		"# Made by go test ./tuning/deploy -update.\nwrite_files:\n", r.name)
	for _, f := range []struct{ path, from string }{
		{conf, filepath.Join("sysctl.d", r.sysctl)}, {unit, filepath.Join("systemd", r.unit)}, {boot, filepath.Join("grub.d", r.boot)},
	} {
		fmt.Fprintf(&b, "  - path: %s\n    content: |\n", f.path)
		for line := range strings.Lines(read(t, f.from)) {
			if strings.TrimSpace(line) != "" {
				b.WriteString("      ")
			}
			b.WriteString(line)
		}
	}
	// systemd-sysctl has run by the time these files are written. The kernel's command
	// line counts from the next boot on.
	fmt.Fprintf(&b, "runcmd:\n  - [sysctl, -p, %s]\n  - [systemctl, daemon-reload]\n"+
		"  - [sh, -c, \"! command -v update-grub >/dev/null || update-grub\"]\n", conf)
	return b.Bytes()
}

func TestUserDataHoldsTheFiles(t *testing.T) {
	for i, role := range roles {
		path := filepath.Join("cloud-init", role.data)
		generated(t, path, userData(t, i))
		text := read(t, path)
		if len(text) > userDataMax/2 {
			t.Errorf("%s has %d bytes, which leaves little of EC2's %d to Terraform's", path, len(text), userDataMax)
		}
		var data struct {
			Files []struct{ Path, Content string } `yaml:"write_files"`
			Run   [][]string                       `yaml:"runcmd"`
		}
		if err := yaml.UnmarshalStrict([]byte(text), &data); err != nil {
			t.Fatal(err)
		}
		want := []string{read(t, filepath.Join("sysctl.d", role.sysctl)), read(t, filepath.Join("systemd", role.unit)), read(t, filepath.Join("grub.d", role.boot))}
		for j, f := range data.Files {
			if f.Content != want[j] {
				t.Errorf("%s: what it writes to %s is\n%s", path, f.Path, f.Content)
			}
		}
	}
}

// values returns what a unit sets a key to, in order.
func values(t *testing.T, unit, key string) (all []string) {
	t.Helper()
	for line := range strings.Lines(read(t, "systemd/"+unit)) {
		if value, ok := strings.CutPrefix(strings.TrimSpace(line), key+"="); ok {
			all = append(all, value)
		}
	}
	return all
}

func TestTheServersUnitListensOnLoopbackOnly(t *testing.T) {
	for _, line := range values(t, tuning.ServerUnit, "Environment") {
		name, flags, _ := strings.Cut(strings.Trim(line, `"`), "=")
		if name == "LULL_LISTEN" {
			flags = "--listen=" + flags
		}
		for _, flag := range strings.Fields(flags) {
			list, ok := strings.CutPrefix(flag, "--listen=")
			for _, address := range strings.Split(list, ",") {
				at, err := netip.ParseAddrPort(address)
				if ok && (err != nil || !at.Addr().IsLoopback()) {
					t.Errorf("it listens on %s", address)
				}
			}
		}
	}
}

func TestUnitsLeaveMemoryToTheMachine(t *testing.T) {
	for _, role := range roles {
		if high := values(t, role.unit, "MemoryHigh"); len(high) != 1 || high[0] != "80%" {
			t.Errorf("%s: MemoryHigh is %q", role.unit, high)
		}
		for _, score := range values(t, role.unit, "OOMScoreAdjust") {
			if strings.HasPrefix(score, "-") {
				t.Errorf("%s: with OOMScoreAdjust=%s the kernel kills others first", role.unit, score)
			}
		}
	}
}

// Private descriptor tables need unshare(CLONE_FILES).
func TestUnitsDoNotFilterUnshare(t *testing.T) {
	const want = "[@system-service ~@privileged]" // "systemd-analyze syscall-filter" lists both
	for _, role := range roles {
		if got := fmt.Sprint(values(t, role.unit, "SystemCallFilter")); got != want {
			t.Errorf("%s: %s", role.unit, got)
		}
	}
}

// lull has all commands and flags that the files use.
func TestFlagsAndCommandsExist(t *testing.T) {
	program := filepath.Join(t.TempDir(), "lull")
	if out, err := exec.Command("go", "build", "-o", program, "../..").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	help := map[string]string{}
	call := regexp.MustCompile(`\blull (serve|load|doctor|tune (?:show|apply|revert|addresses))((?: +(?:\$?[\w./%:~=,@-]+|"[^"]*"|\$\{[^}]*\}))*)`)
	option := regexp.MustCompile(`(?:^|[\s"])(--[a-z][a-z-]*)`)
	check := func(file, command, args string) {
		if _, ok := help[command]; !ok {
			out, err := exec.Command(program, append(strings.Fields(command), "--help")...).Output()
			if err != nil {
				t.Errorf("%s: lull %s: %v", file, command, err)
			}
			help[command] = string(out)
		}
		for _, m := range option.FindAllStringSubmatch(args, -1) {
			if !regexp.MustCompile(`(?m)(^|[\s,])` + m[1] + `([=\s]|$)`).MatchString(help[command]) {
				t.Errorf("%s: lull %s has no %s", file, command, m[1])
			}
		}
	}
	calls := 0
	for _, pattern := range []string{"README.md", "systemd/*", "terraform/*.tf", "nixos/*.nix", "*.sh"} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			t.Errorf("%s: %v", pattern, err)
		}
		for _, file := range files {
			text := strings.ReplaceAll(read(t, file), "\\\n", " ")
			for _, m := range call.FindAllStringSubmatch(text, -1) {
				calls++
				check(file, m[1], m[2])
			}
			for _, m := range regexp.MustCompile(`LULL_(SERVE|LOAD)=(.*)`).FindAllStringSubmatch(text, -1) {
				calls++
				check(file, strings.ToLower(m[1]), " "+m[2])
			}
		}
	}
	if calls < 10 {
		t.Errorf("only %d calls were found", calls)
	}
}

// tree is what lies below a directory: files' modes and contents by path.
func tree(t *testing.T, root string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		b, err := os.ReadFile(path)
		files[strings.TrimPrefix(path, root)] = fmt.Sprintf("%o %s", info.Mode().Perm(), b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// script runs one of the scripts here on a tree.
func script(t *testing.T, root, name string, args ...string) (output string, code int) {
	t.Helper()
	cmd := exec.Command("./"+name, args...)
	cmd.Env = append(os.Environ(), "DESTDIR="+root)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

func TestInstallAndUninstallLeaveNothingBehind(t *testing.T) {
	root := t.TempDir()
	write(t, root, map[string]string{
		"proc/sys/net/core/somaxconn":    "4096\n",
		"proc/sys/net/ipv4/tcp_tw_reuse": "2\n",
		"usr/sbin/update-grub":           "",
		"etc/sysctl.d/10-mine.conf":      "vm.swappiness = 10\n",
	})
	program := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(program, []byte("a program"), 0o600); err != nil {
		t.Fatal(err)
	}
	before := tree(t, root)
	for _, role := range roles {
		for range 2 { // the second time changes nothing
			if out, code := script(t, root, "install.sh", role.name, program); code != 0 || out != "" {
				t.Fatalf("exit %d, %s", code, out)
			}
			files := tree(t, root)
			want := map[string]string{
				"/usr/local/bin/lull":                                       "755 a program",
				"/etc/systemd/system/" + role.unit:                          "644 " + read(t, "systemd/"+role.unit),
				"/etc/sysctl.d/" + role.sysctl:                              "644 " + read(t, "sysctl.d/"+role.sysctl),
				"/etc/default/grub.d/" + role.boot:                          "644 " + read(t, "grub.d/"+role.boot),
				"/etc/default/" + strings.TrimSuffix(role.unit, ".service"): "",
			}
			for path, text := range want {
				if got, ok := files[path]; !ok || text != "" && got != text {
					t.Errorf("%s: %s is %q", role.name, path, got)
				}
			}
		}
	}
	if n := len(tree(t, root)); n != len(before)+9 { // the program is both roles'
		t.Errorf("there are %d files more", n-len(before))
	}
	for range 2 {
		if out, code := script(t, root, "uninstall.sh"); code != 0 || out != "" {
			t.Fatalf("exit %d, %s", code, out)
		}
		if after := tree(t, root); !maps.Equal(before, after) {
			t.Errorf("before %v, after %v", before, after)
		}
	}
}

func TestInstallLowersNothing(t *testing.T) {
	root := t.TempDir()
	const flags = "LULL_SERVE=\"--listen=:9000\"\n"
	write(t, root, map[string]string{"proc/sys/net/core/somaxconn": "100000\n", "etc/default/lull": flags})
	out, code := script(t, root, "install.sh", "server", "install.sh")
	if code != 0 || !strings.Contains(out, "net.core.somaxconn is 100000 already") {
		t.Errorf("exit %d, %s", code, out)
	}
	if got := read(t, root+"/etc/sysctl.d/90-lull-server.conf"); strings.Contains(got, "\nnet.core.somaxconn") {
		t.Errorf("it would lower: %s", got)
	}
	script(t, root, "uninstall.sh")
	if got := read(t, root+"/etc/default/lull"); got != flags {
		t.Errorf("the flags are %q", got)
	}
}

func TestInstallRefusesUnknownArguments(t *testing.T) {
	root := t.TempDir()
	for _, row := range []struct {
		args []string
		code int
		says string
	}{
		{nil, 64, "usage"}, {[]string{"client"}, 64, "usage"}, {[]string{"server", "a", "b"}, 64, "usage"},
		{[]string{"server", root + "/none"}, 1, "no such program"},
	} {
		if out, code := script(t, root, "install.sh", row.args...); code != row.code || !strings.Contains(out, row.says) {
			t.Errorf("install.sh %q: exit %d, %s", row.args, code, out)
		}
	}
	if files := tree(t, root); len(files) > 0 {
		t.Errorf("it leaves %v", files)
	}
}
