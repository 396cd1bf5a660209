package experiment

import (
	"net"
	"sync"
	"time"
)

// slowLink is a TCP proxy that delays what it passes on and lets little through. It stands for
// a slow way where the kernel cannot make one.
type slowLink struct {
	listener net.Listener
	to       string
	delay    time.Duration
	rate     float64 // bytes a second, in each direction

	work  sync.WaitGroup
	eased chan struct{} // closed when it is not slow any more

	mu    sync.Mutex
	conns []net.Conn
	ended bool
}

// slowBuffer is how many bytes of a direction are on their way at most, beside those in the
// kernel's buffers.
const slowBuffer = 64 << 10

// newSlowLink listens at an address, which may have port 0.
func newSlowLink(address, to string, delay time.Duration, rate float64) (*slowLink, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, err
	}
	s := &slowLink{listener: l, to: to, delay: delay, rate: rate, eased: make(chan struct{})}
	s.work.Go(s.accept)
	return s, nil
}

func (s *slowLink) addr() string { return s.listener.Addr().String() }

func (s *slowLink) accept() {
	for {
		near, err := s.listener.Accept()
		if err != nil {
			return
		}
		far, err := net.DialTimeout("tcp", s.to, startTimeout)
		if err != nil {
			_ = near.Close()
			continue
		}
		s.mu.Lock()
		s.conns = append(s.conns, near, far)
		ended := s.ended
		s.mu.Unlock()
		if ended {
			_, _ = near.Close(), far.Close()
			return
		}
		for _, c := range []net.Conn{near, far} { // so that the sender notices how slow it is
			_ = c.(*net.TCPConn).SetReadBuffer(slowBuffer)
			_ = c.(*net.TCPConn).SetWriteBuffer(slowBuffer)
		}
		s.work.Go(func() { s.pass(far, near) })
		s.work.Go(func() { s.pass(near, far) })
	}
}

// packet is what was read at once, and when.
type packet struct {
	data []byte
	at   time.Time
}

// pass passes on what comes from one connection to the other, and ends both.
func (s *slowLink) pass(to, from net.Conn) {
	const piece = 4 << 10
	packets := make(chan packet, slowBuffer/piece)
	ended := make(chan struct{})
	go func() {
		defer close(packets)
		for {
			b := make([]byte, piece)
			n, err := from.Read(b)
			if err != nil {
				return
			}
			select {
			case packets <- packet{b[:n], time.Now()}:
			case <-ended:
				return
			}
		}
	}()
	var due time.Time // when the last one has passed
	for p := range packets {
		due = s.due(due, p)
		select {
		case <-time.After(time.Until(due)):
		case <-s.eased:
		}
		if _, err := to.Write(p.data); err != nil {
			break
		}
	}
	close(ended)
	_, _ = to.Close(), from.Close()
}

// due is when a packet has passed that comes behind one that passes at last.
func (s *slowLink) due(last time.Time, p packet) time.Time {
	arrives := p.at.Add(s.delay)
	if last.After(arrives) {
		arrives = last
	}
	return arrives.Add(time.Duration(float64(len(p.data)) / s.rate * float64(time.Second)))
}

// ease ends the slowness.
func (s *slowLink) ease() { close(s.eased) }

// close ends all connections.
func (s *slowLink) close() {
	_ = s.listener.Close()
	s.mu.Lock()
	s.ended = true
	for _, c := range s.conns {
		_ = c.Close()
	}
	s.mu.Unlock()
	s.work.Wait()
}
