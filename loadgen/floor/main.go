// Command floor is a server to compare with. It does what any such server must
// do, which is accept, epoll, read and send, and nothing else: it answers every
// handshake with the bytes for the key of RFC 6455's example, and it copies
// payloads of less than 126 bytes without looking at them. What a real server
// costs more is the price of its features.
//
//	floor -listen 127.0.0.1:0 -mode echo|fanout -threads 2 -tables private
//
// `lull load --floor` speaks to it.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/seed-134acfd0/lull/netpoll"
)

const response = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
	"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"

// thread serves the connections that it accepts itself.
type thread struct {
	epoll, wake int
	open        []bool      // by descriptor: answered with 101
	full        atomic.Bool // its table has no descriptor left

	mu    sync.Mutex
	posts [][]byte // frames to send to all connections of this thread; guarded by mu
}

var (
	listener int
	echo     bool
	threads  []*thread
)

func main() {
	listen := flag.String("listen", "127.0.0.1:0", "address and port")
	mode := flag.String("mode", "echo", "echo or fanout")
	count := flag.Int("threads", runtime.NumCPU(), "number of threads")
	tables := netpoll.Private
	flag.TextVar(&tables, "tables", tables, "descriptor tables: shared or private")
	flag.Parse()
	echo = *mode == "echo"
	if err := run(*listen, *count, tables); err != nil {
		fmt.Fprintln(os.Stderr, "floor:", err)
		os.Exit(1)
	}
}

func run(listen string, count int, tables netpoll.Tables) error {
	l, err := netpoll.Listen(listen, 65535)
	if err != nil {
		return err
	}
	listener = l.FD
	for range count {
		wake, err := unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
		if err != nil {
			return err
		}
		threads = append(threads, &thread{wake: wake})
	}
	starter, err := netpoll.NewThreads(tables, count, listener)
	if err != nil {
		return err
	}
	failed := make(chan error)
	for _, t := range threads {
		if err := starter.Start(func() { failed <- t.run() }); err != nil {
			return err
		}
	}
	fmt.Println("listening on", l.Addr)
	return <-failed
}

func (t *thread) run() (err error) {
	if t.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return err
	}
	err = errors.Join(
		t.watch(listener, unix.EPOLLIN|unix.EPOLLEXCLUSIVE),
		t.watch(t.wake, unix.EPOLLIN|unix.EPOLLET))
	if err != nil {
		return err
	}
	events := make([]unix.EpollEvent, 256)
	buf := make([]byte, 64<<10)
	for {
		n, err := t.wait(events)
		if err != nil {
			return err
		}
		for i := range events[:n] {
			switch fd := int(events[i].Fd); fd {
			case listener:
				t.accept()
			case t.wake:
				t.fanOut()
				t.accept()
			default:
				t.serve(fd, buf)
			}
		}
	}
}

// wait asks epoll twice without waiting and lets other threads run after each,
// because that is cheaper than to sleep. Only then it sleeps.
func (t *thread) wait(events []unix.EpollEvent) (int, error) {
	for range 2 {
		n, _, _ := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(t.epoll), uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), 0, 0, 0)
		if n > 0 {
			return int(n), nil
		}
		netpoll.Yield()
	}
	n, err := unix.EpollWait(t.epoll, events, -1)
	if err == unix.EINTR {
		return 0, nil
	}
	return n, err
}

func (t *thread) watch(fd int, events uint32) error {
	return unix.EpollCtl(t.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: events, Fd: int32(fd)})
}

func (t *thread) accept() {
	for range 64 {
		fd, ok, err := netpoll.Accept(listener)
		if err != nil {
			t.leave()
		}
		if !ok || t.watch(fd, unix.EPOLLIN) != nil {
			return
		}
		for fd >= len(t.open) {
			t.open = append(t.open, make([]bool, 1024)...)
		}
	}
}

// leave stops watching the listener and wakes a thread that has descriptors left.
// The kernel has woken only this thread for the connection that it could not
// accept.
func (t *thread) leave() {
	if !t.full.Swap(true) {
		_ = unix.EpollCtl(t.epoll, unix.EPOLL_CTL_DEL, listener, nil)
	}
	for _, other := range threads {
		if !other.full.Load() {
			other.call()
			return
		}
	}
}

func (t *thread) call() { _, _ = unix.Write(t.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0}) }

func (t *thread) serve(fd int, buf []byte) {
	n, err := netpoll.Read(fd, buf)
	switch {
	case err != nil:
		t.open[fd] = false
		netpoll.Close(fd)
	case n == 0:
	case !t.open[fd]:
		t.open[fd] = true
		_, _ = netpoll.Write(fd, []byte(response))
	default:
		for in := buf[:n]; len(in) > 0; {
			in = t.message(fd, in)
		}
	}
}

// message sends one message back, or to all. A client's header is two bytes and
// a masking key, which is zero here. A server's header is two bytes, so message
// writes those in place of the key's last two.
func (t *thread) message(fd int, in []byte) (rest []byte) {
	end := 6 + int(in[1]&0x7f)
	in[4], in[5] = in[0], in[1]&0x7f
	if echo {
		_, _ = netpoll.Write(fd, in[4:end])
		return in[end:]
	}
	frame := append([]byte(nil), in[4:end]...)
	for _, other := range threads {
		other.post(frame)
	}
	return in[end:]
}

func (t *thread) post(frame []byte) {
	t.mu.Lock()
	t.posts = append(t.posts, frame)
	t.mu.Unlock()
	t.call()
}

func (t *thread) fanOut() {
	t.mu.Lock()
	posts := t.posts
	t.posts = nil
	t.mu.Unlock()
	for _, frame := range posts {
		for fd, open := range t.open {
			if open {
				_, _ = netpoll.Write(fd, frame)
			}
		}
	}
}
