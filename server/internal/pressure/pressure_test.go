package pressure

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const (
	memory = "proc/meminfo"
	psi    = "proc/pressure/memory"
	groups = "sys/fs/cgroup/"
)

// machine is a root without any control group.
type machine struct {
	t    *testing.T
	root string
}

func newMachine(t *testing.T) machine {
	m := machine{t, t.TempDir()}
	m.write(memory, "MemTotal: 1000 kB\nMemFree: 500 kB\nMemAvailable: 900 kB\nActive(file): 100 kB\nInactive(file): 100 kB\n")
	return m
}

func (m machine) write(name, text string) {
	m.t.Helper()
	name = filepath.Join(m.root, name)
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		m.t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		m.t.Fatal(err)
	}
}

// free makes so much of the machine's 1000 KiB free, none of it pages of files.
func (m machine) free(kib int) {
	m.write(memory, fmt.Sprintf("MemTotal: 1000 kB\nMemFree: %d kB\n", kib))
}

// stall makes all tasks of the machine, or of a group, wait for memory.
func (m machine) stall(file string, percent float64) {
	m.write(file, fmt.Sprintf("some avg10=90.00 avg60=0.00 avg300=0.00 total=1\nfull avg10=%.2f avg60=0.00 avg300=0.00 total=1\n", percent))
}

// group puts the process into a group that may have 1000 bytes, below one without limit.
func (m machine) group(used, files int) {
	m.write("proc/self/cgroup", "0::/pods/lull\n")
	m.write("proc/self/mountinfo", "30 22 0:2 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n")
	m.write(groups+"pods/memory.max", "max\n")
	m.write(groups+"pods/lull/memory.max", "1000\n")
	m.write(groups+"pods/lull/memory.current", fmt.Sprintln(used))
	m.write(groups+"pods/lull/memory.stat", fmt.Sprintf("anon 1\ninactive_file %d\n", files))
}

func TestMemoryIsShort(t *testing.T) {
	type step struct {
		change func(machine)
		short  bool
	}
	for name, steps := range map[string][]step{
		"the machine has little left, and then enough": {
			{func(m machine) {}, false},
			{func(m machine) { m.free(51) }, false},
			{func(m machine) { m.free(49) }, true},
			{func(m machine) { m.free(99) }, true},
			{func(m machine) { m.free(101) }, false},
			{func(m machine) { m.free(51) }, false},
		},
		"pages of files can be given back": {
			{func(m machine) { m.write(memory, "MemTotal: 1000 kB\nMemFree: 10 kB\nInactive(file): 50 kB\n") }, false},
		},
		"what MemAvailable says does not count": {
			{func(m machine) { m.write(memory, "MemTotal: 1000 kB\nMemFree: 10 kB\nMemAvailable: 900 kB\n") }, true},
		},
		"a control group has little left": {
			{func(m machine) { m.group(940, 0) }, false},
			{func(m machine) { m.group(960, 0) }, true},
			{func(m machine) { m.group(910, 0) }, true},
			{func(m machine) { m.group(960, 100) }, false},
			{func(m machine) { m.group(1200, 0) }, true},
			{func(m machine) { m.write(groups+"pods/lull/memory.max", "max\n") }, false},
		},
		"memory.high is a limit too": {
			{func(m machine) { m.group(500, 0); m.write(groups+"pods/lull/memory.high", "510\n") }, true},
		},
		"the machine has less left than its group": {
			{func(m machine) { m.group(100, 0); m.free(10) }, true},
		},
		"all wait for memory": {
			{func(m machine) { m.stall(psi, 9.9) }, false},
			{func(m machine) { m.stall(psi, 10.1) }, true},
			{func(m machine) { m.stall(psi, 5.1) }, true},
			{func(m machine) { m.stall(psi, 4.9) }, false},
		},
		"others wait, and this group does not": {
			{func(m machine) { m.group(100, 0); m.stall(psi, 50); m.stall(groups+"pods/lull/memory.pressure", 1) }, false},
			{func(m machine) { m.stall(groups+"pods/lull/memory.pressure", 50) }, true},
		},
		"files with nonsense": {
			{func(m machine) { m.write(psi, "full avg10=x\n\x00"); m.write("proc/self/mountinfo", "30") }, false},
		},
	} {
		m := newMachine(t)
		w, err := NewMemory(m.root, Limits{})
		if err != nil {
			t.Fatal(err)
		}
		for i, s := range steps {
			s.change(m)
			r, err := w.Poll()
			if err != nil {
				t.Fatal(err)
			}
			if r.Short != s.short || w.Short() != s.short {
				t.Errorf("%s, step %d: short %v, %v", name, i, r.Short, r)
			}
		}
	}
}

func TestAReadingSaysWhatIsShort(t *testing.T) {
	m := newMachine(t)
	m.group(980<<20, 0)
	m.write(groups+"pods/lull/memory.max", fmt.Sprintln(1000<<20))
	m.stall(groups+"pods/lull/memory.pressure", 7.5)
	w, _ := NewMemory(m.root, Limits{})
	r, _ := w.Poll()
	if got := r.String(); got != "20 of 1000 MiB left (/pods/lull), 7.5 % of the time lost waiting for memory" {
		t.Error(got)
	}
}

func TestWhereNothingCanBeReadMemoryIsNotShort(t *testing.T) {
	m := newMachine(t)
	w, _ := NewMemory(m.root, Limits{})
	m.free(1)
	if w.Poll(); !w.Short() {
		t.Fatal("not short")
	}
	m.write(memory, "")
	if r, err := w.Poll(); err == nil || r.Short || w.Short() {
		t.Errorf("%v, %v", r, err)
	}
	if err := os.RemoveAll(m.root); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Poll(); err == nil || !strings.Contains(err.Error(), "memory is left") {
		t.Error(err)
	}
}

func TestLimitsThatMakeNoSenseAreErrors(t *testing.T) {
	for _, l := range []Limits{{Room: -1}, {Room: 0.5}, {Room: math.NaN()}, {Stalled: -1}, {Stalled: 101}} {
		if _, err := NewMemory("/", l); err == nil {
			t.Errorf("%+v is accepted", l)
		}
	}
	if w, err := NewMemory("/", Limits{Room: 0.01, Stalled: 99}); err != nil {
		t.Error(err)
	} else if r, err := w.Poll(); err != nil || r.Limit <= 0 || r.Room <= 0 {
		t.Errorf("this machine: %v, %v", r, err)
	}
}

func BenchmarkPoll(b *testing.B) {
	w, _ := NewMemory("/", Limits{})
	for b.Loop() {
		if _, err := w.Poll(); err != nil {
			b.Fatal(err)
		}
	}
}
