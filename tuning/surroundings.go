package tuning

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/prometheus/procfs"
)

// Fact is something about a process's surroundings that decides which settings it
// can change, and where.
type Fact struct {
	Name  string `json:"name"`
	Where string `json:"where"` // what it is read from
	Value string `json:"value"`
}

// facts are all facts, in the order in which they are shown.
var facts = []struct {
	name, where string
	value       func(*Machine) string
}{
	{"kernel", "/proc/sys/kernel/osrelease", func(m *Machine) string { return m.Kernel }},
	{"machine", "/sys/class/dmi/id, /sys/hypervisor/uuid, /run/cloud-init/instance-data.json", func(m *Machine) string { return m.cloud().says() }},
	{"cgroup", "/proc/self/cgroup, /proc/self/mountinfo", cgroupFact},
	{"network namespace", "/proc/self/ns/net, /proc/sys/net/ipv4/tcp_mem", networkFact},
	{"user namespace", "/proc/self/uid_map", userFact},
	{"capabilities", "/proc/self/status", capabilityFact},
	{"sysctls", "/proc/self/mountinfo", sysctlFact},
}

// Facts describes where this process runs.
func (m *Machine) Facts() []Fact {
	all := make([]Fact, len(facts))
	for i, f := range facts {
		all[i] = Fact{f.name, f.where, f.value(m)}
		if all[i].Value == "" {
			all[i].Value = string(Unseen)
		}
	}
	return all
}

func cgroupFact(m *Machine) string {
	c := m.cgroup()
	if c.Version == 0 {
		return ""
	}
	return fmt.Sprintf("v%d, %s", c.Version, c.Path)
}

// firstNetwork is the number of the first network namespace since Linux 6.17.
const firstNetwork = "net:[4026531833]"

// networkFact says whether this is the first network namespace. In older kernels
// its number varies, but only the first has tcp_mem.
func networkFact(m *Machine) string {
	if link, _ := os.Readlink(filepath.Join(m.root, "proc/self/ns/net")); link == firstNetwork {
		return "the first"
	}
	switch {
	case !m.exists("proc/sys/net/ipv4"):
		return ""
	case m.exists("proc/sys/net/ipv4/tcp_mem"):
		return "the first"
	}
	return "not the first: tcp_mem, tcp_max_orphans, netdev_max_backlog and conntrack's maximum are set outside"
}

// userFact says whether this is the first user namespace.
func userFact(m *Machine) string {
	switch strings.Join(strings.Fields(m.text("proc/self/uid_map")), " ") {
	case "":
		return ""
	case "0 0 4294967295":
		return "the first"
	}
	return "not the first: root here is not root outside, and cannot set fs.*"
}

// capabilities are those that matter here, capabilities(7).
var capabilities = []struct {
	bit  int
	name string
}{
	{12, "CAP_NET_ADMIN"}, {21, "CAP_SYS_ADMIN"}, {24, "CAP_SYS_RESOURCE"},
}

func capabilityFact(m *Machine) string {
	if !m.exists("proc/self/status") {
		return ""
	}
	var names []string
	for _, c := range capabilities {
		if m.Capabilities>>c.bit&1 != 0 {
			names = append(names, c.name)
		}
	}
	if names == nil {
		return "none that let limits be raised"
	}
	return strings.Join(names, ", ")
}

// sysctlFact says whether sysctls can be set at all: in containers /proc/sys is
// usually mounted read-only.
func sysctlFact(m *Machine) string {
	if len(m.mounts()) == 0 {
		return ""
	}
	if m.sysctlsReadOnly() {
		return "read-only: set them outside"
	}
	return "can be set by root"
}

func (m *Machine) sysctlsReadOnly() bool {
	readOnly := false
	for _, info := range m.mounts() { // later mounts hide earlier ones
		if info.MountPoint == "/proc" || info.MountPoint == "/proc/sys" {
			_, readOnly = info.Options["ro"]
		}
	}
	return readOnly
}

// mounts are this process's mounts; none if they cannot be read.
func (m *Machine) mounts() []*procfs.MountInfo {
	fs, err := procfs.NewFS(filepath.Join(m.root, "proc"))
	if err != nil {
		return nil
	}
	self, err := fs.Self()
	if err != nil {
		return nil
	}
	mounts, _ := self.MountInfo()
	return mounts
}

func (m *Machine) exists(path string) bool {
	_, err := os.Stat(filepath.Join(m.root, path))
	return err == nil
}

// cloud is the cloud that this machine belongs to.
type cloud struct {
	EC2  bool
	Type string // of the instance, "" if it does not say
	Xen  bool
}

// cloud reads what the firmware says. On Nitro it says the instance type. On Xen,
// which an m4.xlarge has, only cloud-init knows it.
func (m *Machine) cloud() cloud {
	const dmi = "sys/class/dmi/id/"
	product := m.text(dmi + "product_name")
	switch {
	case m.text(dmi+"sys_vendor") == "Amazon EC2":
		return cloud{EC2: true, Type: product}
	case strings.HasPrefix(m.text("sys/hypervisor/uuid"), "ec2"), strings.Contains(m.text(dmi+"bios_version"), "amazon"):
		return cloud{EC2: true, Xen: true, Type: m.instanceType()}
	}
	return cloud{}
}

// instanceType is the instance type that cloud-init has saved at boot.
func (m *Machine) instanceType() string {
	var told struct {
		DS struct {
			MetaData struct {
				Type string `json:"instance-type"`
			} `json:"meta_data"`
		} `json:"ds"`
	}
	_ = json.Unmarshal([]byte(m.text("run/cloud-init/instance-data.json")), &told) // "" then
	return told.DS.MetaData.Type
}

// says names the machine and how many addresses it can have.
func (c cloud) says() string {
	switch {
	case !c.EC2:
		return "not on EC2, as far as it says"
	case c.Type == "":
		return "EC2, Xen; its type cannot be seen"
	}
	text := "EC2 " + c.Type
	if t, found := FindInstanceType(c.Type); found {
		text += fmt.Sprintf(", %d interfaces × %d addresses", t.Interfaces, t.PerInterface)
	}
	if c.Xen {
		text += ", Xen"
	}
	return text
}
