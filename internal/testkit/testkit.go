package testkit

import (
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Patience is how long a test waits for what must happen. It makes a broken
// program fail a test that would otherwise hang, and measures nothing.
const Patience = 30 * time.Second

// Eventually waits until ok is true.
func Eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(Patience); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

// Runner is a server.
type Runner interface {
	Run(context.Context) error
}

// Run runs a server until stop is called or the test ends, and ends it. stop
// returns what Run returned, as often as it is called; an error fails the test.
func Run(t testing.TB, ctx context.Context, s Runner) (stop func() error) {
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	stop = sync.OnceValue(func() error {
		cancel()
		return <-ended
	})
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Errorf("Run returned %v", err)
		}
	})
	return stop
}

// mark is set to the test's name in a process that AsProcess has started.
const mark = "LULL_TEST_PROCESS"

// AsProcess runs a test in a process of its own, so that it can change or count
// what a whole process has. It is false in that process.
func AsProcess(t *testing.T) bool {
	t.Helper()
	if os.Getenv(mark) == t.Name() {
		return false
	}
	var run []string
	for part := range strings.SplitSeq(t.Name(), "/") {
		run = append(run, "^"+part+"$")
	}
	cmd := exec.Command(os.Args[0], "-test.run="+strings.Join(run, "/"), "-test.v")
	cmd.Env = append(os.Environ(), mark+"="+t.Name())
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return true
}

// DeafDialer connects with a receive buffer that little fits into, and with
// segments so small that a server's send buffer does not grow to megabytes.
func DeafDialer() *net.Dialer {
	return &net.Dialer{Control: func(_, _ string, raw syscall.RawConn) (err error) {
		controlErr := raw.Control(func(fd uintptr) {
			err = errors.Join(
				syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 4<<10),
				syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_MAXSEG, 536))
		})
		return errors.Join(err, controlErr)
	}}
}
