package proxy

import (
	"fmt"
	"net/netip"
	"strings"
)

// Trust is the proxies whose word about clients is taken, by prefixes of addresses.
// nil trusts nobody.
type Trust []netip.Prefix

// ParseTrust parses prefixes such as 10.0.0.0/8, and single addresses.
func ParseTrust(prefixes []string) (Trust, error) {
	var t Trust
	for _, text := range prefixes {
		p, err := parsePrefix(text)
		if err != nil {
			return nil, fmt.Errorf("proxy: %q is neither an address nor a prefix such as 10.0.0.0/8 or fd00::/8: %w", text, err)
		}
		t = append(t, p)
	}
	return t, nil
}

func parsePrefix(text string) (netip.Prefix, error) {
	if strings.Contains(text, "/") {
		p, err := netip.ParsePrefix(text)
		if err == nil && p.Addr().Is4In6() {
			return p, fmt.Errorf("write an IPv4 prefix as one")
		}
		return p.Masked(), err
	}
	a, err := netip.ParseAddr(text)
	if err != nil {
		return netip.Prefix{}, err
	}
	a = a.Unmap().WithZone("")
	return netip.PrefixFrom(a, a.BitLen()), nil
}

// Has reports whether an address is trusted.
func (t Trust) Has(a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	for _, p := range t {
		if p.Contains(a) {
			return true
		}
	}
	return false
}
