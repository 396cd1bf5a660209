package tuning

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Setting is a kernel setting and the value that a demand needs.
type Setting struct {
	Name string // as sysctl.conf spells it, "net.ipv4.tcp_mem" for instance
	Want string // one number or several; each is the least that will do
	Why  string // what happens without it
	// Named settings can harm other programs. They are changed only if the caller
	// names them.
	Named bool
}

// raise returns the new value of a setting whose value is now: each number is at
// least what is wanted.
func (s Setting) raise(now string) (string, error) {
	switch s.Name {
	case "net.ipv4.ip_local_reserved_ports":
		return joinPorts(now, s.Want)
	case "net.ipv4.tcp_tw_reuse":
		return more(now, s.Want, "0", "2", "1") // 2 is for loopback alone
	}
	have, err := numbers(now)
	if err != nil {
		return "", err
	}
	want, err := numbers(s.Want)
	if err != nil {
		return "", err
	}
	if len(have) != len(want) {
		return "", fmt.Errorf("it has %d numbers, and %q is %d", len(have), s.Want, len(want))
	}
	raised := make([]int64, len(have))
	for i := range have {
		raised[i] = max(have[i], want[i])
	}
	switch s.Name {
	case "net.ipv4.ip_local_port_range":
		raised[0] = min(have[0], want[0]) // a range grows at both ends
	case "net.netfilter.nf_conntrack_buckets":
		// The kernel rounds up to whole pages, so a value in between would not be
		// read back.
		inPage := pageBytes / 8
		raised[0] = (raised[0] + inPage - 1) / inPage * inPage
	}
	if slices.Equal(raised, have) {
		return now, nil
	}
	return strings.Trim(fmt.Sprint(raised), "[]"), nil
}

// numbers reads a sysctl's value.
func numbers(value string) ([]int64, error) {
	fields := strings.Fields(value)
	if len(fields) == 0 {
		return nil, fmt.Errorf("%q holds no number", value)
	}
	ns := make([]int64, len(fields))
	for i, f := range fields {
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("%q is not a number", f)
		}
		ns[i] = n
	}
	return ns, nil
}

// same reports whether two values are the same numbers, or, if they are not
// numbers, the same words. Spaces do not matter.
func same(a, b string) bool {
	as, err := numbers(a)
	if err != nil {
		return strings.Join(strings.Fields(a), " ") == strings.Join(strings.Fields(b), " ")
	}
	bs, err := numbers(b)
	return err == nil && slices.Equal(as, bs)
}

// more returns the one of two values that comes later in a list.
func more(a, b string, inOrder ...string) (string, error) {
	i, j := slices.Index(inOrder, a), slices.Index(inOrder, b)
	if i < 0 || j < 0 {
		return "", fmt.Errorf("%q or %q is none of %s", a, b, strings.Join(inOrder, ", "))
	}
	return inOrder[max(i, j)], nil
}

// joinPorts returns the ports that are in one list of ports and ranges or in
// the other, as the kernel writes them: "80,8080-8083".
func joinPorts(a, b string) (string, error) {
	var in [1 << 16]bool
	for part := range strings.SplitSeq(strings.TrimSpace(a)+","+strings.TrimSpace(b), ",") {
		if part == "" {
			continue
		}
		first, last, isRange := strings.Cut(part, "-")
		if !isRange {
			last = first
		}
		from, err := strconv.ParseUint(first, 10, 16)
		if err != nil {
			return "", fmt.Errorf("%q are not ports", part)
		}
		to, err := strconv.ParseUint(last, 10, 16)
		if err != nil || to < from {
			return "", fmt.Errorf("%q are not ports", part)
		}
		for p := from; p <= to; p++ {
			in[p] = true
		}
	}
	var ranges []string
	for p := 0; p < len(in); p++ {
		if !in[p] {
			continue
		}
		from := p
		for p+1 < len(in) && in[p+1] {
			p++
		}
		if from == p {
			ranges = append(ranges, strconv.Itoa(p))
		} else {
			ranges = append(ranges, fmt.Sprintf("%d-%d", from, p))
		}
	}
	return strings.Join(ranges, ","), nil
}

// sysctlHead is the first line of the files that SysctlFile makes.
const sysctlHead = "# Values that lull needs at boot. Made by \"lull tune\"; \"lull tune revert\" removes them.\n"

// SysctlFile is a file for /etc/sysctl.d that sets settings to the wanted values,
// each with its reason above it.
func SysctlFile(settings []Setting) []byte { return editSysctls([]byte(sysctlHead), settings) }

// editSysctls sets settings in the text of a file for /etc/sysctl.d to the wanted
// values. A setting that the file has gets its value in its place, in the last of its
// lines, which counts; others are added, each with its reason above it. Everything
// else stays byte for byte.
func editSysctls(text []byte, settings []Setting) []byte {
	lines := bytes.SplitAfter(bytes.Clone(text), []byte("\n"))
	var added bytes.Buffer
	for _, s := range settings {
		want := strings.Join(strings.Fields(s.Want), " ")
		i := len(lines) - 1
		for ; i >= 0; i-- {
			if name, _, ok := parseSysctl(string(lines[i])); ok && name == s.Name {
				break
			}
		}
		if i >= 0 {
			lines[i] = replaceValue(lines[i], want)
			continue
		}
		added.WriteByte('\n')
		for line := range strings.Lines(s.Why) {
			fmt.Fprintf(&added, "# %s\n", strings.TrimSpace(line))
		}
		fmt.Fprintf(&added, "%s = %s\n", s.Name, want)
	}
	edited := bytes.Join(lines, nil)
	if n := len(edited); added.Len() > 0 && n > 0 && edited[n-1] != '\n' {
		edited = append(edited, '\n')
	}
	return append(edited, added.Bytes()...)
}

// replaceValue replaces the value in a line "key = value", and none of the spaces.
func replaceValue(line []byte, value string) []byte {
	key, rest, _ := bytes.Cut(line, []byte("="))
	old := bytes.TrimSpace(rest)
	before, after, _ := bytes.Cut(rest, old)
	return slices.Concat(key, []byte("="), before, []byte(value), after)
}

// parseSysctls reads a file as sysctl.d(5) describes it. The comment directly
// above a value is its reason.
func parseSysctls(text []byte) []Setting {
	var settings []Setting
	var why []string
	for line := range strings.Lines(string(text)) {
		if comment, found := cutComment(line); found {
			why = append(why, comment)
			continue
		}
		if name, value, ok := parseSysctl(line); ok {
			settings = append(settings, Setting{Name: name, Want: value, Why: strings.Join(why, "\n")})
		}
		why = nil
	}
	return settings
}

// parseSysctl reads a line that sets a key; ok is false for any other.
func parseSysctl(line string) (name, value string, ok bool) {
	if _, comment := cutComment(line); comment {
		return "", "", false
	}
	name, value, ok = strings.Cut(line, "=")
	return sysctlName(name), strings.TrimSpace(value), ok
}

func cutComment(line string) (text string, found bool) {
	line = strings.TrimSpace(line)
	if !strings.HasPrefix(line, "#") && !strings.HasPrefix(line, ";") {
		return "", false
	}
	return strings.TrimSpace(line[1:]), true
}

// sysctlName spells a key with dots. If the first separator of a key is a slash,
// dots and slashes have changed places. A minus in front means that the key may be
// missing.
func sysctlName(name string) string {
	name = strings.TrimPrefix(strings.TrimSpace(name), "-")
	if i := strings.IndexAny(name, "./"); i >= 0 && name[i] == '/' {
		return strings.NewReplacer("/", ".", ".", "/").Replace(name)
	}
	return name
}
