package gate

import (
	"fmt"
	"hash/maphash"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Limits are how much one address, one prefix, and all together may have. The zero
// value limits nothing.
type Limits struct {
	Address Bound // of each IPv4 or IPv6 address
	Prefix  Bound // of all addresses that have their first bits in common
	Total   Pace  // handshakes of all together

	// PrefixBits4 and PrefixBits6 are how many first bits. Zero is 24 for IPv4 and 64
	// for IPv6: that is what one customer has at least, and they may take any of its
	// addresses. Many have a /56 or /48, so 48 is stricter with attackers and with
	// offices alike.
	PrefixBits4, PrefixBits6 int
}

// Bound is how much an address or a prefix may have.
type Bound struct {
	Conns      int  // open connections; zero is no limit
	Handshakes Pace // begun
}

func (b Bound) limited() bool { return b.Conns > 0 || b.Handshakes.limited() }

func (b Bound) check(what string) error {
	if b.Conns < 0 {
		return fmt.Errorf("gate: connections of %s are %d, and should be zero (no limit) or more", what, b.Conns)
	}
	return b.Handshakes.check("handshakes of " + what)
}

// Check returns an error if the limits make no sense.
func (l Limits) Check() error {
	for _, err := range []error{l.Address.check("an address"), l.Prefix.check("a prefix"), l.Total.check("handshakes in all")} {
		if err != nil {
			return err
		}
	}
	if l.PrefixBits4 < 0 || l.PrefixBits4 > 32 {
		return fmt.Errorf("gate: an IPv4 prefix of %d bits; 1 to 32 are possible, 24 are usual", l.PrefixBits4)
	}
	if l.PrefixBits6 < 0 || l.PrefixBits6 > 128 {
		return fmt.Errorf("gate: an IPv6 prefix of %d bits; 1 to 128 are possible, 64 are usual", l.PrefixBits6)
	}
	return nil
}

// Limiter enforces Limits. Any goroutine may use it. A nil Limiter lets everybody in.
//
// It keeps no record of addresses, only hashes under a random key, so nobody can
// choose addresses that collide. Its memory is bounded whoever comes from wherever:
//
//   - Connections are counted in maps that have an entry only for those who have a
//     connection open: about 20 bytes for an address and for a prefix. So there are
//     never more entries than connections, and no table that an attacker could fill.
//     Of a million addresses one in 4,000 shares its entry with another one.
//   - Handshakes are counted in sketches of a fixed size. An attacker with an IPv6 /32
//     has 2^32 prefixes of 64 bits and may use a new one for each handshake. Each has
//     its own pace and its own connections, so only a shorter prefix, Total and the
//     Gate hold them up. But they cannot push out anything that is known about others,
//     and nobody else is refused for it as long as no more handshakes a second are let
//     in than 65,536 times the pace of an address or a prefix. Total sees to that.
type Limiter struct {
	limits          Limits
	seed            maphash.Seed
	address, prefix level
	total, returns  *rate.Limiter // nil if there is no such limit
}

// level is what is known about addresses, or about prefixes.
type level struct {
	bound            Bound
	tooMany, tooFast Reason
	shards           [shards]shard
}

// shards is a power of two. Reactors seldom meet at one of 16.
const shards = 16

// shard is what is known about those whose hash ends in its number.
type shard struct {
	mu     sync.Mutex
	conns  map[uint32]uint32 // open, by key
	recent *sketch           // handshakes; nil if there is no such limit
	_      [104]byte         // the next one's lock has its own two cache lines
}

// Ticket says where a connection is counted. It takes 8 bytes, without pointers, and
// the zero value is that of a connection that is not counted.
type Ticket struct{ address, prefix uint32 }

const (
	connsWait   = 10 * time.Second // before another connection of an address may have ended
	returnsWait = time.Minute      // the longest after which those are told to return who were too many
)

// epoch is the moment that times are counted from, for rate.Limiter.
var epoch = time.Unix(0, 0)

// NewLimiter makes a Limiter. The sketches take 2 MiB for addresses and as much for
// prefixes, if their handshakes are limited.
func NewLimiter(l Limits) (*Limiter, error) {
	if err := l.Check(); err != nil {
		return nil, err
	}
	if l.PrefixBits4 == 0 {
		l.PrefixBits4 = 24
	}
	if l.PrefixBits6 == 0 {
		l.PrefixBits6 = 64
	}
	lim := &Limiter{limits: l, seed: maphash.MakeSeed()}
	lim.address.init(l.Address, AddressConns, AddressRate)
	lim.prefix.init(l.Prefix, PrefixConns, PrefixRate)
	if l.Total.limited() {
		lim.total = rate.NewLimiter(rate.Limit(l.Total.PerSecond), l.Total.burst())
		lim.returns = rate.NewLimiter(rate.Limit(l.Total.PerSecond), 1)
	}
	return lim, nil
}

// Counts reports whether open connections are counted, so that their tickets have to
// be kept.
func (l *Limiter) Counts() bool {
	return l != nil && (l.limits.Address.Conns > 0 || l.limits.Prefix.Conns > 0)
}

// Enter asks whether a client may begin a handshake and have a connection. If the
// verdict is OK, Leave has to follow once with the ticket. The address may be
// invalid, as that of a Unix socket is; then only Total counts.
//
// The narrowest limit is charged first, so what an address is refused is not taken from
// its prefix or from everybody. While nothing is left for anybody, nothing is charged.
func (l *Limiter) Enter(from netip.Addr, now time.Duration) (Ticket, Verdict) {
	if l == nil {
		return Ticket{}, Verdict{}
	}
	at := epoch.Add(now)
	if l.total != nil && l.total.TokensAt(at) < 1 {
		return Ticket{}, l.later(at)
	}
	t, v := l.enter(from, now)
	if v.OK() && l.total != nil && !l.total.AllowN(at, 1) {
		v = l.later(at)
	}
	if !v.OK() {
		l.Leave(t)
		return Ticket{}, v
	}
	return t, v
}

func (l *Limiter) enter(from netip.Addr, now time.Duration) (t Ticket, v Verdict) {
	if !from.IsValid() {
		return t, v
	}
	from = from.Unmap()
	if l.address.bound.limited() {
		if t.address, v = l.address.enter(l.hash(from), now); !v.OK() {
			return t, v
		}
	}
	if l.prefix.bound.limited() {
		t.prefix, v = l.prefix.enter(l.hash(l.prefixOf(from)), now)
	}
	return t, v
}

// later refuses those for whom nothing is left of Total. They are told to return one
// after the other, as fast as they will be let in.
func (l *Limiter) later(at time.Time) Verdict {
	place := l.returns.ReserveN(at, 1)
	wait := place.DelayFrom(at)
	if wait > returnsWait {
		place.CancelAt(at)
		wait = returnsWait
	}
	return Verdict{TotalRate, max(wait, time.Second)}
}

// Leave takes note that a connection is gone.
func (l *Limiter) Leave(t Ticket) {
	if l != nil {
		l.address.leave(t.address)
		l.prefix.leave(t.prefix)
	}
}

// Open is how many connections are counted for addresses and for prefixes. It takes
// the time of looking at all of them.
func (l *Limiter) Open() (byAddress, byPrefix int) { return l.address.open(), l.prefix.open() }

// prefixOf is the first address of an address's prefix.
func (l *Limiter) prefixOf(a netip.Addr) netip.Addr {
	bits := l.limits.PrefixBits6
	if a.Is4() {
		bits = l.limits.PrefixBits4
	}
	p, _ := a.Prefix(bits) // the number of bits was checked
	return p.Addr()
}

func (l *Limiter) hash(a netip.Addr) uint64 {
	b := a.As16()
	return maphash.Bytes(l.seed, b[:])
}

func (l *level) init(b Bound, tooMany, tooFast Reason) {
	l.bound, l.tooMany, l.tooFast = b, tooMany, tooFast
	for i := range l.shards {
		l.shards[i].conns = map[uint32]uint32{}
		if b.Handshakes.limited() {
			l.shards[i].recent = new(sketch)
		}
	}
}

// enter returns the key under which a connection is counted, zero if it is not.
func (l *level) enter(hash uint64, now time.Duration) (key uint32, v Verdict) {
	key = max(1, uint32(hash))
	s := l.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	open := 0
	if l.bound.Conns > 0 {
		if open = int(s.conns[key]); open >= l.bound.Conns {
			return 0, Verdict{l.tooMany, connsWait}
		}
	}
	if s.recent != nil {
		if wait := s.recent.tryTake(l.bound.Handshakes, hash, now); wait > 0 {
			return 0, Verdict{l.tooFast, wait}
		}
	}
	if l.bound.Conns == 0 {
		return 0, Verdict{}
	}
	s.conns[key] = uint32(open + 1)
	return key, Verdict{}
}

func (l *level) leave(key uint32) {
	if key == 0 {
		return
	}
	s := l.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	if open := s.conns[key]; open > 1 {
		s.conns[key] = open - 1
	} else {
		delete(s.conns, key)
	}
}

func (l *level) open() (n int) {
	for i := range l.shards {
		s := &l.shards[i]
		s.mu.Lock()
		for _, conns := range s.conns {
			n += int(conns)
		}
		s.mu.Unlock()
	}
	return n
}

func (l *level) shard(key uint32) *shard { return &l.shards[key%shards] }
