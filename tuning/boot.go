package tuning

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
)

// BootPath is the drop-in for GRUB that adds to the kernel's command line.
const BootPath = "/etc/default/grub.d/90-lull.cfg"

// bootSetting is the size of TCP's hash table at boot, as a Choice names it. It
// counts for the first network namespace and for all that share its table.
var bootSetting = Setting{Name: "thash_entries", Why: "each packet takes longer, because its socket is looked up in a long chain"}

// BootDropIn is a drop-in for GRUB that gives TCP's hash table so many buckets from
// the next boot on.
func BootDropIn(buckets int64) []byte {
	return fmt.Appendf(nil, `# Made by "lull tune"; "lull tune revert" removes it. After either, run update-grub.
# It counts from the next boot on. Without it:
# %s.
GRUB_CMDLINE_LINUX="$GRUB_CMDLINE_LINUX thash_entries=%d"
`, bootSetting.Why, buckets)
}

var bootEntries = regexp.MustCompile(`(?m)^[^#\n]*\bthash_entries=(\d+)`)

// bootBuckets is the size that a drop-in asks for, Unknown if it asks for none. The
// last one counts.
func bootBuckets(text []byte) int64 {
	all := bootEntries.FindAllSubmatch(text, -1)
	if all == nil {
		return Unknown
	}
	n, err := strconv.ParseInt(string(all[len(all)-1][1]), 10, 64)
	if err != nil {
		return Unknown
	}
	return n
}

// planBoot plans the drop-in, if TCP's hash table is too small and GRUB is there.
func (m *Machine) planBoot(p *Plan, d Demand, c Choice, applied *state) error {
	i := slices.IndexFunc(Limits, func(l Limit) bool { return l.Name == bucketName })
	table := m.check(&Limits[i], d)
	r := Row{Setting: bootSetting, Now: plainNumber(table.Have), Skip: skipEnough}
	r.Want = table.Want
	defer func() { p.Boot = append(p.Boot, r) }()
	switch {
	case table.OK():
		return nil
	case !c.includes(bootSetting):
		r.Skip = skipChoice
		return nil
	case !m.isFirst(nil):
		r.Skip = "left: this is not the first network namespace"
		return nil
	case !m.hasGRUB():
		r.Skip = "left: there is no GRUB with update-grub; add thash_entries=" + table.Want + " to the kernel's command line"
		return nil
	}
	want, err := strconv.ParseInt(table.Want, 10, 64)
	if err != nil {
		return fmt.Errorf("tuning: plan the hash table: %w", err)
	}
	had, err := m.contentOf(BootPath)
	if err != nil {
		return fmt.Errorf("tuning: plan a file: %w", err)
	}
	if had != nil && bootBuckets(had.Text) >= want {
		r.Skip = "in " + BootPath + " already: it counts after update-grub and a restart"
		return nil
	}
	p.Files = append(p.Files, PlannedFile{BootPath, applied.after(BootPath, had, BootDropIn(want))})
	r.After, r.Skip = table.Want, ""
	return nil
}

// hasGRUB reports whether the machine starts with GRUB as Debian and its descendants
// set it up: update-grub reads the drop-ins, which other GRUBs do not.
func (m *Machine) hasGRUB() bool {
	return m.exists("/etc/default/grub") && m.exists("/usr/sbin/update-grub")
}

// plainNumber is a figure without separators, "" if it is unknown.
func plainNumber(n int64) string {
	if n == Unknown {
		return ""
	}
	return strconv.FormatInt(n, 10)
}
