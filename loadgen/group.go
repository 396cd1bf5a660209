package loadgen

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/internal/record"
	"github.com/seed-134acfd0/lull/loadgen/plan"
)

// group is a plan's group, prepared.
type group struct {
	*plan.Group
	index   uint8
	first   int // its first user's number among all users
	targets []target
	ports   *ports
	rank    int             // its first user's number among those that share its ports
	spoken  []atomic.Uint32 // of each room: the number after the last message that somebody has taken on
	script  script

	offer frame.Offer // unless something in it is filled in for each user
	fixed bool        // offer is the same for all
}

// target is a resolved URL.
type target struct {
	addr netip.AddrPort
	host string         // the Host header
	path *plan.Text     // the request target
	tls  *record.Config // of wss://, otherwise nil
}

// ports are the combinations of source address, source port and target of the groups with
// the same targets. A combination is used once, so groups with other targets can use
// the same addresses and ports.
type ports struct {
	sources Sources
	users   int
	spares  []atomic.Int64 // of each target, how many combinations after those of the users were tried
}

// spare returns a combination with a target that is no user's, or -1 if there is none. They
// go round, because the connections that used them end.
func (p *ports) spare(target int) int {
	n := len(p.spares)
	first := (p.users+n-1)/n*n + target
	spares := (p.sources.Capacity() - first + n - 1) / n
	if spares <= 0 {
		return -1
	}
	return first + int((p.spares[target].Add(1)-1)%int64(spares))*n
}

// source is the number of a user's combination.
func (g *group) source(user uint32, first int) int { return int(user) - first - g.first + g.rank }

// newGroups prepares the plan's groups.
func (r *run) newGroups(ctx context.Context) error {
	first, shared := 0, map[string]*ports{}
	for i := range r.plan.Groups {
		g := &group{Group: &r.plan.Groups[i], index: uint8(i), first: first, spoken: make([]atomic.Uint32, r.plan.Groups[i].Rooms)}
		first += g.Users
		where := ""
		for _, raw := range g.URLs {
			t, err := r.config.resolve(ctx, raw.String())
			if err != nil {
				return err
			}
			g.targets = append(g.targets, t)
			where += t.addr.String() + " "
		}
		if shared[where] == nil {
			shared[where] = &ports{spares: make([]atomic.Int64, len(g.targets))}
			r.ports = append(r.ports, shared[where])
		}
		g.ports = shared[where]
		g.rank = g.ports.users
		g.ports.users += g.Users
		g.script = r.compileScript(g.Script, 0)
		g.prepareOffer(r.plan.Files)
		r.groups = append(r.groups, g)
	}
	for _, p := range r.ports {
		i := slices.IndexFunc(r.groups, func(g *group) bool { return g.ports == p })
		var err error
		if p.sources, err = chooseSources(p.users, r.config.Sources, r.groups[i].targets); err != nil {
			return err
		}
	}
	return nil
}

// prepareOffer makes the offer that all users of g share, if it is the same for all.
func (g *group) prepareOffer(files map[string][]string) {
	for _, h := range g.Headers {
		if !h.Value.Constant() {
			return
		}
	}
	for _, s := range g.Subprotocols {
		if !s.Constant() {
			return
		}
	}
	g.fixed = true
	g.offer = g.offerFor(&plan.Values{Group: g.Name, Files: files})
}

// offerFor is the offer of one user.
func (g *group) offerFor(v *plan.Values) frame.Offer {
	o := frame.Offer{Deflate: g.Compress}
	for i, s := range g.Subprotocols {
		if i > 0 {
			o.Protocols += ", "
		}
		o.Protocols += string(s.Append(nil, v))
	}
	for _, h := range g.Headers {
		o.Header = append(append(o.Header, h.Name...), ": "...)
		o.Header = append(h.Value.Append(o.Header, v), "\r\n"...)
	}
	return o
}

// resolve looks up a URL's address. If a name has several addresses, it takes
// the first IPv4 address, or the first of all if there is none. What follows the host is a
// template.
func (c *Config) resolve(ctx context.Context, raw string) (target, error) {
	scheme, rest, _ := strings.Cut(raw, "://")
	host, path := rest, "/"
	if i := strings.IndexAny(rest, "/?#"); i >= 0 {
		host, path = rest[:i], rest[i:]
	}
	path, _, _ = strings.Cut(path, "#") // the server is not told (RFC 6455 section 3)
	if !strings.HasPrefix(path, "/") {
		path = "/" + path
	}
	if s := strings.ToLower(scheme); s != "ws" && s != "wss" {
		return target{}, fmt.Errorf("loadgen: %s: the URL must begin with ws:// or wss://", raw)
	}
	u, err := url.Parse(scheme + "://" + host)
	if err != nil {
		return target{}, fmt.Errorf("loadgen: %w", err)
	}
	t, port := target{host: u.Host}, "80"
	if u.Scheme == "wss" {
		t.tls, port = clientTLS(c.TLS, u.Hostname(), c.Resume), "443"
	}
	if t.path, err = plan.ParseText(path); err != nil {
		return target{}, fmt.Errorf("loadgen: %s: %w", raw, err)
	}
	if t.path.Constant() {
		u, err := url.Parse(scheme + "://" + host + path)
		if err != nil {
			return target{}, fmt.Errorf("loadgen: %w", err)
		}
		t.path = plan.Plain(u.RequestURI())
	}
	port = cmp.Or(u.Port(), port)
	number, err := net.DefaultResolver.LookupPort(ctx, "tcp", port)
	if err != nil {
		return target{}, fmt.Errorf("loadgen: %s: %w", raw, err)
	}
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", u.Hostname())
	if err != nil {
		return target{}, fmt.Errorf("loadgen: %s: %w", raw, err)
	}
	ip := ips[max(0, slices.IndexFunc(ips, netip.Addr.Is4))]
	t.addr = netip.AddrPortFrom(ip.Unmap(), uint16(number))
	return t, nil
}
