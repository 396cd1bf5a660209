package tuning

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"testing"
)

func near(got, want, share float64) bool { return math.Abs(got-want) <= share*want }

// Measured were 4.1 KB for the server's end, 4.0 KB for the client's end without epoll,
// and 8.3 KB for both ends with epoll.
func TestRAMIsAsMeasured(t *testing.T) {
	m := &Machine{root: t.TempDir()}
	rows := []struct {
		name   string
		demand Demand
		kernel float64
	}{
		{"server", Demand{Conns: 1_000_000, Server: true}, 4100},
		{"both", Demand{Conns: 1_000_000, Server: true, Generator: true}, 8300},
	}
	for _, r := range rows {
		kernel, user := m.RAM(r.demand)
		if !near(float64(kernel)/1e6, r.kernel, 0.01) {
			t.Errorf("%s: %d bytes of the kernel for each, measured were %.0f", r.name, kernel/1e6, r.kernel)
		}
		// 42 bytes of the server, 31 of the generator; a process is some megabytes.
		if user < 40e6 || user > 140e6 {
			t.Errorf("%s: %d bytes of user space", r.name, user)
		}
	}
}

func TestRAMGrowsWithConnections(t *testing.T) {
	m := &Machine{root: t.TempDir()}
	d := Demand{Server: true, Generator: true, Targets: 2}
	kernel0, user0 := m.RAM(d)
	if kernel0 != 0 || user0 != 2*processBytes {
		t.Errorf("%d and %d for none", kernel0, user0)
	}
	d.Conns = 100_000
	kernel, user := m.RAM(d)
	// 2 × 4084.9, and half of 128 for a port that two targets share; 2 × 45.
	if kernel != 823_380_000 || user != 2*processBytes+9_000_000 {
		t.Errorf("%d and %d", kernel, user)
	}
	d.TLS = true
	if k, u := m.RAM(d); k != kernel || u != user+2*108*100_000 {
		t.Errorf("%d and %d with TLS", k, u)
	}
	d.TLS = false
	d.Fanout = 1 << 20 // messages are not what is idle
	if k, u := m.RAM(d); k != kernel || u != user {
		t.Errorf("%d and %d with messages", k, u)
	}
}

// This kernel's own slabs are taken, with their share of pages that stay empty.
func TestRAMKnowsTheRunningKernel(t *testing.T) {
	m := &Machine{root: t.TempDir()}
	for _, s := range slabs {
		dir := filepath.Join(m.root, "sys/kernel/slab", s.name)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		// 10 in 8192 bytes: 819.2, whatever the object's own size.
		for name, n := range map[string]int{"objs_per_slab": 10, "order": 1, "slab_size": 700} {
			if err := os.WriteFile(filepath.Join(dir, name), fmt.Appendln(nil, n), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	if got := m.socketBytes(); !near(got, 92+4*819.2, 1e-9) {
		t.Errorf("%.1f bytes for a socket", got)
	}
	for _, bad := range []string{"", "garbage", "0", "-1"} {
		if err := os.WriteFile(filepath.Join(m.root, "sys/kernel/slab/TCP/objs_per_slab"), []byte(bad), 0o644); err != nil {
			t.Fatal(err)
		}
		if got := m.socketBytes(); !near(got, 92+3*819.2+2520.6, 1e-9) {
			t.Errorf("%q objects: %.1f bytes for a socket", bad, got)
		}
	}
}

// The figures that stand in for a kernel that cannot be asked are near to those
// of the one that runs here, if it can.
func TestSlabsOfThisKernel(t *testing.T) {
	m := mustRead(t, "/")
	for _, s := range slabs {
		if got := m.slabBytes(s.name); got != 0 && !near(got, s.bytes, 0.25) {
			t.Errorf("%s takes %.1f bytes here, and %.1f are assumed", s.name, got, s.bytes)
		}
	}
}

// The m4.xlarge of the facts: a server of a million 3.8 GiB, of two 7.7, one
// unread message for each 1.0 GiB, conntrack 0.25.
func TestRAMOfAMillion(t *testing.T) {
	const gib = 1 << 30
	m := &Machine{root: t.TempDir()}
	for conns, want := range map[int]float64{1_000_000: 3.8 * gib, 2_000_000: 7.7 * gib} {
		kernel, _ := m.RAM(Demand{Conns: conns, Server: true})
		if !near(float64(kernel), want, 0.02) {
			t.Errorf("%d connections: %.2f GiB", conns, float64(kernel)/gib)
		}
		message := m.ramEach(Demand{Server: true, Fanout: 32}) - m.ramEach(Demand{Server: true})
		if !near(message*1e6, 1.02*gib, 0.02) {
			t.Errorf("a message takes %.0f bytes", message)
		}
	}
	without, _ := m.RAM(Demand{Conns: 1_000_000, Server: true})
	write(t, m, map[string]string{"net.netfilter.nf_conntrack_count": "1"})
	with, _ := m.RAM(Demand{Conns: 1_000_000, Server: true})
	if !near(float64(with-without), 0.253*gib, 0.01) {
		t.Errorf("conntrack takes %d bytes", with-without)
	}
}

func TestUnreadMessagesTakePages(t *testing.T) {
	for fanout, want := range map[int]float64{0: 0, 1: 1, 32: 1, 3032: 1, 3033: 2, 65536: 17} {
		if got := (Demand{Fanout: fanout}).unreadPages(); got != want {
			t.Errorf("%d bytes take %v pages, want %v", fanout, got, want)
		}
	}
}

// On a machine with pages of 64 KiB tcp_mem, slabs and conntrack's table count in those.
func TestPagesAreTheMachines(t *testing.T) {
	if thisPage != int64(os.Getpagesize()) {
		t.Errorf("a page is %d bytes, not %d", os.Getpagesize(), thisPage)
	}
	pageBytes = 64 << 10
	t.Cleanup(func() { pageBytes = 4096 })
	m := plenty(t)
	m.Memory = 16 << 30
	if f := finding(t, m, Demand{Conns: 1000, Fanout: 4096}, "net.ipv4.tcp_mem"); f.Need != 1000 {
		t.Errorf("messages of 4 KiB need %d pages", f.Need)
	}
	if f := finding(t, m, Demand{Conns: 1_000_000, Fanout: 32}, "net.ipv4.tcp_mem"); f.Want != "1 104857 104857" { // 40 % of 16 GiB
		t.Errorf("tcp_mem: %s", f.Want)
	}
	put(t, m, "sys/kernel/slab/TCP/objs_per_slab", "27")
	put(t, m, "sys/kernel/slab/TCP/order", "0")
	if got := m.slabBytes("TCP"); got != 65536.0/27 {
		t.Errorf("a socket takes %f bytes", got)
	}
	if got, err := (Setting{Name: "net.netfilter.nf_conntrack_buckets", Want: "1200001"}).raise("262144"); err != nil || got != "1204224" { // 8192 in a page
		t.Errorf("conntrack's buckets: %s, %v", got, err)
	}
	write(t, m, map[string]string{"net.ipv4.tcp_mem": "1 300000 300000"}) // 18 GiB
	if all := m.Warnings(Demand{Conns: 10, Server: true}); !warned(all, "/proc/sys", "net.ipv4.tcp_mem", "more than the machine has") {
		t.Errorf("%q", all)
	}
}
