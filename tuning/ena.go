package tuning

import (
	"os"
	"path/filepath"
	"strings"

	"github.com/safchain/ethtool"
)

// ena reads the counters of AWS's network driver, ENA, for each device that has
// it. No other driver shows what security groups and the instance's allowances
// have dropped.
func (m *Machine) ena() []map[string]uint64 {
	read := m.stats
	if read == nil {
		if m.root != "/" {
			return nil
		}
		read = deviceStats
	}
	devices, _ := os.ReadDir(filepath.Join(m.root, "sys/class/net")) // empty on an error
	var all []map[string]uint64
	for _, d := range devices {
		driver, _ := os.Readlink(filepath.Join(m.root, "sys/class/net", d.Name(), "device/driver"))
		if filepath.Base(driver) != "ena" {
			continue
		}
		if stats, err := read(d.Name()); err == nil {
			all = append(all, stats)
		}
	}
	return all
}

func deviceStats(device string) (map[string]uint64, error) {
	e, err := ethtool.NewEthtool()
	if err != nil {
		return nil, err
	}
	defer e.Close()
	return e.Stats(device)
}

// allowance is how many more connections security groups can track. Only the ENA
// driver shows it.
func (m *Machine) allowance() int64 {
	if !m.cloud().EC2 {
		return Unlimited
	}
	least := Unknown
	for _, stats := range m.ena() {
		n, found := stats["conntrack_allowance_available"]
		if found && (least == Unknown || int64(n) < least) {
			least = int64(n)
		}
	}
	return least
}

// exceeded are the counters of packets that AWS dropped because the instance had
// used up an allowance.
func (m *Machine) exceeded() Counters {
	all := Counters{}
	for _, stats := range m.ena() {
		for name, n := range stats {
			if strings.HasSuffix(name, "_allowance_exceeded") {
				all["ena "+name] += n
			}
		}
	}
	return all
}
