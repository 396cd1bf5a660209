package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"
	"unicode/utf8"

	"github.com/seed-134acfd0/lull/loadgen"
	"github.com/seed-134acfd0/lull/netpoll"
	"github.com/seed-134acfd0/lull/tuning"
)

type tuneCommand struct {
	Show      tuneShow      `cmd:"" help:"Show which limits are too low, and what revert would restore."`
	Apply     tuneApply     `cmd:"" help:"Raise limits that are too low, now and at every boot."`
	Revert    tuneRevert    `cmd:"" help:"Restore what apply has changed."`
	Addresses tuneAddresses `cmd:"" help:"Add source addresses to a network device, or remove them."`
}

func (tuneCommand) Help() string {
	return `lull tune raises kernel settings and the limits of lull's systemd units, and never lowers any. Before it changes
anything it saves the current values in ` + tuning.StateFile + `, so that revert can restore everything even if
apply was killed.

Examples:
  lull tune show --role server --target 1000000
  lull tune apply --role server --target 1000000
  lull tune apply --role server --target 1000000 --yes
  lull tune revert
  lull tune addresses --dev eth0 --add 14`
}

// tuneWish is what a machine should be tuned for.
type tuneWish struct {
	Role     string         `help:"What runs on this machine: ${enum}." enum:"server,loadgen,both" default:"server"`
	Target   int            `help:"Number of connections that the machine should hold." default:"1000000" range:"1..1073741824"`
	Fanout   int            `help:"Size of a broadcast, in bytes, that every connection may have unread. 0 means none." default:"32" range:"0..1073741824"`
	FDTables netpoll.Tables `name:"fd-tables" help:"File descriptor tables of server and generator: shared tables need higher limits than private ones. auto means private, or shared where the system does not allow that." default:"auto" enum:"auto,shared,private"`
	Only     []string       `help:"Change only these settings." placeholder:"KEY"`
	With     []string       `help:"Change these settings too, which can harm other programs and are not changed by default." placeholder:"KEY"`
	Root     string         `help:"Directory that holds /proc, /etc and /var." default:"/" type:"existingdir" hidden:"" env:"-"`
}

// Validate checks the flags.
func (w *tuneWish) Validate() error {
	return w.choice().Check()
}

func (w *tuneWish) choice() tuning.Choice { return tuning.Choice{Only: w.Only, With: w.With} }

func (w *tuneWish) plan() (*tuning.Machine, *tuning.Plan, error) {
	m, err := tuning.Read(w.Root)
	if err != nil {
		return nil, nil, err
	}
	p, err := m.Plan(demand(m, w.Role, w.Target, w.Fanout, w.FDTables), w.choice())
	return m, p, err
}

type tuneShow struct {
	tuneWish
}

func (tuneShow) Help() string {
	return `lull tune show changes nothing.

Examples:
  lull tune show
  lull tune show --role both --target 256000`
}

func (c *tuneShow) Run() error {
	m, p, err := c.plan()
	if err != nil {
		return err
	}
	writePlan(os.Stdout, p)
	applied, err := m.Applied()
	if errors.Is(err, fs.ErrPermission) {
		return nil // the plan has a warning about it
	}
	if err != nil {
		return err
	}
	if len(applied) > 0 {
		fmt.Printf("\n\"lull tune revert\" would restore:\n  %s\n", strings.Join(applied, "\n  "))
	}
	return nil
}

type tuneApply struct {
	tuneWish
	Yes bool `help:"Make the changes. Without it, they are only printed."`
}

func (tuneApply) Help() string {
	return `Without --yes, lull tune apply prints exactly what it would change, and changes nothing. With --yes it makes all changes
or none: it first checks that everything can be written, and if something fails it undoes what it has done.

It changes four things: the kernel settings; ` + tuning.SysctlPath + `, which sets them again at every boot; if their
limits of descriptors are too low, a drop-in limits.conf for the units that the role needs, ` + tuning.ServerUnit + ` and ` + tuning.GeneratorUnit + `;
and, if TCP's hash table is too small and update-grub is there, ` + tuning.BootPath + `, which gives it more buckets
(thash_entries) at the next boot after update-grub. Elsewhere it says what to add to the kernel's command line. Settings that can
harm other programs (net.ipv4.tcp_mem and conntrack's) are changed only if --with or --only names them.

You can apply again for more connections or other settings. revert restores what there was before the first apply.

Examples:
  lull tune apply --role server --target 1000000
  sudo lull tune apply --role server --target 1000000 --with net.ipv4.tcp_mem --yes
  sudo lull tune apply --only net.core.somaxconn,LimitNOFILE --yes`
}

