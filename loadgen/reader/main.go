// Command reader receives broadcasts with nothing but epoll and reads, to compare a load
// generator with: it opens connections, sends messages on one of them, each when the one
// before has reached all, and counts the bytes that come. It looks at none of them.
//
//	reader -addr 127.0.0.1:8080 -conns 15000 -messages 50
//
// It prints a line of JSON: frames received, and the processor seconds that this process
// spent on them.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/netpoll"
)

// frameSize is the length of a frame as the server sends it, with a payload of size bytes.
const (
	size      = 32
	frameSize = 2 + size
)

var (
	received atomic.Int64 // bytes of frames
	wanted   atomic.Int64 // until all have the message that was sent last
	reached  = make(chan struct{}, 1)
)

func main() {
	addr := flag.String("addr", "127.0.0.1:8080", "address and port of a chat server")
	conns := flag.Int("conns", 15_000, "number of connections")
	messages := flag.Int("messages", 50, "number of messages")
	threads := flag.Int("threads", runtime.NumCPU(), "number of threads")
	flag.Parse()
	if err := run(*addr, *conns, *messages, *threads); err != nil {
		fmt.Fprintln(os.Stderr, "reader:", err)
		os.Exit(1)
	}
}

func run(addr string, conns, messages, threads int) error {
	to, err := netip.ParseAddrPort(addr)
	if err != nil {
		return err
	}
	sets, first := make([]*set, threads), 0
	for i := range sets {
		if sets[i], err = newSet(); err != nil {
			return err
		}
	}
	for i := range conns {
		fd, err := connect(to)
		if err != nil {
			return fmt.Errorf("connection %d: %w", i, err)
		}
		if i == 0 {
			first = fd
		}
		if err := sets[i%threads].add(fd); err != nil {
			return err
		}
	}
	for _, s := range sets {
		go s.read()
	}
	message := frame.AppendMasked(nil, frame.Binary, [4]byte{}, make([]byte, size))
	before, begun := spent(), time.Now()
	for range messages {
		wanted.Add(int64(conns * frameSize))
		if _, err := unix.Write(first, message); err != nil {
			return err
		}
		select {
		case <-reached:
		case <-time.After(time.Minute):
			return errors.New("a message did not reach all connections within a minute")
		}
	}
	return json.NewEncoder(os.Stdout).Encode(map[string]float64{
		"frames": float64(conns * messages), "cpu_seconds": (spent() - before).Seconds(), "seconds": time.Since(begun).Seconds(),
	})
}

// connect opens a connection and its handshake, and then makes its socket not block.
func connect(to netip.AddrPort) (fd int, err error) {
	if fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
		return -1, err
	}
	if err := unix.Connect(fd, &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}); err != nil {
		return -1, err
	}
	if _, err := unix.Write(fd, frame.AppendRequest(nil, to.String(), "/", frame.SampleKey)); err != nil {
		return -1, err
	}
	var head []byte
	for buf := make([]byte, 1024); !bytes.HasSuffix(head, []byte("\r\n\r\n")); {
		n, err := unix.Read(fd, buf)
		if err != nil || n == 0 {
			return -1, fmt.Errorf("the server ended the handshake: %v", err)
		}
		head = append(head, buf[:n]...)
	}
	return fd, unix.SetNonblock(fd, true)
}

// set is the connections of one thread, and their epoll set.
type set struct {
	poller *netpoll.Poller
	fds    []int // by the slot in their tokens
}

func newSet() (*set, error) {
	waker, err := netpoll.NewWaker()
	if err != nil {
		return nil, err
	}
	poller, err := netpoll.NewPoller(waker)
	return &set{poller: poller}, err
}

func (s *set) add(fd int) error {
	token := netpoll.Token{Slot: uint32(len(s.fds)), Gen: 1}
	s.fds = append(s.fds, fd)
	return s.poller.Add(fd, token, netpoll.In|netpoll.EdgeTriggered)
}

// read reads what comes, for ever.
func (s *set) read() {
	runtime.LockOSThread()
	buf := make([]byte, 64<<10)
	for {
		events, err := s.poller.Wait(-1)
		if err != nil {
			fmt.Fprintln(os.Stderr, "reader:", err)
			os.Exit(1)
		}
		got := 0
		for i := range events {
			if n, err := netpoll.Read(s.fds[events[i].Token().Slot], buf); err == nil {
				got += n
			}
		}
		if got > 0 && received.Add(int64(got)) == wanted.Load() {
			reached <- struct{}{}
		}
		if len(events) > 0 {
			netpoll.Yield()
		}
	}
}

// spent is how much processor time this process has used.
func spent() time.Duration {
	var u unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &u) // cannot fail for the own process
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
