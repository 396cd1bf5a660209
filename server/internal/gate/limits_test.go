package gate

import (
	"math/rand/v2"
	"net/netip"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"
)

var someone = netip.MustParseAddr("192.0.2.1")

func limiter(t testing.TB, l Limits) *Limiter {
	t.Helper()
	lim, err := NewLimiter(l)
	if err != nil {
		t.Fatal(err)
	}
	return lim
}

func TestLimits(t *testing.T) {
	slow := Pace{PerSecond: 1, Burst: 2}
	for name, test := range map[string]struct {
		limits Limits
		from   []string
		want   []Reason
	}{
		"nothing is limited": {Limits{}, []string{"192.0.2.1", "192.0.2.1", "::1", ""}, []Reason{0, 0, 0, 0}},
		"connections of an address": {Limits{Address: Bound{Conns: 1}},
			[]string{"192.0.2.1", "192.0.2.1", "192.0.2.2", "::ffff:192.0.2.1"}, []Reason{0, AddressConns, 0, AddressConns}},
		"connections of an IPv4 prefix": {Limits{Prefix: Bound{Conns: 2}},
			[]string{"192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.3.1"}, []Reason{0, 0, PrefixConns, 0}},
		"connections of an IPv6 prefix": {Limits{Prefix: Bound{Conns: 1}},
			[]string{"2001:db8::1", "2001:db8::2:1", "2001:db8:0:1::1", "fe80::1%eth0", "fe80::2"}, []Reason{0, PrefixConns, 0, 0, PrefixConns}},
		"other prefixes": {Limits{Prefix: Bound{Conns: 1}, PrefixBits4: 16, PrefixBits6: 32},
			[]string{"192.0.2.1", "192.0.3.1", "2001:db8::1", "2001:db8:1::1"}, []Reason{0, PrefixConns, 0, PrefixConns}},
		"handshakes of an address": {Limits{Address: Bound{Handshakes: slow}},
			[]string{"192.0.2.1", "192.0.2.1", "192.0.2.1", "192.0.2.2"}, []Reason{0, 0, AddressRate, 0}},
		"handshakes of a prefix": {Limits{Prefix: Bound{Handshakes: slow}},
			[]string{"192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.3.2"}, []Reason{0, 0, PrefixRate, 0}},
		"handshakes in all": {Limits{Total: slow}, []string{"192.0.2.1", "", "::1"}, []Reason{0, 0, TotalRate}},
		"an address takes nothing from its prefix when it is refused": {Limits{Address: Bound{Conns: 1}, Prefix: Bound{Conns: 2, Handshakes: slow}, Total: slow},
			[]string{"192.0.2.1", "192.0.2.1", "192.0.2.1", "192.0.2.2"}, []Reason{0, AddressConns, AddressConns, 0}},
		"a Unix socket has no address": {Limits{Address: Bound{1, slow}, Prefix: Bound{1, slow}}, []string{"", "", ""}, []Reason{0, 0, 0}},
	} {
		lim := limiter(t, test.limits)
		for i, text := range test.from {
			from, _ := netip.ParseAddr(text)
			if _, v := lim.Enter(from, 0); v.Reason != test.want[i] {
				t.Errorf("%s: number %d from %q: %q, want %q", name, i, text, v.Reason, test.want[i])
			}
		}
	}
	var none *Limiter
	if ticket, v := none.Enter(someone, 0); !v.OK() || none.Counts() {
		t.Error("no Limiter is a limit")
	} else {
		none.Leave(ticket)
	}
}

