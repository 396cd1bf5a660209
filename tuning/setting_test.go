package tuning

import (
	"slices"
	"strings"
	"testing"
)

func TestASettingIsOnlyRaised(t *testing.T) {
	rows := []struct{ name, now, want, after string }{
		{"net.core.somaxconn", "4096", "65535", "65535"},
		{"net.core.somaxconn", "100000", "65535", "100000"},
		{"net.core.somaxconn", "65535", "65535", "65535"},
		{"fs.file-max", "9223372036854775807", "2000000", "9223372036854775807"},
		// Element by element: what is more in one place stays.
		{"net.ipv4.tcp_mem", "190473\t253965\t380946", "1 1000000 300000", "190473 1000000 380946"},
		{"net.ipv4.tcp_rmem", "4096 131072 6291456", "8192 65536 4194304", "8192 131072 6291456"},
		// A value that stays is as it was written.
		{"net.ipv4.tcp_rmem", "4096\t131072\t6291456", "4096 131072 4194304", "4096\t131072\t6291456"},
		// A range grows at both ends, and never shrinks.
		{"net.ipv4.ip_local_port_range", "32768\t60999", "1024 65535", "1024 65535"},
		{"net.ipv4.ip_local_port_range", "1000 50000", "1024 65535", "1000 65535"},
		{"net.ipv4.ip_local_port_range", "20000 65535", "30000 40000", "20000 65535"},
		{"net.ipv4.ip_local_reserved_ports", "", "8080-8083", "8080-8083"},
		{"net.ipv4.ip_local_reserved_ports", "22,8082-8090", "8080-8083", "22,8080-8090"},
		{"net.ipv4.ip_local_reserved_ports", "65535,1", "65534", "1,65534-65535"},
		// 2 is less than 1: for loopback alone.
		{"net.ipv4.tcp_tw_reuse", "2", "1", "1"},
		{"net.ipv4.tcp_tw_reuse", "0", "1", "1"},
		{"net.ipv4.tcp_tw_reuse", "1", "2", "1"},
		// The kernel rounds up to pages of 512.
		{"net.netfilter.nf_conntrack_buckets", "262144", "1200001", "1200128"},
	}
	for _, r := range rows {
		got, err := Setting{Name: r.name, Want: r.want}.raise(r.now)
		if err != nil || got != r.after {
			t.Errorf("%s from %q to %q: %q, %v, want %q", r.name, r.now, r.want, got, err, r.after)
		}
		again, err := Setting{Name: r.name, Want: r.want}.raise(got)
		if err != nil || !same(again, got) {
			t.Errorf("%s raised again from %q: %q, %v", r.name, got, again, err)
		}
	}
}

func TestValuesThatAreNoNumbersAreNotRaised(t *testing.T) {
	rows := []struct{ name, now, want string }{
		{"net.core.somaxconn", "many", "65535"},
		{"net.core.somaxconn", "", "65535"},
		{"net.core.somaxconn", "1", "many"},
		{"net.core.somaxconn", "99999999999999999999", "1"},
		{"net.ipv4.tcp_mem", "1 2", "1 2 3"},
		{"net.ipv4.tcp_mem", "1 2 3", "1"},
		{"net.ipv4.tcp_tw_reuse", "3", "1"},
		{"net.ipv4.ip_local_reserved_ports", "70000", "1"},
		{"net.ipv4.ip_local_reserved_ports", "9-8", "1"},
		{"net.ipv4.ip_local_reserved_ports", "1-2-3", "1"},
	}
	for _, r := range rows {
		if got, err := (Setting{Name: r.name, Want: r.want}).raise(r.now); err == nil {
			t.Errorf("%s from %q to %q: %q", r.name, r.now, r.want, got)
		}
	}
}

func TestValuesAreComparedAsNumbers(t *testing.T) {
	rows := []struct {
		a, b string
		same bool
	}{
		{"1 2 3", "1\t2\t3\n", true},
		{"010", "10", true},
		{"1 2", "1 2 3", false},
		{"10", "100", false},
		{"80,81", "80,81 ", true},
		{"80,81", "80", false},
		{"", "", true},
		{"", "0", false},
	}
	for _, r := range rows {
		if same(r.a, r.b) != r.same || same(r.b, r.a) != r.same {
			t.Errorf("%q and %q: same is %t", r.a, r.b, !r.same)
		}
	}
}

