package cluster

import (
	"bufio"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	nats "github.com/nats-io/nats-server/v2/server"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/internal/natsd/natsdtest"
	"github.com/seed-134acfd0/lull/internal/testkit"
	"github.com/seed-134acfd0/lull/server"
)

// brisk is a pace for tests. Nobody dies, however busy the machine is.
var brisk = pace{beat: 20 * time.Millisecond, death: 2 * testkit.Patience, linger: 50 * time.Millisecond, quiet: 50 * time.Millisecond, greeting: 50 * time.Millisecond, confirm: testkit.Patience, resume: testkit.Patience}

// mortal lets a node take others for dead soon.
func mortal(o *Options) { o.pace.death = 500 * time.Millisecond }

// cautious lets a node wait for one that refuses it.
func cautious(o *Options) { o.pace.greeting = testkit.Patience }

// newBroker starts a NATS server that others run. Port 0 is a free one.
func newBroker(t testing.TB, port int, change func(*nats.Options)) *nats.Server {
	t.Helper()
	return natsdtest.Start(t, func(o *nats.Options) {
		if port != 0 {
			o.Port = port
		}
		if change != nil {
			change(o)
		}
	})
}

// fakeServer delivers to fake connections.
type fakeServer struct {
	node *Node

	mu    sync.Mutex
	conns map[string]map[*fakeConn]bool // by topic
	full  bool
	tried int

	forget bool // what was received

	changes chan liveness
}

// liveness is that a topic has members now, or has none any more.
type liveness struct {
	topic string
	live  bool
}

// tell tells the node of changes, on a goroutine of its own as a server does.
func (s *fakeServer) tell() {
	for c := range s.changes {
		s.node.TopicChanged(c.topic, c.live)
	}
}

func (s *fakeServer) Publish(topic string, op frame.Op, data []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tried++
	if s.full {
		return server.ErrBackpressure
	}
	if s.forget {
		return nil
	}
	for c := range s.conns[topic] {
		c.got = append(c.got, topic+" "+string(data))
	}
	return nil
}

func (s *fakeServer) setFull(full bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.full = full
}

// fakeConn is a subscriber.
type fakeConn struct {
	server *fakeServer
	got    []string // of server.mu
}

func (s *fakeServer) conn() *fakeConn { return &fakeConn{server: s} }

func (c *fakeConn) Publish(topic string, op frame.Op, data []byte) error {
	return c.server.Publish(topic, op, data)
}

func (c *fakeConn) Subscribe(topic string) error {
	s := c.server
	s.mu.Lock()
	first := len(s.conns[topic]) == 0
	if first {
		s.conns[topic] = map[*fakeConn]bool{}
	}
	s.conns[topic][c] = true
	if first {
		s.changes <- liveness{topic, true}
	}
	s.mu.Unlock()
	return nil
}

func (c *fakeConn) unsubscribe(topic string) {
	s := c.server
	s.mu.Lock()
	was := s.conns[topic][c]
	delete(s.conns[topic], c)
	last := was && len(s.conns[topic]) == 0
	if last {
		s.changes <- liveness{topic, false}
	}
	s.mu.Unlock()
}

func (c *fakeConn) received() []string {
	c.server.mu.Lock()
	defer c.server.mu.Unlock()
	return append([]string{}, c.got...)
}

// last is what was received last.
func (c *fakeConn) last() string {
	got := c.received()
	if len(got) == 0 {
		return ""
	}
	return got[len(got)-1]
}

// take takes away what was received.
func (c *fakeConn) take() {
	c.server.mu.Lock()
	defer c.server.mu.Unlock()
	c.got = nil
}

// place is a node with a fake server.
type place struct {
	*Node
	server *fakeServer

	mu     sync.Mutex
	losses []Loss
}

// join joins a cluster over a broker.
func join(t testing.TB, url, name string, change func(*Options)) *place {
	t.Helper()
	p, err := tryJoin(t, url, name, change)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func tryJoin(t testing.TB, url, name string, change func(*Options)) (*place, error) {
	p := &place{}
	o := Options{URL: url, Name: name, pace: brisk, Log: slog.New(slog.NewTextHandler(io.Discard, nil)), Lost: func(l Loss) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.losses = append(p.losses, l)
	}}
	if change != nil {
		change(&o)
	}
	var err error
	if p.Node, err = Join(t.Context(), o); err != nil {
		return nil, err
	}
	p.server = &fakeServer{node: p.Node, conns: map[string]map[*fakeConn]bool{}, changes: make(chan liveness, 1000)}
	go p.server.tell()
	t.Cleanup(func() { close(p.server.changes) })
	p.Bind(p.server)
	t.Cleanup(p.Leave)
	return p, nil
}