func TestRefusalsSayWhenToComeBack(t *testing.T) {
	lim := limiter(t, Limits{Address: Bound{Handshakes: Pace{PerSecond: 0.1, Burst: 1}}})
	lim.Enter(someone, 0)
	_, v := lim.Enter(someone, 2*time.Second)
	if v.Wait != 8*time.Second || v.Reason.Status() != 429 || v.Reason.Text() == "" {
		t.Errorf("%+v", v)
	}
	seen := map[int]bool{}
	for range 1000 {
		seen[v.RetryAfter()] = true
	}
	for s := range seen {
		if s < 8 || s > 13 {
			t.Errorf("Retry-After: %d", s)
		}
	}
	if len(seen) < 5 {
		t.Errorf("Retry-After is one of %v", seen)
	}
	if _, v := lim.Enter(someone, 2*time.Second+v.Wait); !v.OK() {
		t.Error("it came back when it was told to, and was refused")
	}
}

// A thousand come at once where ten a second are let in.
func TestAStormIsToldToReturnOneAfterAnother(t *testing.T) {
	lim := limiter(t, Limits{Total: Pace{PerSecond: 10, Burst: 1}})
	lim.Enter(someone, 0)
	returning := map[time.Duration]int{} // by second
	for range 1000 {
		_, v := lim.Enter(someone, 0)
		returning[v.Wait.Truncate(time.Second)]++
		if v.Reason.Status() != 503 || v.Wait > time.Minute {
			t.Fatalf("%+v", v)
		}
	}
	for at := 2 * time.Second; at < 59*time.Second; at += time.Second {
		if n := returning[at]; n < 9 || n > 11 {
			t.Errorf("%d are told to return after %v", n, at)
		}
	}
}

func TestWhereNothingIsLeftForAnybodyNothingIsCharged(t *testing.T) {
	once := Bound{Conns: 1, Handshakes: Pace{PerSecond: 0.001, Burst: 1}}
	lim := limiter(t, Limits{Address: once, Total: Pace{PerSecond: 1, Burst: 1}})
	lim.Enter(netip.IPv6Loopback(), 0)
	for range 10 {
		if _, v := lim.Enter(someone, 0); v.Reason != TotalRate {
			t.Fatal(v.Reason)
		}
	}
	if _, v := lim.Enter(someone, time.Second); !v.OK() {
		t.Error(v.Reason)
	}
}

// The limiter and obvious maps agree about random connections that come and go.
func TestLimiterAgainstAModel(t *testing.T) {
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 1))
		limits := Limits{
			Address: Bound{Conns: r.IntN(4), Handshakes: Pace{float64(r.IntN(3)), 1 + r.IntN(3)}},
			Prefix:  Bound{Conns: r.IntN(9), Handshakes: Pace{float64(r.IntN(5)), 1 + r.IntN(9)}},
		}
		lim := limiter(t, limits)
		model := newModel(limits)
		type open struct {
			from   netip.Addr
			ticket Ticket
		}
		var conns []open
		var now time.Duration
		for range 5000 {
			now += time.Duration(r.IntN(int(100 * time.Millisecond)))
			if len(conns) > 0 && r.IntN(2) == 0 {
				i := r.IntN(len(conns))
				lim.Leave(conns[i].ticket)
				model.leave(conns[i].from)
				conns[i] = conns[len(conns)-1]
				conns = conns[:len(conns)-1]
				continue
			}
			from := netip.AddrFrom4([4]byte{10, 0, byte(r.IntN(3)), byte(r.IntN(4))})
			want := model.enter(from, now)
			ticket, v := lim.Enter(from, now)
			if v.Reason != want {
				t.Fatalf("seed %d, %+v: %v at %v: %q, want %q", seed, limits, from, now, v.Reason, want)
			}
			if v.OK() {
				conns = append(conns, open{from, ticket})
			}
		}
		for _, c := range conns {
			lim.Leave(c.ticket)
		}
		if a, p := lim.Open(); a != 0 || p != 0 || lim.entries() != 0 {
			t.Errorf("seed %d: %d and %d are left, in %d entries", seed, a, p, lim.entries())
		}
	}
}

// model is Limits with a map for everything, and tokens that are counted.
type model struct {
	limits  Limits
	conns   map[netip.Prefix]int
	buckets map[netip.Prefix]tokens
}

type tokens struct {
	n  float64
	at time.Duration
}

