package agent

import (
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"github.com/seed-134acfd0/lull/loadgen/plan"
)

// Allow lists hosts that an agent may connect to: names, addresses and prefixes, such as
// "chat.example.com", "10.0.0.5" and "10.0.0.0/8". An empty list allows all.
type Allow []string

// Check returns an error that names the first thing in the list that is none of these.
func (a Allow) Check() error {
	for _, entry := range a {
		if strings.Contains(entry, "/") {
			if _, err := netip.ParsePrefix(entry); err != nil {
				return fmt.Errorf("agent: allowed host %q: it must be a name, an address or a prefix such as 10.0.0.0/8", entry)
			}
		} else if entry == "" || strings.ContainsAny(entry, ":[]{} ") && !isAddress(entry) {
			return fmt.Errorf("agent: allowed host %q: it must be a name or an address without a port, or a prefix such as 10.0.0.0/8", entry)
		}
	}
	return nil
}

func isAddress(s string) bool {
	_, err := netip.ParseAddr(s)
	return err == nil
}

// plan returns an error if a plan leads to a host that is not allowed, or that is not
// known beforehand because a template makes it.
func (a Allow) plan(p *plan.Plan) error {
	if len(a) == 0 {
		return nil
	}
	for _, group := range p.Groups {
		for _, text := range group.URLs {
			if err := a.url(text.String()); err != nil {
				return err
			}
		}
	}
	return nil
}

func (a Allow) url(raw string) error {
	scheme, rest, _ := strings.Cut(raw, "://")
	end := strings.IndexAny(rest, "/?#")
	if end < 0 {
		end = len(rest)
	}
	authority := rest[:end]
	u, err := url.Parse(scheme + "://" + authority)
	if err != nil || strings.Contains(scheme+authority, "{{") {
		return fmt.Errorf("agent: %.200q: its host must be written out, because this agent allows some hosts alone", raw)
	}
	if host := u.Hostname(); !a.host(host) {
		return fmt.Errorf("agent: %.200q is not among the hosts that this agent allows, which are %s", host, strings.Join(a, ", "))
	}
	return nil
}

func (a Allow) host(host string) bool {
	host = strings.TrimSuffix(host, ".")
	addr, err := netip.ParseAddr(host)
	isAddr := err == nil
	return slices.ContainsFunc(a, func(entry string) bool {
		if prefix, err := netip.ParsePrefix(entry); err == nil {
			return isAddr && prefix.Contains(addr.Unmap())
		}
		if other, err := netip.ParseAddr(entry); err == nil {
			return isAddr && other.Unmap() == addr.Unmap()
		}
		return strings.EqualFold(entry, host)
	})
}
