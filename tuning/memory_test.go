package tuning

import (
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestMemoryOfThisProcessGrowsAsItIsUsed(t *testing.T) {
	const size = 64 << 20
	before := mustMemoryOf(t, os.Getpid())
	if before.Resident < 1<<20 || before.Slab < 1<<20 {
		t.Errorf("%+v", before)
	}
	pages, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_POPULATE)
	if err != nil {
		t.Fatal(err)
	}
	used := mustMemoryOf(t, os.Getpid())
	if err := unix.Munmap(pages); err != nil {
		t.Fatal(err)
	}
	after := mustMemoryOf(t, os.Getpid())
	// In the meantime the rest of the process may have freed some megabytes.
	if grown, shrunk := used.Resident-before.Resident, used.Resident-after.Resident; grown < size/2 || shrunk < size/2 {
		t.Errorf("%d bytes used: grown by %d, shrunk by %d", size, grown, shrunk)
	}
}

func mustMemoryOf(t *testing.T, pid int) Memory {
	t.Helper()
	m, err := MemoryOf(pid)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestMemoryOfAProcessThatDoesNotExist(t *testing.T) {
	for pid, text := range map[int]string{1 << 30: "1073741824", -1: "-1"} { // the kernel gives numbers below 2^22
		m, err := MemoryOf(pid)
		if err == nil || m != (Memory{}) {
			t.Errorf("process %d: %+v, %v", pid, m, err)
			continue
		}
		if !strings.HasPrefix(err.Error(), "tuning: read the memory of process "+text+": ") {
			t.Errorf("error %v", err)
		}
	}
}

func TestMemoryIsDividedByManyConnectionsAlone(t *testing.T) {
	before, now := Memory{Resident: 10 << 20, Slab: 50 << 20}, Memory{Resident: 11 << 20, Slab: 40 << 20}
	for conns, want := range map[int64]float64{0: 0, 1: 0, 4999: 0, 5000: 1 << 20 / 5000.0, 1 << 20: 1} {
		user, kernel, ok := now.PerConn(before, conns)
		if user != want || kernel != 0 || ok != (conns >= 5000) {
			t.Errorf("%d connections: %v B, %v B, %v", conns, user, kernel, ok)
		}
	}
}
