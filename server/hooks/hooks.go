package hooks

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/base32"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/server"
)

// Hooks tells backends of a server's connections. New makes it; any goroutine may use it.
type Hooks struct {
	options  Options
	node     string     // what IDs of connections begin with, "-" included
	signer   *signer    // nil without a secret
	backends []*backend // those with the longest paths first
	ctx      context.Context
	end      context.CancelFunc

	names   *names
	numbers atomic.Uint64 // of calls
	aliases aliases
	greets  greetings
	noPath  atomic.Uint64 // handshakes for whose path there is no backend
	api     apiCounts
}

// New makes Hooks with its options.
func New(o Options) (*Hooks, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	h := &Hooks{options: o, node: newNode(o.Node), api: newAPICounts()}
	if h.names, err = newNames(); err != nil {
		return nil, err
	}
	if len(o.Secret) > 0 {
		h.signer = newSigner(o.Secret)
	}
	h.ctx, h.end = context.WithCancel(context.Background())
	sorted := slices.SortedStableFunc(slices.Values(o.Backends), func(a, b Backend) int {
		return cmp.Compare(len(b.Path), len(a.Path))
	})
	for i, to := range sorted {
		b, err := h.newBackend(uint8(i), to)
		if err != nil {
			return nil, fmt.Errorf("hooks: backend %q: %w", to.URL, err)
		}
		if i > 0 && sorted[i-1].Path == to.Path {
			return nil, fmt.Errorf("hooks: backend %q: there are two for path %q", to.URL, to.Path)
		}
		h.backends = append(h.backends, b)
	}
	return h, nil
}

func (h *Hooks) newBackend(index uint8, to Backend) (*backend, error) {
	t, err := parseTarget(to.URL)
	switch {
	case err != nil:
		return nil, err
	case to.Path != "" && !strings.HasPrefix(to.Path, "/"):
		return nil, fmt.Errorf("its path %q does not begin with /", to.Path)
	}
	o := &h.options
	t.roots = o.Roots
	b := &backend{
		index: index, path: strings.TrimSuffix(to.Path, "/"), url: to.URL, limit: o.Concurrency, timeout: o.Timeout, connectTimeout: o.ConnectTimeout, retries: o.Retries, batch: o.Batch, publisher: o.Publisher,
		log: o.Log, ctx: h.ctx, breaker: breaker{most: o.Failures}, turns: make(chan struct{}, o.Concurrency),
		granted: map[uint64]struct{}{}, held: map[uint64]*message{},
	}
	b.emptier.L, b.called.L = &b.mu, &b.mu
	if t.http2 {
		b.transport = newHTTP2(t, h.signer, o.MaxAnswer)
	} else {
		b.transport = newHTTP1(t, h.signer, o.MaxAnswer)
	}
	return b, nil
}

// newNode is what the IDs of a process's connections begin with. It has a random part, so
// that an ID of another process's connection is never taken for one of this.
func newNode(name string) string {
	var b [5]byte
	_, _ = rand.Read(b[:]) // it never fails
	random := strings.ToLower(base32.StdEncoding.EncodeToString(b[:]))
	if name != "" {
		name += "."
	}
	return name + random + "-"
}

// Handler is what the server has to call. Its Options.Mode has to be Workers, with as many
// as Workers says or more.
func (h *Hooks) Handler() server.Handler {
	return server.Handler{Upgrade: h.connect, Open: h.opened, Ready: h.ready, Deliver: h.deliver, Close: h.disconnect}
}

// Workers is how many workers the server needs (server.Options.Workers): messages need none,
// handshakes do while backends are asked.
func (h *Hooks) Workers() (n int) {
	for _, b := range h.backends {
		n += b.turnsMost()
	}
	return n
}

// Close tells the backends of all connections that have ended, until ctx ends, and then ends
// everything. It is called after the server's Run has returned. It returns ctx's error if
// there was not time enough; what was not told is counted in Stats.
func (h *Hooks) Close(ctx context.Context) (err error) {
	for _, b := range h.backends {
		err = cmp.Or(err, b.empty(ctx))
	}
	h.end()
	for _, b := range h.backends {
		b.close()
	}
	return err
}

// backendFor returns the backend of a path, nil if there is none.
func (h *Hooks) backendFor(path string) *backend {
	for _, b := range h.backends {
		if rest, ok := strings.CutPrefix(path, b.path); ok && (rest == "" || rest[0] == '/' || b.path == "") {
			return b
		}
	}
	return nil
}

// number is what a call is called. No two calls have the same.
func (h *Hooks) number() string { return h.node + strconv.FormatUint(h.numbers.Add(1), 36) }

// idOf is what a connection is called to the outside.
func (h *Hooks) idOf(id uint64) string {
	var hex [16]byte
	for i := range hex {
		hex[i] = "0123456789abcdef"[id>>(60-4*i)&15]
	}
	return h.node + string(hex[:])
}

// externalID is c's ID to the outside, of which n is the name.
func (h *Hooks) externalID(c server.Conn, n *name) string { return h.idOf(cmp.Or(n.id, c.ID())) }

// errNoConnection says that an ID is none of this process's open connections.
var errNoConnection = errors.New("there is no such connection")

// find returns the connection of an ID.
func (h *Hooks) find(s *server.Server, id string) (server.Conn, error) {
	rest, own := strings.CutPrefix(id, h.node)
	number, err := strconv.ParseUint(rest, 16, 64)
	if !own || err != nil || len(rest) != 16 {
		return server.Conn{}, errNoConnection
	}
	c, open := h.conn(s, number)
	if !open {
		return c, errNoConnection
	}
	return c, nil
}

// conn returns the connection that has a number in its ID to the outside.
func (h *Hooks) conn(s *server.Server, number uint64) (c server.Conn, open bool) {
	if isAlias(number) {
		number = h.aliases.get(number)
	}
	return s.Conn(number)
}

// connsOf iterates over a user's open connections.
func (h *Hooks) connsOf(s *server.Server, user string) iter.Seq[server.Conn] {
	return func(yield func(server.Conn) bool) {
		for _, number := range h.names.of(user) {
			if c, open := h.conn(s, number); open && !yield(c) {
				return
			}
		}
	}
}

// aliases are the IDs that connections have to the outside which came by way of net/http:
// they get their own only after the backend has been told. They are below 2^32, as no ID
// of a server is.
type aliases struct {
	last atomic.Uint32
	mu   sync.RWMutex
	ids  map[uint64]uint64 // guarded by mu
}

func isAlias(id uint64) bool { return id != 0 && id>>32 == 0 }

func (a *aliases) new() uint64 {
	for {
		if n := a.last.Add(1); n != 0 {
			return uint64(n)
		}
	}
}

func (a *aliases) set(alias, id uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.ids == nil {
		a.ids = map[uint64]uint64{}
	}
	a.ids[alias] = id
}

func (a *aliases) get(alias uint64) uint64 {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.ids[alias]
}

func (a *aliases) drop(alias uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.ids, alias)
}

// greetings are what connections that are about to open are sent first.
type greetings struct {
	mu   sync.Mutex
	byID map[uint64][]text // guarded by mu
}

// text is a message to a client.
type text struct {
	op   frame.Op
	data []byte
}

func (g *greetings) put(id uint64, texts []text) {
	if len(texts) == 0 {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.byID == nil {
		g.byID = map[uint64][]text{}
	}
	g.byID[id] = texts
}

func (g *greetings) take(id uint64) []text {
	g.mu.Lock()
	defer g.mu.Unlock()
	texts := g.byID[id]
	if texts != nil {
		delete(g.byID, id)
	}
	return texts
}