// lost is how many messages to a topic, or its shard, are said to be lost.
func (p *place) lost(topic string) (n uint64) {
	_, shard := p.subjects.of(topic)
	if shard >= 0 {
		topic = ""
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, l := range p.losses {
		if l.Topic == topic && l.Shard == shard {
			n += l.Messages
		}
	}
	return n
}

// subscribe subscribes a new connection to topics, and waits until that is confirmed.
func (p *place) subscribe(t testing.TB, topics ...string) *fakeConn {
	t.Helper()
	c := p.server.conn()
	done := make(chan bool, len(topics))
	for _, topic := range topics {
		if err := p.Node.subscribe(c, topic, func(confirmed bool) { done <- confirmed }); err != nil {
			t.Fatal(err)
		}
	}
	for range topics {
		if !<-done {
			t.Fatal("a subscription is not confirmed")
		}
	}
	return c
}

func (p *place) publish(t testing.TB, topic, text string) {
	t.Helper()
	if err := p.Publish(topic, frame.Text, []byte(text)); err != nil {
		t.Fatal(err)
	}
}

// meet waits until all nodes know each other.
func meet(t testing.TB, places ...*place) {
	t.Helper()
	for _, p := range places {
		testkit.Eventually(t, "the nodes know each other", func() bool { return len(p.Stats().Nodes) == len(places)-1 })
	}
}

// has waits until a connection has received texts, and nothing else.
func (c *fakeConn) has(t testing.TB, texts ...string) {
	t.Helper()
	testkit.Eventually(t, fmt.Sprintf("%q is there", texts), func() bool { return len(c.received()) >= len(texts) })
	if got := c.received(); strings.Join(got, "|") != strings.Join(texts, "|") {
		t.Fatalf("received %q, not %q", got, texts)
	}
}

// way is a TCP proxy between a node and its broker.
type way struct {
	listener net.Listener
	to       string

	mu     sync.Mutex
	more   sync.Cond
	silent bool // nothing passes
	conns  []net.Conn
	meddle func(subject string, message []byte) [][]byte // what a node gets in place of a message; nil is the message
}

func newWay(t testing.TB, to string) *way {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &way{listener: l, to: to}
	w.more.L = &w.mu
	go w.accept()
	t.Cleanup(func() {
		_ = l.Close()
		w.cut()
	})
	return w
}

func (w *way) url() string { return "nats://" + w.listener.Addr().String() }

func (w *way) accept() {
	for {
		c, err := w.listener.Accept()
		if err != nil {
			return
		}
		w.mu.Lock()
		silent := w.silent
		w.mu.Unlock()
		var b net.Conn
		if !silent {
			b, err = net.Dial("tcp", w.to)
		}
		if silent || err != nil {
			_ = c.Close()
			continue
		}
		w.mu.Lock()
		w.conns = append(w.conns, c, b)
		w.mu.Unlock()
		go w.copy(b, c)
		go w.bring(c, b)
	}
}

func (w *way) copy(to, from net.Conn) {
	defer func() { _, _ = to.Close(), from.Close() }()
	buffer := make([]byte, 16<<10)
	for {
		n, err := from.Read(buffer)
		if err != nil {
			return
		}
		w.mu.Lock()
		for w.silent {
			w.more.Wait()
		}
		w.mu.Unlock()
		if _, err := to.Write(buffer[:n]); err != nil {
			return
		}
	}
}

// bring copies what the broker sends, message by message.
func (w *way) bring(to, from net.Conn) {
	defer func() { _, _ = to.Close(), from.Close() }()
	r := bufio.NewReader(from)
	for {
		line, err := r.ReadBytes('\n')
		if err != nil {
			return
		}
		all := [][]byte{line}
		if fields := strings.Fields(string(line)); len(fields) > 0 && fields[0] == "MSG" {
			size, _ := strconv.Atoi(fields[len(fields)-1])
			message := append(line, make([]byte, size+2)...)
			if _, err := io.ReadFull(r, message[len(line):]); err != nil {
				return
			}
			all[0] = message
			w.mu.Lock()
			if w.meddle != nil {
				all = w.meddle(fields[1], message)
			}
			w.mu.Unlock()
		}
		w.mu.Lock()
		for w.silent {
			w.more.Wait()
		}
		w.mu.Unlock()
		for _, b := range all {
			if _, err := to.Write(b); err != nil {
				return
			}
		}
	}
}

// setMeddle sets what happens to messages.
func (w *way) setMeddle(meddle func(subject string, message []byte) [][]byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.meddle = meddle
}

// silence says whether what is sent stays where it is.
func (w *way) silence(silent bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.silent = silent
	w.more.Broadcast()
}

// again listens again where it has before.
func (w *way) again(t testing.TB) {
	t.Helper()
	l, err := net.Listen("tcp", w.listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	w.listener = l
	go w.accept()
	t.Cleanup(func() { _ = l.Close() })
}

// cut ends all connections.
func (w *way) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.conns {
		_ = c.Close()
	}
	w.conns = nil
	w.silent = false
	w.more.Broadcast()
}
