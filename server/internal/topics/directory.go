package topics

import (
	"errors"
	"hash/maphash"
	"sync"
	"sync/atomic"
	"unicode"
	"unicode/utf8"

	"github.com/seed-134acfd0/lull/internal/slab"
)

// Most is the most topics, and the most connections and subscriptions of a reactor: they
// are named by 24 bits.
const Most = slab.Uint24Max

// NameMax is the length of the longest name, in bytes.
const NameMax = 200

// What a Directory refuses.
var (
	ErrName = errors.New("server: a topic's name is 1 to 200 bytes of UTF-8 without control characters")
	ErrFull = errors.New("server: there are as many topics as Options.MaxTopics allows")
)

// Valid reports whether a topic can have a name.
func Valid(name string) bool {
	if name == "" || len(name) > NameMax || !utf8.ValidString(name) {
		return false
	}
	for _, r := range name {
		if unicode.IsControl(r) {
			return false
		}
	}
	return true
}

// Branch is a topic's part on one reactor. It names that topic as long as somebody
// refers to it: a subscription, or whoever was given it by Subscribe, Find or Hold
// and has not released it. It is 5 bytes.
type Branch struct {
	id      slab.Uint24
	reactor [2]byte // low byte first
}

// none ends a topic's branches.
var none Branch

// NewBranch is a reactor's branch by its ID.
func NewBranch(reactor int, id uint32) Branch {
	return Branch{slab.ToUint24(id), [2]byte{byte(reactor), byte(reactor >> 8)}}
}

// Reactor is whose branch it is.
func (b Branch) Reactor() int { return int(b.reactor[0]) | int(b.reactor[1])<<8 }

// ID is its number among the reactor's branches, not zero.
func (b Branch) ID() uint32 { return b.id.Uint32() }

// Directory knows a server's topics. A topic exists while one of its branches is
// referred to. Any goroutine may use it.
type Directory struct {
	// constant
	limit int // of topics
	seed  maphash.Seed
	told  bool // changes are kept for Tell

	subs atomic.Int64 // subscriptions

	mu       sync.Mutex
	topics   *slab.Records[topic]
	names    *slab.Bytes
	byName   *slab.Index
	branches []*slab.Records[branch] // of each reactor
	changed  []uint32
	wake     chan struct{} // there are changed topics
}

// topic is 24 bytes.
type topic struct {
	next  uint32 // of those whose hashes are alike
	hash  uint32
	name  uint32
	subs  atomic.Uint32 // subscriptions; lowered before the reference of each is given up
	first Branch        // zero if there are none
	size  uint8         // of the name
	flags flags
}

type flags uint8

const (
	flagUsed    flags = 1 << iota // the record is in use
	flagLive                      // was told to be live
	flagChanged                   // is in changed
)

// branch is 12 bytes.
type branch struct {
	refs  atomic.Uint32 // raised, and lowered to 0, under mu alone
	topic slab.Uint24   // constant while somebody refers to the branch
	next  Branch        // of the same topic
}

// NewDirectory reserves address space for so many topics, Most at the most, which costs no
// memory yet. If told, changes are kept for Tell.
func NewDirectory(limit, reactors int, told bool) (*Directory, error) {
	d := &Directory{limit: limit, seed: maphash.MakeSeed(), told: told, wake: make(chan struct{}, 1), branches: make([]*slab.Records[branch], reactors)}
	var errs [3]error
	d.topics, errs[0] = slab.NewRecords[topic](limit)
	d.names, errs[1] = slab.NewBytes(limit * slab.Cost(NameMax))
	d.byName, errs[2] = slab.NewIndex(limit)
	err := errors.Join(errs[:]...)
	for i := range d.branches {
		if err == nil {
			d.branches[i], err = slab.NewRecords[branch](limit)
		}
	}
	return d, err
}

// byHash are the topics as records of the Index.
type byHash struct{ *slab.Records[topic] }

func (t byHash) Hash(i uint32) uint64  { return uint64(t.At(i).hash) }
func (t byHash) Next(i uint32) *uint32 { return &t.At(i).next }

// Subscribe refers to a topic's branch of a reactor, and makes both if need be.
func (d *Directory) Subscribe(name string, reactor int) (Branch, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	i := d.find(name)
	if i == 0 {
		if i = d.add(name); i == 0 {
			return Branch{}, ErrFull
		}
	}
	t := d.topics.At(i)
	if b, ok := d.raise(t, reactor); ok {
		return b, nil
	}
	id := d.branches[reactor].Take() // there is one for each topic
	b := d.branches[reactor].At(id)
	b.topic, b.next = slab.ToUint24(i), t.first
	b.refs.Store(1)
	t.first = NewBranch(reactor, id)
	d.settle(i)
	return t.first, nil
}

// Find refers to a topic's branch of a reactor, if there is one.
func (d *Directory) Find(name string, reactor int) (Branch, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if i := d.find(name); i != 0 {
		return d.raise(d.topics.At(i), reactor)
	}
	return Branch{}, false
}

// Hold refers to all branches of a topic and appends them to to. There are none if
// nobody subscribes to it.
func (d *Directory) Hold(name string, to []Branch) []Branch {
	d.mu.Lock()
	defer d.mu.Unlock()
	if i := d.find(name); i != 0 {
		for b := d.topics.At(i).first; b != none; b = d.branch(b).next {
			d.branch(b).refs.Add(1)
			to = append(to, b)
		}
	}
	return to
}

// Release gives up references to branches.
func (d *Directory) Release(branches ...Branch) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, b := range branches {
		d.release(b)
	}
}

