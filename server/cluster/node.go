package cluster

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/seed-134acfd0/lull/frame"
)

// Errors of Join, Publish and Ready.
var (
	// ErrName says that another node of the cluster has the same name.
	ErrName = errors.New("cluster: another node has this name")
	// ErrVersion says that a node of the cluster speaks another version of the protocol.
	ErrVersion = errors.New("cluster: another node speaks another version of the protocol")
	// ErrAway says that the broker is away. Publish has delivered the message on this node,
	// and the others will not get it.
	ErrAway = errors.New("cluster: the broker is away")
	// ErrPersonal says that another node has other Options.Personal.
	ErrPersonal = errors.New("cluster: another node has other personal topics")
	// ErrFull says that the cluster has as many nodes as it may have, 1,001.
	ErrFull = errors.New("cluster: there are too many nodes")
	// ErrHistory says that another node keeps messages (Options.History) and this one does not,
	// or the other way round.
	ErrHistory = errors.New("cluster: one node keeps a history and the other does not")
	// ErrTooLarge says that a message is larger than Options.MaxMessage.
	ErrTooLarge = errors.New("cluster: the message is too large")
	// ErrLeft says that the node has left its cluster.
	ErrLeft = errors.New("cluster: the node has left")

	// ErrNoHistory says that nothing is kept of a topic.
	ErrNoHistory = errors.New("cluster: the topic has no history")
	// ErrPosition says that a text is no position.
	ErrPosition = errors.New("cluster: that is no position")

	errUnbound = errors.New("cluster: no server is bound to the node")
)

// Node is a server's place in a cluster. Join makes one; any goroutine may call its methods.
type Node struct {
	// constant after Join
	options  Options
	subjects *subjects
	id       uint64
	own      string // subject of hellos to this node
	inbox    string // subject of answers to it, and the beginning of others
	began    time.Time
	end      context.CancelFunc
	ended    chan struct{} // closed when all goroutines have ended
	out      chan struct{} // closed when the node takes no part any more

	// for any goroutine
	local  atomic.Pointer[Publisher]
	clock  clock
	counts counts
	order  [256]sync.Mutex // by hash of a topic: what is published here is in one order
	queue  *queue
	intake *intake
	crowd  *crowd
	past   *past
	store  *store
	ask    chan struct{} // there is something to ask, or to leave
	kick   chan struct{} // there is something to do with members or kept messages
	reads  chan struct{} // there is something to read from the stream
	losing sync.Mutex    // one loss is told at a time

	mu       sync.Mutex
	link     *link         // nil while the broker is away
	lost     error         // why it is
	lostAt   time.Duration // when it was lost
	refused  error         // why the node takes no part any more
	joined   bool
	left     bool
	strange  map[uint64]bool // nodes that the log has named, because this one cannot work with them
	peers    *peers
	interest *interest

	// owned by the goroutine that receives
	impatient bool // the server did not take a message for long; the next ones do not wait
}

// Publisher delivers on this node what is published: a server.Server, or something in front of
// one.
type Publisher interface {
	Publish(topic string, op frame.Op, data []byte) error
}

// conn is a connection: a server.Conn.
type conn interface {
	Publisher
	Subscribe(topic string) error
}

