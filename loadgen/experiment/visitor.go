package experiment

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"
)

// visitor is a client in a room. What is said there has a name, a number and a filling; each
// name numbers what it says from 1 on.
type visitor struct {
	conn net.Conn
	in   io.Reader

	done chan struct{} // closed when nothing more is read
	end  error         // why, then

	mu    sync.Mutex
	heard map[string]*heard // by the name of who has said it
}

// heard is what was heard of one speaker.
type heard struct {
	count int
	first int
	last  int
	wrong int // that came twice, or behind a later one
}

// visitTimeout is how long a node may take to let a client in, or to read from it.
const visitTimeout = 30 * time.Second

// visit opens a connection and reads from it.
func visit(ctx context.Context, url string) (*visitor, error) {
	conn, in, _, err := ws.Dialer{Timeout: visitTimeout}.Dial(ctx, url)
	if err != nil {
		return nil, fmt.Errorf("experiment: %s: %w", url, err)
	}
	v := &visitor{conn: conn, in: conn, heard: map[string]*heard{}, done: make(chan struct{})}
	if in != nil {
		v.in = in
	}
	go v.listen()
	return v, nil
}

func (v *visitor) listen() {
	defer close(v.done)
	rw := struct {
		io.Reader
		io.Writer
	}{v.in, v.conn}
	for {
		text, err := wsutil.ReadServerText(rw)
		if err == nil {
			err = v.hear(string(text))
		}
		if err != nil {
			v.end = err
			return
		}
	}
}

// hear counts a message.
func (v *visitor) hear(text string) error {
	name, rest, _ := strings.Cut(text, " ")
	digits, _, _ := strings.Cut(rest, " ")
	number, err := strconv.Atoi(digits)
	if err != nil {
		return fmt.Errorf("experiment: nobody has said %.100q", text)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	h := v.heard[name]
	if h == nil {
		h = &heard{first: number}
		v.heard[name] = h
	}
	if number <= h.last {
		h.wrong++
		return nil
	}
	h.count++
	h.last = number
	return nil
}

// of is what was heard of a speaker.
func (v *visitor) of(name string) heard {
	v.mu.Lock()
	defer v.mu.Unlock()
	if h := v.heard[name]; h != nil {
		return *h
	}
	return heard{}
}

// leave ends the connection and waits until nothing more is read.
func (v *visitor) leave() {
	_ = v.conn.SetWriteDeadline(time.Now().Add(time.Second))
	_ = wsutil.WriteClientMessage(v.conn, ws.OpClose, ws.NewCloseFrameBody(ws.StatusNormalClosure, "")) // fails if it has ended
	_ = v.conn.Close()
	<-v.done
}

// speaker publishes by a visitor.
type speaker struct {
	*visitor
	name string
	said atomic.Int64
	stop context.CancelFunc
	over chan struct{} // closed when it has ended
	why  error         // then; nil if it was stopped
}

// speak publishes messages of so many bytes at so many a second, until stopped.
func (v *visitor) speak(ctx context.Context, name string, perSecond float64, size int) *speaker {
	ctx, stop := context.WithCancel(ctx)
	s := &speaker{visitor: v, name: name, stop: stop, over: make(chan struct{})}
	go func() { s.why = s.run(ctx, perSecond, size); close(s.over) }()
	return s
}

func (s *speaker) run(ctx context.Context, perSecond float64, size int) error {
	began := time.Now()
	for {
		due := began.Add(time.Duration(float64(s.said.Load()) / perSecond * float64(time.Second)))
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(time.Until(due)):
		}
		if err := s.say(size); err != nil {
			return err
		}
	}
}

// say publishes one message.
func (s *speaker) say(size int) error {
	text := fmt.Appendf(nil, "%s %d ", s.name, s.said.Load()+1)
	text = append(text, slices.Repeat([]byte("x"), max(0, size-len(text)))...)
	_ = s.conn.SetWriteDeadline(time.Now().Add(visitTimeout)) // fails only on a closed socket
	if err := wsutil.WriteClientText(s.conn, text); err != nil {
		return fmt.Errorf("experiment: %s: %w", s.name, err)
	}
	s.said.Add(1)
	return nil
}

// hush ends speaking. The error is why it has ended before.
func (s *speaker) hush() error {
	s.stop()
	<-s.over
	return s.why
}

// until waits for what is to be so within a time. An error says why it is not so yet; with
// true, why it is not waited for any longer.
func until(ctx context.Context, within time.Duration, what string, is func() (bool, error)) error {
	for late := time.Now().Add(within); ; {
		ok, err := is()
		switch {
		case ok:
			return err
		case ctx.Err() != nil:
			return ctx.Err()
		case time.Now().After(late):
			return errors.Join(fmt.Errorf("experiment: not so within %s: %s", within, what), err)
		}
		wait(ctx, 10*time.Millisecond)
	}
}
