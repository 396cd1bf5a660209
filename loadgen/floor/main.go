// Command floor is a server to compare with. It does what any such server must
// do, which is accept, epoll, read and send, and nothing else: it answers every
// handshake with the bytes for the key of RFC 6455's example, and it copies
// payloads of less than 126 bytes without looking at them. What a real server
// costs more is mostly the price of its features.
//
//	floor -listen 127.0.0.1:0 -mode echo|fanout -coalesce -threads 2 -tables private
//
// It sends each frame with a system call of its own, so where several frames wait
// for one connection, a server that sends them together takes less time than
// this one. With -coalesce the floor does so too.
//
// `lull load --floor` speaks to it.
package main

import (
	"bytes"
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
	joined      []byte      // the frames of one read, to be sent together
	pass        pass        // if frames are sent together

	mu    sync.Mutex
	posts [][]byte // frames to be sent to all connections of this thread; guarded by mu
}

var (
	listener int
	echo     bool
	coalesce bool // frames that wait for a connection are sent together
	threads  []*thread
)

func main() {
	listen := flag.String("listen", "127.0.0.1:0", "address and port")
	mode := flag.String("mode", "echo", "echo or fanout")
	flag.BoolVar(&coalesce, "coalesce", false, "send frames that wait for a connection together")
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
		t.pass.step(t.open)
	}
}

// wait asks epoll twice without waiting and lets other threads run after each,
// because that is cheaper than to sleep. Only then it sleeps, unless a pass is on
// its way.
func (t *thread) wait(events []unix.EpollEvent) (int, error) {
	for range 2 {
		n, _, _ := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(t.epoll), uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), 0, 0, 0)
		if n > 0 {
			return int(n), nil
		}
		if t.pass.left > 0 {
			return 0, nil
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
		t.messages(fd, buf[:n])
	}
}

// messages sends the messages of one read back, or to all.
func (t *thread) messages(fd int, in []byte) {
	joined := t.joined[:0]
	for len(in) > 0 {
		var frame []byte
		if frame, in = answer(in); coalesce {
			joined = append(joined, frame...)
		} else {
			send(fd, frame)
		}
	}
	if len(joined) > 0 {
		send(fd, joined)
	}
	t.joined = joined
}

// send sends frames back, or to all.
func send(fd int, frames []byte) {
	if echo {
		_, _ = netpoll.Write(fd, frames)
		return
	}
	frames = bytes.Clone(frames)
	for _, t := range threads {
		t.post(frames)
	}
}

// answer makes a client's first frame a server's, in its place, and returns what
// comes after it. A client's header is two bytes and a masking key, which is zero
// here. A server's header is two bytes, which are written in place of the key's last
// two.
func answer(in []byte) (frame, rest []byte) {
	end := 6 + int(in[1]&0x7f)
	in[4], in[5] = in[0], in[1]&0x7f
	return in[4:end], in[end:]
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
	for _, frames := range posts {
		if coalesce {
			t.pass.add(frames, len(t.open))
			continue
		}
		for fd, open := range t.open {
			if open {
				_, _ = netpoll.Write(fd, frames)
			}
		}
	}
}

// pass is on its way round the connections, and sends each all the frames that it
// lacks. Frames that come meanwhile go to the next connections together with those
// that are there.
type pass struct {
	frames []byte
	sent   []int // bytes of the frames, by descriptor
	next   int   // descriptor
	left   int   // how many descriptors may lack frames
}

// passSends is how many descriptors a pass looks at before the thread looks at its
// events again.
const passSends = 32

func (p *pass) add(frames []byte, descriptors int) {
	p.frames, p.left = append(p.frames, frames...), descriptors
}

func (p *pass) step(open []bool) {
	for range min(passSends, p.left) {
		p.next, p.left = (p.next+1)%len(open), p.left-1
		fd := p.next
		for fd >= len(p.sent) {
			p.sent = append(p.sent, make([]int, 1024)...)
		}
		if open[fd] && p.sent[fd] < len(p.frames) {
			_, _ = netpoll.Write(fd, p.frames[p.sent[fd]:])
		}
		p.sent[fd] = len(p.frames)
	}
	if p.left == 0 && len(p.frames) > 0 {
		p.frames = p.frames[:0]
		clear(p.sent)
	}
}