// Join connects to the broker and joins the cluster. It returns an error if the broker
// cannot be reached, refuses the node or does not suit, or if the cluster has a node of the
// same name (ErrName), of another version (ErrVersion) or with other Options.Personal
// (ErrPersonal), or too many nodes (ErrFull). ctx is for joining alone. Later
// the node keeps its place until Leave, however often the broker is lost.
//
// Messages to topics are delivered once a server is bound (Bind).
func Join(ctx context.Context, o Options) (*Node, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	n := &Node{
		options: o, subjects: newSubjects(o.Cluster, o.Personal), id: randomID(), began: time.Now(), ended: make(chan struct{}), out: make(chan struct{}),
		intake: newIntake(), ask: make(chan struct{}, 1), kick: make(chan struct{}, 1), reads: make(chan struct{}, 1), strange: map[uint64]bool{}, peers: newPeers(o.pace.death), interest: newInterest(),
	}
	n.own, n.inbox = n.subjects.node+hex(n.id), n.subjects.to+hex(n.id)
	n.store = &store{answers: n.inbox + ".stored."}
	n.queue = newQueue(n.id, o.Queue)
	if n.crowd, err = newCrowd(&n.options, n.id); err != nil {
		return nil, fmt.Errorf("cluster: %w", err)
	}
	if n.past, err = newPast(&n.options, n.id); err != nil {
		return nil, fmt.Errorf("cluster: %w", err)
	}
	working, stop := context.WithCancel(context.Background())
	var work sync.WaitGroup
	work.Go(func() { n.receive(working) })
	work.Go(func() { n.tick(working) })
	work.Go(func() { n.tellChanges(working.Done()) })
	l, err := n.connect(ctx)
	if err != nil {
		stop()
		work.Wait()
		return nil, err
	}
	n.begin(l)
	o.Log.Info("has joined the cluster", "cluster", o.Cluster, "node", o.Name, "nats", o.where())
	running, end := context.WithCancel(context.Background())
	n.end = end
	go func() {
		defer close(n.ended)
		n.keep(running, l)
		n.queue.close()
		stop()
		work.Wait()
		n.endPast()
	}()
	return n, nil
}

func randomID() uint64 {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return binary.BigEndian.Uint64(b[:])
}

// Bind says who delivers on this node what is published. It is called once, before the first Publish and Subscribe.
func (n *Node) Bind(to Publisher) { n.local.Store(&to) }

// now is the node's clock.
func (n *Node) now() time.Duration { return n.clock.now(time.Since(n.began)) }

// clock is a node's clock. While the process stands still it goes on for a second at most, so
// that nobody is taken for dead who was not heard. It is looked at four times a second or more
// often.
type clock struct {
	mu      sync.Mutex
	last    time.Duration // when it was looked at, by the machine's clock
	elapsed time.Duration
}

func (c *clock) now(machine time.Duration) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	if passed := machine - c.last; passed > 0 { // otherwise somebody was faster
		c.last = machine
		c.elapsed += min(passed, time.Second)
	}
	return c.elapsed
}

// connect connects to the broker, listens to the other nodes, and greets them.
func (n *Node) connect(ctx context.Context) (*link, error) {
	l, err := n.options.dial(n.intake, n.inbox, n.complain)
	if err != nil {
		return nil, err
	}
	listen := []string{n.subjects.nodes, n.own, n.subjects.ask, n.inbox}
	if n.options.Stream != nil {
		listen = append(listen, n.store.answers+"*")
	}
	for _, subject := range listen {
		if err == nil {
			_, err = l.nats.ChanSubscribe(subject, n.intake.messages)
		}
	}
	if err == nil && n.options.Stream != nil && !n.hasJoined() {
		err = n.openStream(ctx, l, true) // later that does not hold up the node
	}
	if err == nil {
		err = n.greet(ctx, l)
	}
	if err != nil {
		l.close()
		return nil, err
	}
	return l, nil
}

// greet says that the node is there, and waits a moment for those that have to say something
// about that.
func (n *Node) greet(ctx context.Context, l *link) error {
	h := n.hello()
	h.Back = n.hasJoined()
	h.Joining = !h.Back
	err := l.nats.Publish(n.subjects.nodes, encode(h))
	if err == nil {
		err = l.flush(dialTimeout)
	}
	if err == nil {
		err = l.nats.LastError() // the broker may have refused a subject
	}
	if err != nil {
		return fmt.Errorf("cluster: NATS at %s: %w", n.options.where(), err)
	}
	select {
	case <-time.After(n.options.pace.greeting):
	case <-n.out:
	case <-ctx.Done():
		return ctx.Err()
	}
	return n.isRefused()
}

func (n *Node) hasJoined() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.joined
}

// isRefused is why the node takes no part any more, or nil.
func (n *Node) isRefused() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.refused
}

func (n *Node) hello() hello {
	return hello{Protocol: protocol, ID: hex(n.id), Name: n.options.Name, Age: time.Since(n.began).Milliseconds(), Personal: n.options.Personal, History: n.options.History != nil, Stream: n.options.Stream != nil, Presence: n.beatOfCrowd()}
}

func encode(h hello) []byte {
	b, _ := json.Marshal(h) // there is nothing in it that has no JSON
	return b
}

