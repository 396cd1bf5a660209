package experiment

import (
	"bytes"
	"os/exec"
	"strings"
	"testing"
)

func TestBucketsAreOneForEachSocket(t *testing.T) {
	for conns, want := range map[int]int{
		-1: 2, 0: 2, 1: 2, 2: 4, 3: 8, 131_072: 262_144, 131_073: 524_288, 1_000_000: 2_097_152, 2_500_000: 8_388_608,
		8_388_608: 16_777_216, 8_388_609: 16_777_216, 1 << 40: 16_777_216, // the kernel's most
	} {
		if got := Buckets(conns); got != want {
			t.Errorf("%d connections: %d buckets, want %d", conns, got, want)
		}
	}
}

// newNamespace makes a namespace, or skips the test where that is not allowed.
func newNamespace(t *testing.T, buckets int) *Namespace {
	t.Helper()
	n, err := NewNamespace(buckets)
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(n.Leave)
	return n
}

func TestANamespaceHasATableOfItsOwn(t *testing.T) {
	before := sysctl(t, "net.ipv4.tcp_child_ehash_entries")
	n := newNamespace(t, 3000) // the kernel rounds up
	if n.Buckets != 4096 {
		t.Errorf("%d buckets", n.Buckets)
	}
	if after := sysctl(t, "net.ipv4.tcp_child_ehash_entries"); after != before {
		t.Errorf("tcp_child_ehash_entries was %s and is %s", before, after)
	}
	for range 2 { // it outlives a command
		var out bytes.Buffer
		cmd := exec.Command("cat", hashTable, "/proc/net/fib_trie")
		cmd.Stdout = &out
		if err := n.Start(cmd); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err != nil {
			t.Fatal(err)
		}
		if buckets, routes, _ := strings.Cut(out.String(), "\n"); buckets != "4096" || !strings.Contains(routes, "127.0.0.1") {
			t.Errorf("a table of %s buckets, and lo is not up: %s", buckets, routes)
		}
	}
}

// Programs that make namespaces at the same time restore the sysctl all the same.
func TestNamespacesThatAreMadeTogetherRestoreTheSysctl(t *testing.T) {
	newNamespace(t, 1024)
	before := sysctl(t, "net.ipv4.tcp_child_ehash_entries")
	together(16, func(int) {
		n, err := NewNamespace(2048)
		if err != nil {
			t.Error(err)
			return
		}
		if n.Buckets != 2048 {
			t.Errorf("%d buckets", n.Buckets)
		}
		n.Leave()
	})
	if after := sysctl(t, "net.ipv4.tcp_child_ehash_entries"); after != before {
		t.Errorf("tcp_child_ehash_entries was %s and is %s", before, after)
	}
}

func TestACommandThatCannotStartInANamespaceIsReported(t *testing.T) {
	n := newNamespace(t, 1024)
	if err := n.Start(exec.Command("/does/not/exist")); err == nil {
		t.Error("it started")
	}
}

func TestTheLargestScenarioIsKnown(t *testing.T) {
	for want, names := range map[int][]string{100_000: nil, 35_000: {"echo", "handshake"}, 1_000_000: {"echo", "broadcast-1m"}, 0: {"nothing"}} {
		if got := MostConns(names); got != want {
			t.Errorf("%q: %d, want %d", names, got, want)
		}
	}
}
