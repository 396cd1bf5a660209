// Package testkit holds what tests of several packages need. Only tests import
// it.
package testkit

import (
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// DenyUnshare makes unshare(2) fail with EPERM in the whole process and in its
// children, as the default seccomp profiles of containers do. It cannot be
// undone, so a test calls it in a process of its own.
func DenyUnshare() error {
	const numberOfCall = 0 // the offset of nr in struct seccomp_data
	program := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: numberOfCall},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.SYS_UNSHARE, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	filter := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}

	runtime.LockOSThread() // both calls are about the same thread
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("testkit: PR_SET_NO_NEW_PRIVS: %w", err)
	}
	thread, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER,
		unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&filter)))
	switch {
	case errno != 0:
		return fmt.Errorf("testkit: install a seccomp filter: %w", errno)
	case thread != 0:
		return fmt.Errorf("testkit: thread %d does not accept the seccomp filter", thread)
	}
	return nil
}
