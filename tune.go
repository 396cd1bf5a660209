package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"unicode/utf8"

	"github.com/seed-134acfd0/lull/loadgen"
	"github.com/seed-134acfd0/lull/tuning"
)

type tuneCommand struct {
	Show      tuneShow      `cmd:"" help:"Show what is too low, and what there is to revert."`
	Apply     tuneApply     `cmd:"" help:"Raise what is too low, now and at every boot."`
	Revert    tuneRevert    `cmd:"" help:"Put back what apply has changed."`
	Addresses tuneAddresses `cmd:"" help:"Add source addresses to a device, or remove them."`
}

func (tuneCommand) Help() string {
	return `Raises kernel settings and the limits of systemd's units for so many connections, and puts them back. Nothing is ever
lowered. What is about to change is noted first, in ` + tuning.StateFile + `, so that revert puts everything back
wherever apply was killed.

Examples:
  lull tune show --role server --target 1000000
  lull tune apply --role server --target 1000000
  lull tune apply --role server --target 1000000 --yes
  lull tune revert
  lull tune addresses --dev eth0 --add 14`
}

// tuneWish is what a machine is tuned for.
type tuneWish struct {
	Role   string   `help:"What is to run here: ${enum}." enum:"server,loadgen,both" default:"server"`
	Target int      `help:"Connections." default:"1000000"`
	Fanout int      `help:"Bytes of a message that goes to all and may wait unread; 0 if there is none." default:"32"`
	Only   []string `help:"These settings and no others." placeholder:"KEY"`
	With   []string `help:"These too, of those that can do harm and are left otherwise." placeholder:"KEY"`
	Root   string   `help:"Where /proc, /etc and /var are." default:"/" type:"existingdir" hidden:""`
}

// Validate refuses what no machine could be tuned for.
func (w *tuneWish) Validate() error {
	return cmp.Or(checkTarget(w.Target), checkFanout(w.Fanout), w.choice().Check())
}

func (w *tuneWish) choice() tuning.Choice { return tuning.Choice{Only: w.Only, With: w.With} }

func (w *tuneWish) plan() (*tuning.Machine, *tuning.Plan, error) {
	m, err := tuning.Read(w.Root)
	if err != nil {
		return nil, nil, err
	}
	p, err := m.Plan(demand(w.Role, w.Target, w.Fanout), w.choice())
	return m, p, err
}

type tuneShow struct {
	tuneWish
}

func (tuneShow) Help() string {
	return `Changes nothing.

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
		return nil // the plan has warned of it
	}
	if err != nil {
		return err
	}
	if len(applied) > 0 {
		fmt.Printf("\n\"lull tune revert\" puts back:\n  %s\n", strings.Join(applied, "\n  "))
	}
	return nil
}

type tuneApply struct {
	tuneWish
	Yes bool `help:"Do it; otherwise only say what would be done."`
}

func (tuneApply) Help() string {
	return `Without --yes it says exactly what it would do, and changes nothing. With --yes all of it is done or none: whether
everything can be written is found out first, and what was done before something fails is undone.

Three things are changed: kernel settings, now; ` + tuning.SysctlPath + `, which sets them at every boot; and
limits.conf beside the units ` + tuning.ServerUnit + ` and ` + tuning.GeneratorUnit + `, as the role has it. Settings that can do harm
elsewhere (net.ipv4.tcp_mem, conntrack's) are left unless --with or --only names them.

Applied again, for more connections or with other settings, revert still goes back to before the first.

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
		fmt.Println("\nNothing to do.")
		return nil
	}
	if !c.Yes {
		writeFiles(os.Stdout, p)
		if err := m.Permitted(p); err != nil {
			fmt.Printf("\nWhoever runs this may not do it: %v%s.\n", err, hint(err))
		}
		fmt.Println("\nNothing was changed. With --yes it is done.")
		return nil
	}
	if err := m.Apply(p); err != nil {
		return fmt.Errorf("%w%s", err, hint(err))
	}
	fmt.Printf("\n%s set. To undo: lull tune revert (%s).\n", count(len(p.Changes()), "kernel setting"), tuning.StateFile)
	for _, f := range p.Files {
		fmt.Println("Wrote", f.Path)
	}
	if len(p.Units) > 0 {
		fmt.Println("Units have their limits after: systemctl daemon-reload, and a restart.")
	}
	return nil
}

// hint says what to do about an error, if that is known.
func hint(err error) string {
	switch {
	case errors.Is(err, fs.ErrPermission) && os.Geteuid() != 0:
		return ": this needs root"
	case errors.Is(err, syscall.EROFS):
		return ": this may be a container; then tune its host"
	}
	return ""
}

func count(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}

