//go:build linux

package netpoll

import (
	"fmt"
	"math"

	"golang.org/x/sys/unix"
)

// DescriptorLimit returns how many descriptors one table may hold: the soft
// RLIMIT_NOFILE.
func DescriptorLimit() (int, error) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return 0, fmt.Errorf("netpoll: read RLIMIT_NOFILE: %w", err)
	}
	return int(min(limit.Cur, math.MaxInt32)), nil
}

// Reserve makes the calling thread's table large enough for n descriptors, or
// for as many as the soft RLIMIT_NOFILE allows. When a table that several
// threads share has to grow, the thread that needs the room waits for all the
// others, 6–19 ms for each doubling.
func Reserve(n int) {
	if limit, err := DescriptorLimit(); err == nil {
		n = min(n, limit-1)
	}
	if fd, err := unix.FcntlInt(0, unix.F_DUPFD_CLOEXEC, n); err == nil {
		_ = unix.Close(fd)
	}
}

// Available is nil where the package works.
func Available() error { return nil }
