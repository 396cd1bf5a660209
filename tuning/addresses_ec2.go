package tuning

import (
	_ "embed"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/dustin/go-humanize"
)

//go:embed ec2-addresses.tsv
var ec2Addresses string

// InstanceType is how many addresses an EC2 instance type can have.
type InstanceType struct {
	Name         string
	Interfaces   int
	PerInterface int    // private IPv4 addresses
	Hypervisor   string // nitro, xen or unknown
}

// FindInstanceType looks a type up in the built-in table.
func FindInstanceType(name string) (InstanceType, bool) {
	for line := range strings.Lines(ec2Addresses) {
		fields := strings.Split(strings.TrimSpace(line), "\t")
		if len(fields) != 4 || fields[0] != name {
			continue
		}
		interfaces, err := strconv.Atoi(fields[1])
		if err != nil {
			continue // the heading
		}
		per, err := strconv.Atoi(fields[2])
		return InstanceType{name, interfaces, per, fields[3]}, err == nil
	}
	return InstanceType{}, false
}

// InstanceType is the type of this EC2 instance; "" if it cannot be found out.
func (m *Machine) InstanceType() string { return m.cloud().Type }

// OnEC2 reports whether this is an EC2 instance, as far as can be seen.
func (m *Machine) OnEC2() bool { return m.cloud().EC2 }

// connsFrom is how many connections a number of source addresses can open to each port
// of a server.
func connsFrom(addrs int) int { return int(connsOf(int64(addrs) * (portMax - portMin + 1))) }

// Prefixes is the maximum number of addresses of an interface if all but the
// first are /28 prefixes, which only Nitro has.
func (t InstanceType) Prefixes() int {
	const inPrefix = 16
	return 1 + (t.PerInterface-1)*inPrefix
}

// Advice says how many connections a number of addresses on one interface allows,
// and what to do if that is less than the target.
func (t InstanceType) Advice(addrs, target int) string {
	have := connsFrom(addrs)
	head := fmt.Sprintf("you have 1 × %d, for %s connections per server port", addrs, comma(have))
	if t.Name != "" {
		head = fmt.Sprintf("%s: %d interfaces × %d; %s", t.Name, t.Interfaces, t.PerInterface, head)
	}
	if t.Name != "" && addrs > t.PerInterface && (t.Hypervisor != "nitro" || addrs > t.Prefixes()) {
		head += fmt.Sprintf("; but AWS assigns at most %d addresses to one interface", t.PerInterface)
	}
	if have >= target {
		return head + fmt.Sprintf(": enough for %s", comma(target))
	}
	ways := []string{fmt.Sprintf("use %s ports on the server", few((target+have-1)/have))}
	need := 1
	for connsFrom(need) < target {
		need++
	}
	switch {
	case t.Name == "" || need <= t.PerInterface:
		ways = append(ways, fmt.Sprintf("have %d addresses", need))
	default:
		if n := (need + t.PerInterface - 1) / t.PerInterface; n <= t.Interfaces {
			ways = append(ways, fmt.Sprintf("%s interfaces, with an ip rule for each source address", few(n)))
		}
		if t.Hypervisor == "nitro" && need <= t.Prefixes() {
			ways = append(ways, fmt.Sprintf("prefix delegation, up to %d addresses on one interface", t.Prefixes()))
		}
	}
	return head + fmt.Sprintf("; for %s %s", comma(target), strings.Join(ways, ", or "))
}

func comma(n int) string { return humanize.Comma(int64(n)) }

// few spells small numbers.
func few(n int) string {
	if words := []string{"no", "one", "two", "three", "four"}; n < len(words) {
		return words[n]
	}
	return strconv.Itoa(n)
}

// AWSCommands are the shell commands that make AWS assign addresses to a device's
// interface. They name the addresses, so that AWS refuses those that are in use.
func (t InstanceType) AWSCommands(n *Network, addrs []netip.Addr) []string {
	names := make([]string, len(addrs))
	for i, a := range addrs {
		names[i] = a.String()
	}
	commands := []string{
		fmt.Sprintf("eni=$(aws ec2 describe-network-interfaces --filters Name=mac-address,Values=%s --query 'NetworkInterfaces[0].NetworkInterfaceId' --output text)", n.MAC),
		`aws ec2 assign-private-ip-addresses --network-interface-id "$eni" --private-ip-addresses ` + strings.Join(names, " "),
	}
	if t.Hypervisor == "nitro" {
		const inPrefix = 16
		commands = append(commands, "# or, sixteen at a time; then pass the addresses that AWS prints to --addresses:",
			fmt.Sprintf(`aws ec2 assign-private-ip-addresses --network-interface-id "$eni" --ipv4-prefix-count %d`, (len(addrs)+inPrefix-1)/inPrefix))
	}
	return commands
}

// AWSUndo is the command that unassigns the addresses.
func (t InstanceType) AWSUndo(addrs []netip.Addr) string {
	names := make([]string, len(addrs))
	for i, a := range addrs {
		names[i] = a.String()
	}
	return `aws ec2 unassign-private-ip-addresses --network-interface-id "$eni" --private-ip-addresses ` + strings.Join(names, " ")
}
