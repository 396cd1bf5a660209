package scenario

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/seed-134acfd0/lull/loadgen/plan"
)

// scenarioFile is what a file has.
type scenarioFile struct {
	settings
	name   string
	groups [][2]*yaml.Node // names and values; what is above them may come after them in the file
	phases []plan.Phase
	expect []plan.Threshold
}

var fileObject = object[scenarioFile]{"scenario", "The file. The keys of groups, but users and script, can stand here too: they are then those of each group that does not have them itself.", slices.Concat(
	[]key[scenarioFile]{
		is("name", name("up to "+strconv.Itoa(plan.NameMax)+" characters"), func(f *scenarioFile) *string { return &f.name }, "none", "Its name in results."),
	},
	of(slices.Concat(connecting, behaving), func(f *scenarioFile) *settings { return &f.settings }),
	[]key[scenarioFile]{
		is("groups", groups(), func(f *scenarioFile) *[][2]*yaml.Node { return &f.groups }, "", "The groups of users, by name."),
		is("phases", phases(), func(f *scenarioFile) *[]plan.Phase { return &f.phases }, "", "What happens, one after the other."),
		is("expect", list(threshold(), "thresholds"), func(f *scenarioFile) *[]plan.Threshold { return &f.expect }, "all users connected, nothing lost",
			"What has to come of it, as p99(handshake)<50ms or lost=0: otherwise the exit code is not 0."),
	},
)}

// groups are names with groups, which are read later.
func groups() value[[][2]*yaml.Node] {
	schema := schema{"type": "object", "minProperties": 1, "additionalProperties": reference("group")}
	return value[[][2]*yaml.Node]{schema, "1 to " + strconv.Itoa(plan.GroupsMax) + " names with groups; names are of letters, digits, dots, hyphens and underscores", func(d *decoder, n *yaml.Node) (all [][2]*yaml.Node, err error) {
		err = d.mapping(n, func(key, value *yaml.Node) error {
			all = append(all, [2]*yaml.Node{key, value})
			return nil
		})
		return all, err
	}}
}

func phases() value[[]plan.Phase] {
	schema := schema{"type": "array", "minItems": 1, "maxItems": plan.PhasesMax, "items": reference("phase")}
	return value[[]plan.Phase]{schema, "a list of 1 to " + plan.Thousands(plan.PhasesMax), func(d *decoder, n *yaml.Node) (all []plan.Phase, err error) {
		err = d.sequence(n, func(n *yaml.Node) error {
			p, err := d.phase(n)
			all = append(all, p)
			return err
		})
		return all, err
	}}
}

func threshold() value[plan.Threshold] {
	return value[plan.Threshold]{schema{"type": "string"}, "", func(d *decoder, n *yaml.Node) (plan.Threshold, error) {
		raw, err := d.scalar(n, "a text")
		if err != nil {
			return plan.Threshold{}, err
		}
		t, err := plan.ParseThreshold(raw)
		if err != nil {
			return t, mistake(n, "%s", err)
		}
		return t, nil
	}}
}

// Load reads the scenario in a file, and the files beside it that it names. The plan
// is valid. An error begins with the file's name and says what to do; where it knows the
// line, it is an *[Error].
func Load(path string) (*plan.Plan, error) {
	p, err := Parse(os.DirFS(filepath.Dir(path)), filepath.Base(path))
	return p, in(path, err)
}

// Parse is [Load] for files in a file system. It reads at most [FileMax] bytes of
// the scenario, and plan.FileBytesMax of the other files.
func Parse(files fs.FS, name string) (*plan.Plan, error) {
	d := &decoder{files: files, patterns: map[string]*plan.Pattern{}, texts: map[string]*plan.Text{}, lines: map[string][]string{}, keys: map[place]position{}, inside: map[*yaml.Node]struct{}{}}
	raw, err := d.open(&yaml.Node{}, name, FileMax)
	if err != nil {
		return nil, in(name, err)
	}
	p, err := d.plan([]byte(raw))
	return p, in(name, err)
}

func (d *decoder) plan(data []byte) (*plan.Plan, error) {
	root, err := document(data)
	if err != nil {
		return nil, err
	}
	var f scenarioFile
	if err := fileObject.decode(d, root, &f); err != nil {
		return nil, err
	}
	namePhases(f.phases)
	p := &plan.Plan{Name: f.name, Phases: f.phases, Expect: f.expect}
	for _, g := range f.groups {
		group, err := d.group(g[0], g[1], f.settings)
		if err != nil {
			return nil, err
		}
		p.Groups = append(p.Groups, group)
	}
	if len(d.lines) > 0 {
		p.Files = d.lines
	}
	return p, d.locate(p.Validate())
}

// locate is a plan's fault as a mistake in the file.
func (d *decoder) locate(err error) error {
	var f *plan.Fault
	if !errors.As(err, &f) {
		return err
	}
	at, known := d.keys[place{f.Line, f.Key}]
	named := *f
	if named.Key = strings.ReplaceAll(f.Key, "_", "-"); known {
		named.Key = at.name
	} else if at, known = d.keys[place{f.Line, ""}]; !known {
		return &Error{Line: f.Line, Text: named.Text()}
	}
	return mistake(at.node, "%s", named.Text())
}
