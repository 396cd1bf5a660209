package pusher

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/server"
	"github.com/seed-134acfd0/lull/server/cluster"
)

// Pusher speaks the protocol for a server. New makes it; any goroutine may use it.
type Pusher struct {
	options     Options
	node        string // what the IDs of sockets begin with, "." included
	began       time.Time
	apps        apps
	connections *connections
	channels    *channels
	cache       *cache
	history     *history
	counting    counting
	webhooks    *webhooks
	told        faultCounts
	counts      counts
	server      atomic.Pointer[server.Server]
	nodes       atomic.Pointer[cluster.Node] // nil without a cluster
	questions   questions

	end   chan struct{} // closed by Close
	ended sync.WaitGroup
}

// New makes a Pusher with its applications. Close has to be called at its end.
func New(o Options) (*Pusher, error) {
	p := &Pusher{options: o.withDefaults(), node: newNode(), began: time.Now(), told: make(faultCounts, len(faults)), end: make(chan struct{})}
	p.apps.byKey, p.apps.byID = map[string]*app{}, map[string]*app{}
	if err := p.apps.set(o.Apps); err != nil {
		return nil, fmt.Errorf("pusher: %w", err)
	}
	var err error
	if p.connections, err = newConnections(); err != nil {
		return nil, fmt.Errorf("pusher: %w", err)
	}
	if p.channels, err = newChannels(); err != nil {
		return nil, fmt.Errorf("pusher: %w", err)
	}
	p.cache = newCache(p.options.CacheBytes, p.options.CacheTime)
	p.history = newHistory(p.options.ResumeBytes)
	p.counting.due, p.counting.left = map[uint32]struct{}{}, map[string]*channel{}
	p.questions.waiting = map[uint64]*waiting{}
	p.webhooks = newWebhooks(&p.options)
	p.webhooks.set(p.apps.list())
	p.ended.Go(p.tellCounts)
	return p, nil
}

// newNode is what the IDs of a process's sockets begin with, so that none is ever one of another
// process's. The protocol wants two numbers with a dot in between.
func newNode() string {
	var b [4]byte
	_, _ = rand.Read(b[:]) // it never fails
	return strconv.FormatUint(uint64(binary.BigEndian.Uint32(b[:])), 10) + "."
}

// Handler is what the server has to call. Its Options.Mode has to be Inline.
func (p *Pusher) Handler() server.Handler {
	return server.Handler{Upgrade: p.upgrade, Open: p.opened, Message: p.message, Close: p.closed}
}

// Close tells webhooks what they were not told yet, until ctx ends, and then ends everything. It
// is called after the server's Run has returned. What was not told is counted in Stats.
func (p *Pusher) Close(ctx context.Context) {
	close(p.end)
	p.ended.Wait()
	p.webhooks.close(ctx)
}

// Reload replaces the applications: their connections stay. Those of applications that are not
// there any more, or disabled, are closed. It changes nothing if it returns an error.
func (p *Pusher) Reload(list []App) error {
	if err := p.apps.set(list); err != nil {
		return fmt.Errorf("pusher: %w", err)
	}
	p.webhooks.set(p.apps.list())
	s := p.server.Load()
	if s == nil {
		return nil
	}
	for c := range s.Conns() {
		if c.Tag()&refusedTag != 0 {
			continue
		}
		a := p.apps.of(c.Tag())
		if is := a.config.Load(); is == nil || is.Disabled {
			p.refuse(c, faultGone)
		}
	}
	return nil
}

// socketID is what a connection is called to the outside.
func (p *Pusher) socketID(c server.Conn) string { return p.node + strconv.FormatUint(c.ID(), 10) }

// isSocketID reports whether a text can be one: of this process or another.
func isSocketID(text string) bool {
	first, second, ok := strings.Cut(text, ".")
	return ok && isNumber(first) && isNumber(second)
}

func isNumber(text string) bool {
	_, err := strconv.ParseUint(text, 10, 64)
	return err == nil && len(text) <= 20
}

// connID returns the ID of the connection of this process that is called by a socket's ID, 0 if
// that is of another process.
func (p *Pusher) connID(socket string) uint64 {
	rest, own := strings.CutPrefix(socket, p.node)
	id, err := strconv.ParseUint(rest, 10, 64)
	if !own || err != nil {
		return 0
	}
	return id
}

// refuse tells a connection of a fault, and closes it.
func (p *Pusher) refuse(c server.Conn, f *fault) {
	p.tell(c, f)
	_ = c.Close(frame.Code(f.code), f.text) // an error means that it has ended
}

// tell tells a connection of a fault.
func (p *Pusher) tell(c server.Conn, f *fault) {
	p.told.add(f)
	p.send(c, event(eventError, "", struct {
		Code    int    `json:"code"`
		Message string `json:"message"`
	}{f.code, f.text}))
}

// send sends a connection an event. What a connection does not take that reads too slowly is
// dropped or closes it, as the server's OutboxPolicy says.
func (p *Pusher) send(c server.Conn, event []byte) {
	if c.Send(frame.Text, event) == server.ErrBackpressure {
		p.counts.unsent.Add(1)
	}
}

// counts are what is counted beside faults.
type counts struct {
	subscribed   atomic.Uint64 // subscriptions
	published    atomic.Uint64 // events by the API, once for each channel
	clientEvents atomic.Uint64
	unsent       atomic.Uint64 // events of the server that a connection did not take
	unanswered   atomic.Uint64 // questions that other nodes have not answered, or not to the end
	lost         atomic.Uint64 // changes of members, and counts, of which subscribers were not told
}