func newModel(l Limits) *model {
	return &model{l, map[netip.Prefix]int{}, map[netip.Prefix]tokens{}}
}

func (m *model) enter(from netip.Addr, now time.Duration) Reason {
	address, prefix := netip.PrefixFrom(from, 32), netip.PrefixFrom(from, 24).Masked()
	if why := m.take(address, m.limits.Address, now, AddressConns, AddressRate); why != Admitted {
		return why
	}
	if why := m.take(prefix, m.limits.Prefix, now, PrefixConns, PrefixRate); why != Admitted {
		m.conns[address]--
		return why
	}
	return Admitted
}

func (m *model) take(key netip.Prefix, b Bound, now time.Duration, tooMany, tooFast Reason) Reason {
	if b.Conns > 0 && m.conns[key] >= b.Conns {
		return tooMany
	}
	if p := b.Handshakes; p.PerSecond > 0 {
		have, known := m.buckets[key]
		if !known {
			have.n = float64(p.Burst)
		}
		have.n = min(float64(p.Burst), have.n+p.PerSecond*(now-have.at).Seconds())
		have.at = now
		m.buckets[key] = have
		if have.n < 1-1e-6 {
			return tooFast
		}
		have.n--
		m.buckets[key] = have
	}
	m.conns[key]++
	return Admitted
}

func (m *model) leave(from netip.Addr) {
	m.conns[netip.PrefixFrom(from, 32)]--
	m.conns[netip.PrefixFrom(from, 24).Masked()]--
}

// entries is how many addresses and prefixes are in the maps.
func (l *Limiter) entries() (n int) {
	for i := range shards {
		n += len(l.address.shards[i].conns) + len(l.prefix.shards[i].conns)
	}
	return n
}

func TestManyGoroutinesComeAndGo(t *testing.T) {
	const most = 50
	lim := limiter(t, Limits{Address: Bound{Conns: most, Handshakes: Pace{PerSecond: 1e6, Burst: 1e6}}, Prefix: Bound{Conns: 2 * most}, Total: Pace{PerSecond: 1e9, Burst: 1e6}})
	var in sync.WaitGroup
	for g := range 8 {
		in.Go(func() {
			from := netip.AddrFrom4([4]byte{10, 0, 0, byte(g % 4)})
			var held []Ticket
			for i := range 5000 {
				if ticket, v := lim.Enter(from, time.Duration(i)); v.OK() {
					held = append(held, ticket)
				}
				if len(held) == 40 || i%7 == 0 && len(held) > 0 {
					lim.Leave(held[0])
					held = held[1:]
				}
				if a, _ := lim.Open(); i%1000 == 0 && a > 4*most {
					t.Errorf("%d are in", a)
				}
			}
			for _, ticket := range held {
				lim.Leave(ticket)
			}
		})
	}
	in.Wait()
	if a, p := lim.Open(); a != 0 || p != 0 {
		t.Errorf("%d and %d are left", a, p)
	}
}

// An attacker has an IPv6 /32, and takes a new /64 for each of 20,000 handshakes a
// second, for twenty seconds. The thousand others, who come once in ten seconds each, notice
// nothing, and the attacker leaves nothing behind.
func TestAFloodFromEverNewPrefixesKeepsNobodyOut(t *testing.T) {
	slow := Bound{Conns: 5, Handshakes: Pace{PerSecond: 1, Burst: 5}}
	lim := limiter(t, Limits{Address: slow, Prefix: slow})
	var now time.Duration
	kept := 0
	for n := range uint64(20 * 20_000) {
		now += time.Second / 20_000
		a := [16]byte{0x20, 0x01, 0x0d, 0xb8, byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n), 15: 1}
		if ticket, v := lim.Enter(netip.AddrFrom16(a), now); v.OK() {
			lim.Leave(ticket)
		}
		if n%200 == 0 {
			other := n / 200 % 1000
			ticket, v := lim.Enter(netip.AddrFrom4([4]byte{10, byte(other >> 8), byte(other), 1}), now)
			if !v.OK() {
				kept++
			}
			lim.Leave(ticket)
		}
	}
	if kept > 0 {
		t.Errorf("%d of the others were kept out", kept)
	}
	if n := lim.entries(); n != 0 {
		t.Errorf("%d entries are left", n)
	}
}

