package tsung

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// sourcesMax is how many addresses clients may have together.
const sourcesMax = 1 << 16

// clients finds the addresses from which tsung's clients connect.
func (t *translation) clients(e *element) {
	for i, c := range e.all("client") {
		if i == 0 {
			t.note(c, "all users start on this machine, in one process: host, weight, cpu and maxusers of clients are not needed")
		}
		for _, address := range c.children {
			switch value := address.attr("value"); {
			case address.name == "iprange":
				t.note(address, "addresses of the range are used in turn, and not at random")
				t.addRange(address, "", strings.Split(value, "."))
			case address.name != "ip":
				t.note(address, "<%s> is not known", address.name)
			case address.attr("scan") == "true":
				t.note(address, "the addresses of interface %s are not looked up: name them as source addresses", value)
			case value == "resolve":
				t.note(address, "the client's own address is not looked up: name it as a source address")
			default:
				t.addSource(address, value)
			}
		}
	}
	seen := map[string]bool{}
	t.sources = slices.DeleteFunc(t.sources, func(address string) bool {
		again := seen[address]
		seen[address] = true
		return again
	})
}

func (t *translation) addSource(e *element, address string) {
	if _, err := netip.ParseAddr(address); err != nil {
		t.fail(e, "value has to be an IP address, or a range such as 172.28.1-20.0-254, not %.60q", e.attr("value"))
	}
	if len(t.sources) == sourcesMax {
		t.fail(e, "clients have more than %d addresses", sourcesMax)
	}
	if t.err == nil {
		t.sources = append(t.sources, address)
	}
}

// addRange adds the addresses that begin with some numbers, and go on with ranges of
// them.
func (t *translation) addRange(e *element, begin string, ranges []string) {
	if len(ranges) == 0 {
		t.addSource(e, strings.TrimSuffix(begin, "."))
		return
	}
	from, to, isRange := strings.Cut(ranges[0], "-")
	if !isRange {
		to = from
	}
	low, err1 := strconv.ParseUint(from, 10, 8)
	high, err2 := strconv.ParseUint(to, 10, 8)
	if err1 != nil || err2 != nil || low > high {
		t.addSource(e, e.attr("value")) // which says what is wrong with it
	}
	for n := low; n <= high && t.err == nil; n++ {
		t.addRange(e, begin+strconv.FormatUint(n, 10)+".", ranges[1:])
	}
}

// room is how many users the clients hold at a time by their own account. It is 0 if
// one of them does not say.
func (t *translation) room(e *element) (users int) {
	for _, c := range e.all("client") {
		most := t.whole(c, "maxusers", 0, 1<<30)
		if most == 0 {
			return 0
		}
		cpus := t.whole(c, "cpu", 1, 1<<10)
		if c.attr("use_controller_vm") == "true" {
			cpus = 1 // one virtual machine, whatever it says
		}
		users += most * cpus
	}
	return users
}