func (c *tuneApply) Run() error {
	m, p, err := c.plan()
	if err != nil {
		return err
	}
	writePlan(os.Stdout, p)
	if p.Empty() {
		fmt.Println("\nThere is nothing to do.")
		return nil
	}
	if !c.Yes {
		writeFiles(os.Stdout, p)
		if err := m.Permitted(p); err != nil {
			fmt.Printf("\nThis user cannot make these changes: %v%s.\n", err, hint(err))
		}
		fmt.Println(unchanged)
		return nil
	}
	if err := m.Apply(p); err != nil {
		return fmt.Errorf("%w%s", err, hint(err))
	}
	fmt.Printf("\n%s set. To undo: lull tune revert (the old values are in %s).\n", count(len(p.Changes()), "kernel setting"), tuning.StateFile)
	for _, f := range p.Files {
		fmt.Println("Wrote", f.Path)
	}
	if len(p.Units) > 0 {
		fmt.Println("The units' limits take effect after systemctl daemon-reload and a restart of the unit.")
	}
	if slices.ContainsFunc(p.Files, func(f tuning.PlannedFile) bool { return f.Path == tuning.BootPath }) {
		fmt.Println("The size of TCP's hash table takes effect after update-grub and a restart of the machine.")
	}
	return nil
}

// unchanged ends the output of a command without --yes.
const unchanged = "\nNothing was changed. Use --yes to make these changes."

// hint says what to do about an error, if that is known.
func hint(err error) string {
	switch {
	case errors.Is(err, fs.ErrPermission) && os.Geteuid() != 0:
		return ": root is needed"
	case errors.Is(err, syscall.EROFS):
		return ": in a container, tune its host instead"
	}
	return ""
}

func count(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}

// writePlan writes a table of settings: the value now, the value that is wanted,
// the value afterwards, and the reason in the line below.
func writePlan(w io.Writer, p *tuning.Plan) {
	rows := [][4]string{{"KEY", "NOW", "WANTED", "AFTER"}}
	whys := []string{""}
	for _, r := range slices.Concat(p.Rows, p.Units, p.Boot) {
		after := strings.Join(strings.Fields(r.After), " ")
		if r.Skip != "" {
			after = r.Skip
		}
		rows = append(rows, [4]string{r.Name, strings.Join(strings.Fields(r.Now), " "), r.Want, after})
		why := r.Why
		if r.Skip != "" && !r.Named {
			why = ""
		}
		whys = append(whys, why)
	}
	var wide [3]int
	for _, r := range rows {
		for i := range wide {
			wide[i] = max(wide[i], utf8.RuneCountInString(r[i]))
		}
	}
	for i, r := range rows {
		fmt.Fprintf(w, "%-*s  %-*s  %-*s  %s\n", wide[0], r[0], wide[1], r[1], wide[2], r[2], r[3])
		if whys[i] != "" {
			fmt.Fprintf(w, "    %s\n", whys[i])
		}
	}
	for _, warning := range p.Warnings {
		fmt.Fprintf(w, "\nWarning: %s.\n", warning)
	}
}

// writeFiles writes what the files would contain.
func writeFiles(w io.Writer, p *tuning.Plan) {
	for _, f := range p.Files {
		fmt.Fprintf(w, "\nwould write %s:\n", f.Path)
		for line := range strings.Lines(string(f.Text)) {
			fmt.Fprintf(w, "  | %s", line)
		}
	}
	fmt.Fprintf(w, "\nwould first save the current values in %s\n", tuning.StateFile)
}

type tuneRevert struct {
	Root string `help:"Directory that holds /proc, /etc and /var." default:"/" type:"existingdir" hidden:"" env:"-"`
}

func (tuneRevert) Help() string {
	return `lull tune revert restores every setting that still has the value that apply gave it. If somebody else has changed a
setting since, revert reports it and leaves it alone. After a reboot it restores only files, because the kernel's values are
not those that apply set; in another network namespace it leaves those that each namespace has for itself. A second revert has nothing to do.

It also restores what a run of "lull experiment" or "lull bench" has raised, if the run was killed.

The exit code is 1 if a setting was left because somebody else has changed it, or could not be restored.

Examples:
  sudo lull tune revert`
}

func (c *tuneRevert) Run() error {
	m, err := tuning.Read(c.Root)
	if err != nil {
		return err
	}
	all, err := m.Revert()
	return told(all, err, "There is nothing to revert.")
}

// told prints what happened to each thing.
func told(all []tuning.Reverted, err error, none string) error {
	drift := false
	for _, r := range all {
		drift = drift || r.Drift
		if r.Err == nil {
			fmt.Printf("%s: %s\n", r.Name, r.To)
		}
	}
	switch {
	case err != nil:
		return fmt.Errorf("%w%s", err, hint(err))
	case drift:
		return errNotOK
	case len(all) == 0:
		fmt.Println(none)
	}
	return nil
}

type tuneAddresses struct {
	Dev          string   `help:"The network device." required:"" placeholder:"DEV"`
	Add          int      `help:"Add this many free addresses next to the device's own. 0, the default, means none." placeholder:"N" range:"0..1024" example:"14"`
	Addresses    []string `help:"Add these addresses and address ranges." placeholder:"LIST"`
	Remove       bool     `help:"Remove the addresses that were added."`
	Yes          bool     `help:"Make the changes. Without it, they are only printed."`
	Target       int      `help:"Number of connections that the addresses are for." default:"1000000" range:"1..1073741824"`
	InstanceType string   `help:"EC2 instance type, if it cannot be found out." placeholder:"TYPE"`
	Root         string   `help:"Directory that holds /proc, /sys and /var." default:"/" type:"existingdir" hidden:"" env:"-"`
}