// keep keeps the node connected until ctx ends. l is the first link.
func (n *Node) keep(ctx context.Context, l *link) {
	wait := retryMin
	var since time.Duration // when the broker was lost
	for ctx.Err() == nil {
		if why := n.isRefused(); why != nil {
			n.options.Log.Error("takes no part in the cluster any more", "error", why)
			n.queue.close()
			<-ctx.Done()
			return
		}
		if l == nil {
			// All nodes lose their broker at once. They come back one after the other.
			if !sleep(ctx, wait/2+mathrand.N(wait)) {
				return
			}
			var err error
			if l, err = n.connect(ctx); err != nil {
				n.away(err)
				wait = min(2*wait, retryMax)
				continue
			}
			n.begin(l)
			n.options.Log.Info("the broker is there again", "nats", n.options.where())
			n.counts.reconnects.Add(1)
			if n.now()-since > seriesLife {
				n.report([]Loss{{Shard: -1, Unsure: true}})
			}
		}
		wait = retryMin
		n.serve(ctx, l)
		l, since = nil, n.now()
	}
}

func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// away notes that the broker is away, and why.
func (n *Node) away(why error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.lost == nil || n.lost.Error() != why.Error() {
		n.options.Log.Warn("the broker is away: messages reach the clients of this node alone, trying on", "error", why)
	}
	n.lost = why
}

// begin takes up a link.
func (n *Node) begin(l *link) {
	if n.hasJoined() {
		n.store.again()
	}
	n.mu.Lock()
	n.joined, n.link, n.lost = true, l, nil
	n.interest.again()
	n.mu.Unlock()
	n.queue.setAway(false)
	n.doubtCrowd()
	n.doubtPast()
}

// serve uses a link until it or ctx ends.
func (n *Node) serve(ctx context.Context, l *link) {
	working, stop := context.WithCancel(context.Background())
	var all sync.WaitGroup
	all.Go(func() { n.write(working, l) })
	all.Go(func() { n.question(working, l) })
	all.Go(func() { n.beat(working, l) })
	if n.options.Stream != nil {
		all.Go(func() { n.attendStream(working, l) })
	}
	select {
	case <-l.ended:
	case <-ctx.Done():
		n.depart(l)
	}
	n.queue.setAway(true)
	n.mu.Lock()
	n.link, n.lostAt = nil, n.now()
	waiting := n.interest.drop()
	n.mu.Unlock()
	for _, w := range waiting {
		w.tell(false)
	}
	stop()
	l.cut()
	all.Wait()
	l.close()
	if ctx.Err() == nil {
		why := l.nats.LastError()
		if why == nil {
			why = errors.New("it has closed the connection")
		}
		n.away(why)
	}
}

// depart sends what waits, within a time, and the node's last word.
func (n *Node) depart(l *link) {
	for deadline := time.Now().Add(writeTimeout); time.Now().Before(deadline) && len(n.queue.first(1)) > 0; {
		select {
		case <-l.ended:
			return
		case <-time.After(time.Millisecond):
		}
	}
	h := n.hello()
	h.Leaving = true
	if l.nats.Publish(n.subjects.nodes, encode(h)) == nil {
		_ = l.flush(dialTimeout) // the others miss it after a while
	}
}

// write sends what waits in the queue.
func (n *Node) write(ctx context.Context, l *link) {
	for {
		letters := n.queue.first(writeBatch)
		for i := range letters {
			if err := n.send(l, &letters[i]); err != nil {
				n.queue.drop(i)
				l.cut()
				return
			}
			n.counts.sentBytes.Add(uint64(len(letters[i].data)))
		}
		n.queue.drop(len(letters))
		n.counts.sent.Add(uint64(len(letters)))
		if len(letters) > 0 && ctx.Err() == nil {
			continue
		}
		select {
		case <-ctx.Done():
			return
		case <-n.queue.more:
		}
	}
}

// send sends a letter: once, or to the stream, too.
func (n *Node) send(l *link, one *letter) error {
	if err := l.nats.Publish(one.subject, one.data); err != nil || one.stored == "" {
		return err
	}
	n.counts.stored.Add(1)
	n.counts.sent.Add(1)
	n.counts.sentBytes.Add(uint64(len(one.data)))
	return l.nats.PublishRequest(one.stored, n.store.question(n.now()), one.data)
}

// writeBatch is how many letters are taken from the queue at once.
const writeBatch = 256