// lower gives up a reference that is not the last, without waiting for anybody.
func (d *Directory) lower(b Branch) (lowered bool) {
	refs := &d.branch(b).refs
	for n := refs.Load(); n > 1; n = refs.Load() {
		if refs.CompareAndSwap(n, n-1) {
			return true
		}
	}
	return false
}

// tryRelease is Release, unless somebody is using the Directory.
func (d *Directory) tryRelease(branches []Branch) bool {
	if !d.mu.TryLock() {
		return false
	}
	defer d.mu.Unlock()
	for _, b := range branches {
		d.release(b)
	}
	return true
}

// Name is the name of a branch's topic.
func (d *Directory) Name(b Branch) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.name(d.topic(b))
}

// Subscribers is how many subscriptions a topic has.
func (d *Directory) Subscribers(name string) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	if i := d.find(name); i != 0 {
		return int(d.topics.At(i).subs.Load())
	}
	return 0
}

// HasRoom reports whether topics exist or can be made.
func (d *Directory) HasRoom(names []string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	more := 0
	for _, name := range names {
		if d.find(name) == 0 {
			more++
		}
	}
	return more == 0 || d.topics.Used()+more <= d.limit
}

// Used is how many topics and subscriptions there are.
func (d *Directory) Used() (topics, subscriptions int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.topics.Used(), int(d.subs.Load())
}

// Listing is a topic and how many subscriptions it has.
type Listing struct {
	Name        string
	Subscribers int
}

// List appends topics that have at least so many subscribers, and one at the least, to
// to, of the next n records from a cursor on, which begins at zero. It returns the next
// cursor, zero at the end.
func (d *Directory) List(cursor uint32, n, least int, to []Listing) (next uint32, _ []Listing) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for ; n > 0 && cursor+1 < d.topics.High(); n-- {
		cursor++
		if t := d.topics.At(cursor); t.flags&flagUsed != 0 {
			if subs := int(t.subs.Load()); subs >= max(least, 1) {
				to = append(to, Listing{d.name(t), subs})
			}
		}
	}
	if cursor+1 >= d.topics.High() {
		cursor = 0
	}
	return cursor, to
}

// Tell calls changed for each topic that has become live, because it got its first
// subscriber, or is live no more. It returns when done is closed. What changes back
// before it was told is not told, so a slow changed hears less, and hears the truth
// last. Topics that were not told of yet count as existing.
func (d *Directory) Tell(done <-chan struct{}, changed func(name string, live bool)) {
	for {
		select {
		case <-done:
			return
		case <-d.wake:
		}
		for {
			name, live, ok := d.nextChange()
			if !ok {
				break
			}
			changed(name, live)
		}
	}
}

func (d *Directory) nextChange() (name string, live, ok bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for len(d.changed) > 0 {
		i := d.changed[0]
		d.changed = d.changed[1:]
		t := d.topics.At(i)
		t.flags &^= flagChanged
		if live = t.first != none; live != (t.flags&flagLive != 0) {
			t.flags ^= flagLive
			name, ok = d.name(t), true
		}
		d.settle(i)
		if ok {
			return name, live, true
		}
	}
	return "", false, false
}

// branch and topic are those of a Branch that the caller refers to.
func (d *Directory) branch(b Branch) *branch { return d.branches[b.Reactor()].At(b.ID()) }
func (d *Directory) topic(b Branch) *topic   { return d.topics.At(d.branch(b).topic.Uint32()) }

// The methods below need mu.

func (d *Directory) release(at Branch) {
	b := d.branch(at)
	if b.refs.Add(^uint32(0)) > 0 {
		return
	}
	i := b.topic.Uint32()
	link := &d.topics.At(i).first
	for *link != at {
		link = &d.branch(*link).next
	}
	*link = b.next
	d.branches[at.Reactor()].Put(at.ID())
	d.settle(i)
}

// settle frees a topic that nobody needs any more, or lists it as changed.
func (d *Directory) settle(i uint32) {
	t := d.topics.At(i)
	live := t.first != none
	switch {
	case t.flags&flagChanged != 0:
	case d.told && live != (t.flags&flagLive != 0):
		t.flags |= flagChanged
		d.changed = append(d.changed, i)
		select {
		case d.wake <- struct{}{}:
		default:
		}
	case !live:
		d.remove(i)
	}
}

// raise refers to a topic's branch of a reactor, if there is one.
func (d *Directory) raise(t *topic, reactor int) (Branch, bool) {
	for b := t.first; b != none; b = d.branch(b).next {
		if b.Reactor() == reactor {
			d.branch(b).refs.Add(1)
			return b, true
		}
	}
	return Branch{}, false
}

func (d *Directory) hash(name string) uint32 { return uint32(maphash.String(d.seed, name)) }

func (d *Directory) find(name string) uint32 {
	hash := d.hash(name)
	for i := d.byName.First(uint64(hash)); i != 0; i = d.topics.At(i).next {
		if t := d.topics.At(i); t.hash == hash && int(t.size) == len(name) && d.names.HasPrefix(t.name, name) {
			return i
		}
	}
	return 0
}

// add adds a topic. It returns 0 if there is no room.
func (d *Directory) add(name string) uint32 {
	i := d.topics.Take()
	if i == 0 {
		return 0
	}
	at, _ := d.names.Put([]byte(name)) // there is room for a name of each topic
	t := d.topics.At(i)
	t.hash, t.name, t.size, t.flags = d.hash(name), at, uint8(len(name)), flagUsed
	d.byName.Add(i, byHash{d.topics})
	return i
}

func (d *Directory) remove(i uint32) {
	d.byName.Remove(i, byHash{d.topics})
	d.names.Free(d.topics.At(i).name)
	d.topics.Put(i)
}

func (d *Directory) name(t *topic) string {
	return string(d.names.Append(nil, t.name, 0, int(t.size)))
}