func (tuneAddresses) Help() string {
	return `A generator has 64,512 ports for each of its addresses and each port of the server; it opens 63,248 connections with them and
keeps the rest to spare, because other programs use some. lull tune addresses adds
addresses as "ip addr add" does, until the next boot. --add takes addresses of the device's subnet that this machine has
not seen in use, but not the first four and not the last; it cannot know that they are free. On EC2, an address works
only after AWS has assigned it: the commands for that are printed too, and AWS refuses addresses that are in use.

--remove removes the addresses that were added and are still there.

Examples:
  lull tune addresses --dev eth0
  sudo lull tune addresses --dev eth0 --add 14 --yes
  sudo lull tune addresses --dev eth0 --addresses 10.0.0.20-10.0.0.33 --yes
  sudo lull tune addresses --dev eth0 --remove --yes
  lull tune addresses --dev eth0 --add 14 --instance-type m4.xlarge`
}

// Validate checks the flags.
func (c *tuneAddresses) Validate() error {
	ways := 0
	for _, given := range []bool{c.Add != 0, len(c.Addresses) > 0, c.Remove} {
		if given {
			ways++
		}
	}
	if ways > 1 {
		return errors.New("--add, --addresses and --remove: only one of them can be used at a time")
	}
	if _, known := tuning.FindInstanceType(c.InstanceType); c.InstanceType != "" && !known {
		return fmt.Errorf("--instance-type=%s: unknown instance type, or newer than the table in lull", c.InstanceType)
	}
	_, err := loadgen.ParseSources(c.Addresses)
	return named("--addresses", err)
}

func (c *tuneAddresses) Run() error {
	m, err := tuning.Read(c.Root)
	if err != nil {
		return err
	}
	if c.Remove {
		return c.remove(m)
	}
	n, err := tuning.ReadNetwork(c.Dev)
	if err != nil {
		return err
	}
	addrs, _ := loadgen.ParseSources(c.Addresses) // Validate has accepted them
	if c.Add > 0 {
		addrs, err = n.Free(c.Add)
	} else if len(addrs) > 0 {
		err = n.Check(addrs)
	}
	if err != nil {
		return err
	}
	c.advise(m, n, addrs)
	if len(addrs) == 0 {
		return nil
	}
	if !c.Yes {
		fmt.Printf("\nwould add to %s: %s\n", c.Dev, list(addrs))
		fmt.Println(unchanged)
		return nil
	}
	if err := m.AddAddresses(n, addrs); err != nil {
		return fmt.Errorf("%w%s", err, hint(err))
	}
	fmt.Printf("\nAdded to %s: %s\n", c.Dev, list(addrs))
	fmt.Printf("lull load uses them by default. To undo: lull tune addresses --dev %s --remove --yes\n", c.Dev)
	return nil
}

// advise prints how many connections the addresses allow, and the commands that
// assign them on EC2.
func (c *tuneAddresses) advise(m *tuning.Machine, n *tuning.Network, addrs []netip.Addr) {
	name := c.InstanceType
	if name == "" {
		name = m.InstanceType()
	}
	kind, known := tuning.FindInstanceType(name)
	fmt.Printf("%s has %s", c.Dev, n.Prefix)
	if more := len(n.Own) - 1; more > 0 {
		fmt.Printf(" and %d more", more)
	}
	if len(addrs) > 0 {
		fmt.Printf("; with %d more:", len(addrs))
	}
	fmt.Println()
	fmt.Println(kind.Advice(len(n.Own)+len(addrs), c.Target))
	if !known && m.OnEC2() {
		fmt.Println("This is EC2, but the instance type is unknown: name it with --instance-type.")
	}
	if len(addrs) == 0 || !known && !m.OnEC2() {
		return
	}
	fmt.Println("\nTo assign the addresses on AWS, run, with credentials that allow it:")
	for _, line := range kind.AWSCommands(n, addrs) {
		fmt.Println("  " + line)
	}
	fmt.Println("and to release them afterwards:\n  " + kind.AWSUndo(addrs))
}

func list(addrs []netip.Addr) string {
	return strings.Trim(fmt.Sprint(addrs), "[]")
}

func (c *tuneAddresses) remove(m *tuning.Machine) error {
	if !c.Yes {
		added, err := m.AddedAddresses(c.Dev)
		if err != nil {
			return err
		}
		for _, a := range added {
			fmt.Printf("would remove %s from %s\n", a.Prefix, a.Dev)
		}
		if len(added) == 0 {
			fmt.Println("There is nothing to remove.")
		} else {
			fmt.Println(unchanged)
		}
		return nil
	}
	all, err := m.RemoveAddresses(c.Dev)
	return told(all, err, "There is nothing to remove.")
}