// writePlan writes a table: what there is, what is wanted, what it will be,
// and the reason below.
func writePlan(w io.Writer, p *tuning.Plan) {
	rows := [][4]string{{"KEY", "NOW", "WANTED", "AFTER"}}
	whys := []string{""}
	for _, r := range append(p.Rows, p.Units...) {
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

// writeFiles writes what would be in the files.
func writeFiles(w io.Writer, p *tuning.Plan) {
	for _, f := range p.Files {
		fmt.Fprintf(w, "\nwould write %s:\n", f.Path)
		for line := range strings.Lines(string(f.Text)) {
			fmt.Fprintf(w, "  | %s", line)
		}
	}
	fmt.Fprintf(w, "\nwould note first what to put back, in %s\n", tuning.StateFile)
}

type tuneRevert struct {
	Root string `help:"Where /proc, /etc and /var are." default:"/" type:"existingdir" hidden:""`
}

func (tuneRevert) Help() string {
	return `Puts back what still holds the value that apply gave it; what somebody else has changed since is told and left.
After a reboot, and in another network namespace, only files are put back: the values that are there are not those that
apply has set. A second revert has nothing to do.

The exit code is 1 if something was left that somebody else has changed, or could not be put back.

Examples:
  sudo lull tune revert`
}

func (c *tuneRevert) Run() error {
	m, err := tuning.Read(c.Root)
	if err != nil {
		return err
	}
	all, err := m.Revert()
	return told(all, err, "Nothing to revert.")
}

// told writes what became of each thing.
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
	Dev          string   `help:"The device." required:"" placeholder:"DEV"`
	Add          int      `help:"Add so many free neighbours of the device's address…" placeholder:"N"`
	Addresses    []string `help:"…or these, and ranges of them." placeholder:"LIST"`
	Remove       bool     `help:"Remove what was added."`
	Yes          bool     `help:"Do it; otherwise only say what would be done."`
	Target       int      `help:"Connections that they are for." default:"1000000"`
	InstanceType string   `help:"EC2's, where the machine does not say." placeholder:"TYPE"`
	Root         string   `help:"Where /proc, /sys and /var are." default:"/" type:"existingdir" hidden:""`
}

func (tuneAddresses) Help() string {
	return `A generator makes 64,512 connections from each of its addresses to each port of the server. More addresses are added as
"ip addr add" does it, until the next boot. Nobody is asked whether they are free; they are neighbours that this machine
has not heard of, without the subnet's first four and last. On EC2 nothing reaches them before AWS knows them: the
commands for that are written too, and AWS refuses those that others have.

--remove takes away what was added and is still there.

Examples:
  lull tune addresses --dev eth0
  sudo lull tune addresses --dev eth0 --add 14 --yes
  sudo lull tune addresses --dev eth0 --addresses 10.0.0.20-10.0.0.33 --yes
  sudo lull tune addresses --dev eth0 --remove --yes
  lull tune addresses --dev eth0 --add 14 --instance-type m4.xlarge`
}

// Validate refuses what cannot be meant.
func (c *tuneAddresses) Validate() error {
	ways := 0
	for _, given := range []bool{c.Add != 0, len(c.Addresses) > 0, c.Remove} {
		if given {
			ways++
		}
	}
	switch {
	case ways > 1:
		return errors.New("--add, --addresses and --remove: one at a time")
	case c.Add < 0 || c.Add > tuning.AddressesMax:
		return fmt.Errorf("--add=%d: it takes 1 to %d", c.Add, tuning.AddressesMax)
	}
	if err := checkTarget(c.Target); err != nil {
		return err
	}
	if _, known := tuning.FindInstanceType(c.InstanceType); c.InstanceType != "" && !known {
		return fmt.Errorf("--instance-type=%s: EC2 has no such type, or the table here is older", c.InstanceType)
	}
	_, err := loadgen.ParseSources(c.Addresses)
	return err
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
	addrs, _ := loadgen.ParseSources(c.Addresses) // Validate took them
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
		fmt.Println("Nothing was changed. With --yes it is done.")
		return nil
	}
	if err := m.AddAddresses(n, addrs); err != nil {
		return fmt.Errorf("%w%s", err, hint(err))
	}
	fmt.Printf("\nAdded to %s: %s\n", c.Dev, list(addrs))
	fmt.Printf("lull load takes them by itself. To undo: lull tune addresses --dev %s --remove --yes\n", c.Dev)
	return nil
}

// advise says what the addresses are good for, and what AWS has to be told.
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
		fmt.Println("This is EC2, but its type cannot be seen: say it with --instance-type.")
	}
	if len(addrs) == 0 || !known && !m.OnEC2() {
		return
	}
	fmt.Println("\nAWS has to be told, by whoever may:")
	for _, line := range kind.AWSCommands(n, addrs) {
		fmt.Println("  " + line)
	}
	fmt.Println("and in the end:\n  " + kind.AWSUndo(addrs))
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
			fmt.Println("Nothing to remove.")
		} else {
			fmt.Println("Nothing was changed. With --yes it is done.")
		}
		return nil
	}
	all, err := m.RemoveAddresses(c.Dev)
	return told(all, err, "Nothing to remove.")
}