func TestASysctlFileSaysWhyAboveEachValue(t *testing.T) {
	got := string(SysctlFile([]Setting{
		{Name: "net.core.somaxconn", Want: "65535", Why: "a rush overflows"},
		{Name: "net.ipv4.tcp_mem", Want: "1\t2\t3", Why: "two\nlines"},
		{Name: "fs.nr_open", Want: "2097152"},
	}))
	want := sysctlHead + `
# a rush overflows
net.core.somaxconn = 65535

# two
# lines
net.ipv4.tcp_mem = 1 2 3

fs.nr_open = 2097152
`
	if got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
}

func TestASysctlFileIsReadAsItWasWritten(t *testing.T) {
	settings := []Setting{
		{Name: "net.core.somaxconn", Want: "65535", Why: "a = b"},
		{Name: "net.ipv4.tcp_mem", Want: "1 2 3", Why: "two\nlines"},
		{Name: "fs.nr_open", Want: "2097152"},
	}
	if got := parseSysctls(SysctlFile(settings)); !slices.Equal(got, settings) {
		t.Errorf("%+v", got)
	}
	theirs := "; a\n-net/core/somaxconn=1\n\n# lost\n\nnet.ipv4.conf.eth0/1.rp_filter = 2\nnonsense\nnet/ipv4/conf/eth0.1/rp_filter = 3"
	want := []Setting{
		{Name: "net.core.somaxconn", Want: "1", Why: "a"},
		{Name: "net.ipv4.conf.eth0/1.rp_filter", Want: "2"},
		{Name: "net.ipv4.conf.eth0/1.rp_filter", Want: "3"},
	}
	if got := parseSysctls([]byte(theirs)); !slices.Equal(got, want) {
		t.Errorf("%+v", got)
	}
}

// A line break in a reason must not become a value.
func TestAReasonIsAlwaysAComment(t *testing.T) {
	text := SysctlFile([]Setting{{Name: "fs.nr_open", Want: "1", Why: "harmless\nkernel.panic = 1"}})
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "kernel") {
			t.Errorf("%s", text)
		}
	}
}

func TestAValueIsReplacedInItsPlace(t *testing.T) {
	for line, want := range map[string]string{
		"a.b = 1\n": "a.b = 22\n", "-a/b=1": "-a/b=22", "  a.b\t=\t 1 2  3 \r\n": "  a.b\t=\t 22 \r\n", "a.b=\n": "a.b=22\n",
		"# a.b = 1\n": "# a.b = 1\n\na.b = 22\n", "a.b": "a.b\n\na.b = 22\n", "": "\na.b = 22\n",
		"a.b = 1\na.b = 1\na.c = 1\n": "a.b = 1\na.b = 22\na.c = 1\n",
	} {
		if got := string(editSysctls([]byte(line), []Setting{{Name: "a.b", Want: "22"}})); got != want {
			t.Errorf("%q: %q, want %q", line, got, want)
		}
	}
}

// Whatever a file holds, an edit changes the values and nothing else.
func FuzzEditSysctls(f *testing.F) {
	f.Add("# a\n-a.b = 1\n\n; c\na/b=2", "3")
	f.Add("a.b\n=\r\n-", "1 2")
	f.Fuzz(func(t *testing.T, text, value string) {
		value = strings.Join(strings.Fields(value), " ")
		edited := editSysctls([]byte(text), []Setting{{Name: "a.b", Want: value}})
		before, after := parseSysctls([]byte(text)), parseSysctls(edited)
		last := -1
		for i, s := range after {
			if s.Name == "a.b" {
				last = i
			}
		}
		if last < 0 || after[last].Want != value {
			t.Fatalf("%q became %q", text, edited)
		}
		for i, s := range after {
			if i != last && s != before[i] {
				t.Errorf("%q became %q", text, edited)
			}
		}
		if again := editSysctls(edited, []Setting{{Name: "a.b", Want: value}}); string(again) != string(edited) {
			t.Errorf("%q became %q the second time", edited, again)
		}
	})
}
