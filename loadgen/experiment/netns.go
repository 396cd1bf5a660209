package experiment

import (
	"errors"
	"fmt"
	"io/fs"
	"math/bits"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// The kernel looks up the socket of every packet in TCP's hash table. Where many
// sockets share a bucket, each packet takes longer. The table's size is fixed when
// the kernel boots, but since Linux 6.1 a new network namespace can have a table of
// its own (Documentation/networking/ip-sysctl.rst: tcp_child_ehash_entries).

const (
	hashTable      = "/proc/sys/net/ipv4/tcp_ehash_entries"       // negative where it is another namespace's
	childHashTable = "/proc/sys/net/ipv4/tcp_child_ehash_entries" // of namespaces that this one makes; 0 is to share the table
	bucketsMost    = 1 << 24                                      // the kernel allows no more
)

// Buckets is how many buckets a hash table needs, so that there is one for each
// socket when both ends of so many connections are in one namespace. The kernel
// makes tables of a power of two, of at most 16,777,216.
func Buckets(conns int) int {
	sockets := 2 * uint(min(max(1, conns), bucketsMost))
	return min(bucketsMost, 1<<bits.Len(sockets-1))
}

// HashTable is how many buckets the TCP hash table of the calling process's network
// namespace has; 0 if the kernel does not show it, before Linux 6.1.
func HashTable() int {
	n, _ := readNumber(hashTable) // 0 with an error
	return max(n, -n)
}

// Namespace is a network namespace with a TCP hash table of its own, and with a
// loopback interface that is up. It ends with the last of its processes.
type Namespace struct {
	Buckets int // of its hash table

	tasks chan func() error
	done  chan error
}

// NewNamespace makes a namespace whose hash table has at least so many buckets. It
// needs CAP_NET_ADMIN and CAP_SYS_ADMIN, a /proc/sys that is writable, and Linux 6.1.
// It sets a sysctl of the calling process's namespace while it makes the other one.
func NewNamespace(buckets int) (*Namespace, error) {
	n := &Namespace{tasks: make(chan func() error), done: make(chan error)}
	made := make(chan error)
	go n.live(buckets, made)
	if err := <-made; err != nil {
		return nil, err
	}
	return n, nil
}

// live makes the namespace and does there what is to be done. It never unlocks its thread,
// so the Go runtime ends the thread, which is in the namespace, with this goroutine.
func (n *Namespace) live(buckets int, made chan<- error) {
	runtime.LockOSThread()
	err := n.enter(buckets)
	made <- err
	if err != nil {
		return
	}
	for task := range n.tasks {
		n.done <- task()
	}
}

// do calls a function on a thread that is in the namespace.
func (n *Namespace) do(task func() error) error {
	n.tasks <- task
	return <-n.done
}

// Start starts a command in the namespace.
func (n *Namespace) Start(cmd *exec.Cmd) error { return n.do(cmd.Start) }

// Leave ends the thread that started the commands. A command whose Pdeathsig is set
// gets that signal then, so wait for it before.
func (n *Namespace) Leave() { close(n.tasks) }

// enter moves the calling thread to a new namespace.
func (n *Namespace) enter(buckets int) error {
	if err := unshareWithTable(buckets); err != nil {
		return err
	}
	own, err := readNumber(hashTable)
	switch {
	case err != nil:
		return err
	case own < buckets: // negative where the kernel had no memory for it
		return fmt.Errorf("experiment: the kernel made no hash table of %d buckets", buckets)
	}
	n.Buckets = own
	lo, err := netlink.LinkByName("lo")
	if err == nil {
		err = netlink.LinkSetUp(lo)
	}
	if err != nil {
		return fmt.Errorf("experiment: bring up lo in a network namespace: %w", err)
	}
	return nil
}

// unshareWithTable sets the size of a child's hash table, makes the child, and
// restores what the sysctl was.
func unshareWithTable(buckets int) (err error) {
	file, err := os.OpenFile(childHashTable, os.O_RDWR, 0) // remains the parent's
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return errors.New("experiment: a network namespace with a hash table of its own needs Linux 6.1")
	case err != nil:
		return fmt.Errorf("experiment: %w", err)
	}
	defer file.Close() // and unlock it
	// Another program that does the same must not take this one's size for what the
	// sysctl was.
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX); err != nil {
		return fmt.Errorf("experiment: lock %s: %w", childHashTable, err)
	}
	before, err := readNumber(childHashTable)
	if err != nil {
		return err
	}
	if _, err := file.WriteAt([]byte(strconv.Itoa(buckets)), 0); err != nil {
		return fmt.Errorf("experiment: set the size of a namespace's hash table: %w", err)
	}
	defer func() {
		if _, e := file.WriteAt([]byte(strconv.Itoa(before)), 0); e != nil {
			err = errors.Join(err, fmt.Errorf("experiment: restore net.ipv4.tcp_child_ehash_entries to %d: %w", before, e))
		}
	}()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("experiment: make a network namespace: %w", err)
	}
	return nil
}

func readNumber(path string) (int, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, fmt.Errorf("experiment: %w", err)
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return 0, fmt.Errorf("experiment: %s: %w", path, err)
	}
	return n, nil
}