// beat says hello.
func (n *Node) beat(ctx context.Context, l *link) {
	tick := time.NewTicker(n.options.pace.beat)
	defer tick.Stop()
	for {
		if l.nats.Publish(n.subjects.nodes, encode(n.hello())) != nil {
			l.cut()
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// question asks all living nodes how far they are, about what this node begins to follow,
// and leaves what it follows no more.
func (n *Node) question(ctx context.Context, l *link) {
	for {
		n.mu.Lock()
		left := n.interest.left
		n.interest.left = nil
		r := n.interest.next(l, n.peers.living, n.now())
		n.mu.Unlock()
		for _, f := range left {
			if f.link == l {
				_ = f.sub.Unsubscribe() // it fails only if the link has ended
			}
		}
		if r == nil {
			select {
			case <-ctx.Done():
				return
			case <-n.ask:
			}
			continue
		}
		if !n.put(l, r) {
			l.cut()
			return
		}
	}
}

// put subscribes to the subjects of a round, and asks.
func (n *Node) put(l *link, r *round) bool {
	suffixes := make([]string, len(r.follows))
	for i, f := range r.follows {
		suffixes[i] = n.subjects.suffix(f.subject)
		if f.link == l {
			continue
		}
		var err error
		if f.sub, err = l.nats.ChanSubscribe(f.subject, n.intake.messages); err != nil {
			return false
		}
		f.link = l
	}
	n.mu.Lock()
	for _, f := range r.follows {
		f.there = true
		for _, topic := range f.comes {
			n.attend(topic) // what is asked then comes behind the subscription
		}
		f.comes = nil
	}
	n.mu.Unlock()
	if len(r.missing) > 0 {
		return l.nats.Publish(n.subjects.ask, question(n.id, r.number, suffixes)) == nil
	}
	// Nobody is there to answer. The broker's word is enough.
	go func() {
		if l.flush(dialTimeout) == nil {
			n.mu.Lock()
			waiters := n.interest.prove(r)
			n.mu.Unlock()
			n.settle(waiters)
		}
	}()
	return true
}

// settle tells those that have waited for a round, and has the next one begin.
func (n *Node) settle(waiters []*waiter) {
	n.wake()
	for _, w := range waiters {
		w.tell(true)
	}
}

func (n *Node) wake() { nudge(n.ask) }

// nudge has somebody look who waits for c.
func nudge(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// tick does what is due, until ctx ends.
func (n *Node) tick(ctx context.Context) {
	tick := time.NewTicker(tickEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-n.kick:
			n.crowd.step(n)
			n.past.step(n)
			continue
		case <-tick.C:
		}
		n.due(n.now())
	}
}

func (n *Node) due(now time.Duration) {
	n.queue.tails(now, n.options.pace.quiet)
	n.mu.Lock()
	var waiters []*waiter
	dead, forgotten := n.peers.silent(now)
	for _, p := range dead {
		n.peers.leave(p.id)
		waiters = append(waiters, n.interest.gone(p.id)...)
		if n.link != nil { // otherwise nobody can be heard
			n.counts.died.Add(1)
		}
		n.options.Log.Warn("a node is dead: nothing was heard of it", "node", p.name, "for", n.options.pace.death)
	}
	for _, p := range forgotten {
		n.interest.forget(p.id)
	}
	n.interest.leave(now)
	n.interest.tidy(n.now())
	n.mu.Unlock()
	n.settle(waiters)
	for _, p := range dead {
		n.gone(p.id)
	}
	n.forgetPast()
	n.crowd.step(n)
	n.past.step(n)
	n.reportPast()
}

// step has members and kept messages attended to soon.
func (n *Node) step() { nudge(n.kick) }

// complain notes what NATS has to say.
func (n *Node) complain(err error) {
	if errors.Is(err, nats.ErrSlowConsumer) {
		n.counts.overruns.Add(1) // what is missing is found by its numbers
		return
	}
	n.options.Log.Warn("NATS", "error", err)
}

// Leave says goodbye: what was published is sent, within seconds, and the other nodes know
// at once that this one is gone. What is published here later is delivered here alone.
func (n *Node) Leave() {
	n.mu.Lock()
	n.left = true
	n.mu.Unlock()
	n.end()
	<-n.ended
}