func TestNobodyGetsMoreThanThePaceWhoeverElseComes(t *testing.T) {
	lim := limiter(t, Limits{Address: Bound{Handshakes: Pace{PerSecond: 10, Burst: 5}}})
	in := 0
	for i := range 200_000 {
		now := time.Duration(i) * 50 * time.Microsecond // ten seconds in all
		lim.Enter(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), now)
		if _, v := lim.Enter(someone, now); v.OK() {
			in++
		}
	}
	if in < 95 || in > 105 {
		t.Errorf("%d handshakes in ten seconds, want 105 at most and about as many", in)
	}
}

func TestLimitsThatMakeNoSenseAreErrors(t *testing.T) {
	for _, l := range []Limits{
		{Address: Bound{Conns: -1}}, {Prefix: Bound{Conns: -1}}, {Total: Pace{PerSecond: -1}}, {Total: Pace{Burst: -1}},
		{Address: Bound{Handshakes: Pace{PerSecond: nan}}}, {PrefixBits4: 33}, {PrefixBits6: 129}, {PrefixBits6: -1},
	} {
		if _, err := NewLimiter(l); err == nil {
			t.Errorf("%+v is accepted", l)
		}
	}
}

func TestTicketsAreSmall(t *testing.T) {
	if n := unsafe.Sizeof(Ticket{}); n != 8 {
		t.Errorf("a Ticket takes %d bytes", n)
	}
	if n := unsafe.Sizeof(shard{}); n != 128 {
		t.Errorf("a shard takes %d bytes", n)
	}
}

// A million connections, each from its own address; 64 addresses in a prefix.
func BenchmarkMemory(b *testing.B) {
	const conns = 1_000_000
	before := heap()
	for b.Loop() {
		lim := limiter(b, Limits{Address: Bound{Conns: 100}, Prefix: Bound{Conns: 1000}})
		for i := range conns {
			lim.Enter(netip.AddrFrom4([4]byte{byte(i >> 22), byte(i >> 14), byte(i >> 6), byte(i & 63)}), 0)
		}
		b.ReportMetric(float64(heap()-before)/conns, "B/conn")
		b.ReportMetric(float64(heap()-before)/float64(lim.entries()), "B/entry")
	}
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// A handshake that is admitted, and the end of its connection. A million others are
// open, each from its own address.
func BenchmarkEnter(b *testing.B) {
	fast := Pace{PerSecond: 1e6, Burst: 1e6}
	for name, l := range map[string]Limits{
		"address":     {Address: Bound{1000, fast}},
		"all":         {Address: Bound{1000, fast}, Prefix: Bound{10_000, fast}, Total: Pace{1e9, 1e9}},
		"connections": {Address: Bound{Conns: 1000}, Prefix: Bound{Conns: 10_000}},
	} {
		lim := limiter(b, l)
		address := func(i uint32) netip.Addr {
			return netip.AddrFrom4([4]byte{byte(i >> 22), byte(i >> 14), byte(i >> 6), byte(i & 63)})
		}
		for i := range uint32(1_000_000) {
			lim.Enter(address(i), 0)
		}
		i, now := uint32(0), time.Duration(0)
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			before := processorTime()
			for b.Loop() {
				i, now = (i+7919)%1_000_000, now+time.Microsecond
				ticket, v := lim.Enter(address(i), now)
				if !v.OK() {
					b.Fatal(v.Reason)
				}
				lim.Leave(ticket)
			}
			b.ReportMetric(float64(processorTime()-before)/float64(b.N), "cpu-ns/op")
		})
	}
}

// processorTime is that of this process, which other programs do not disturb.
func processorTime() time.Duration {
	var u syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
