package scenario

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/seed-134acfd0/lull/loadgen/plan"
)

const (
	// FileMax is the largest scenario, in bytes. Files that it names may be larger.
	FileMax = 256 << 10
	// visitMax is how many bytes of names and values are read of it, and each of them counts
	// for nodeCost more. Aliases can make the decoder read the same ones again and again.
	visitMax = 8 * FileMax
	nodeCost = 16
	// depthMax is how many mappings and lists may be within each other.
	depthMax = 100
	// patternsMax is how many different regular expressions there may be. One can take half a
	// megabyte.
	patternsMax = 100
)

// decoder reads one scenario.
type decoder struct {
	files    fs.FS
	visited  int                      // bytes of names and values
	read     int                      // bytes of other files
	patterns map[string]*plan.Pattern // by what is written
	texts    map[string]*plan.Text    // of files that are messages
	lines    map[string][]string      // of files of which templates take lines
	keys     map[place]position       // where keys are, for mistakes that are found later
	inside   map[*yaml.Node]struct{}  // nodes that are being read, so that none is read within itself
}

// place is a key of what begins at a line; the key "" is the whole.
type place struct {
	line int
	key  string
}

type position struct {
	node *yaml.Node
	name string // of the key in the file
}

// document is the one document of a file.
func document(data []byte) (*yaml.Node, error) {
	if len(data) > FileMax {
		return nil, &Error{Text: fmt.Sprintf("a scenario has at most %d bytes", FileMax)}
	}
	in := yaml.NewDecoder(bytes.NewReader(data))
	var first, more yaml.Node
	switch err := in.Decode(&first); {
	case errors.Is(err, io.EOF):
		return nil, &Error{Text: "it is empty: a scenario needs url, groups and phases"}
	case err != nil:
		return nil, syntax(err)
	}
	if err := in.Decode(&more); err == nil {
		return nil, mistake(&more, "it must have one document")
	} else if !errors.Is(err, io.EOF) {
		return nil, syntax(err)
	}
	return first.Content[0], nil
}

// enter follows an alias, and counts what is read.
func (d *decoder) enter(n *yaml.Node) (*yaml.Node, error) {
	at := n
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if d.visited += nodeCost + len(n.Value); d.visited > visitMax {
		return nil, mistake(at, "aliases repeat too much: write less, or fewer of them")
	}
	if n.Style&yaml.TaggedStyle != 0 {
		return nil, mistake(at, "has the tag %.40s: tags have no meaning here", n.Tag)
	}
	return n, nil
}

// within calls a function for a node that has others, and refuses one that is within
// itself.
func (d *decoder) within(n *yaml.Node, read func() error) error {
	if _, again := d.inside[n]; again {
		return mistake(n, "it contains itself")
	}
	if len(d.inside) == depthMax {
		return mistake(n, "it is more than %d mappings and lists deep", depthMax)
	}
	d.inside[n] = struct{}{}
	defer delete(d.inside, n)
	return read()
}

// mapping calls a function for each key and its value.
func (d *decoder) mapping(n *yaml.Node, entry func(key, value *yaml.Node) error) error {
	n, err := d.enter(n)
	if err != nil {
		return err
	}
	if n.Kind != yaml.MappingNode {
		return mistake(n, "must have keys with values")
	}
	return d.within(n, func() error {
		seen := map[string]bool{}
		for pair := range slices.Chunk(n.Content, 2) {
			key, err := d.enter(pair[0])
			switch {
			case err != nil:
				return err
			case key.Kind != yaml.ScalarNode || isNull(key):
				return mistake(pair[0], "a key must be a name")
			case key.Value == "<<" && key.Style == 0:
				return mistake(key, "<< is not known here: an alias can only be a whole value")
			case seen[key.Value]:
				return mistake(key, "%.40q is there twice", key.Value)
			}
			seen[key.Value] = true
			if err := entry(key, pair[1]); err != nil {
				return err
			}
		}
		return nil
	})
}

// sequence calls a function for each item of a list, or for the one item that is there
// without a list.
func (d *decoder) sequence(n *yaml.Node, item func(*yaml.Node) error) error {
	list, err := d.enter(n)
	if err != nil {
		return err
	}
	if list.Kind != yaml.SequenceNode {
		return item(n)
	}
	return d.within(list, func() error {
		for _, n := range list.Content {
			if err := item(n); err != nil {
				return err
			}
		}
		return nil
	})
}

// scalar is a value that has no parts, as it is written.
func (d *decoder) scalar(n *yaml.Node, must string) (string, error) {
	value, err := d.enter(n)
	if err != nil {
		return "", err
	}
	if value.Kind != yaml.ScalarNode || isNull(value) {
		return "", mistake(n, "must be %s", must)
	}
	return value.Value, nil
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.Tag == "!!null" }

// open reads a file beside the scenario that a node names.
func (d *decoder) open(n *yaml.Node, name string, most int) (string, error) {
	if !fs.ValidPath(name) {
		return "", mistake(n, "%.80q: files are named from the scenario's folder, as names.txt or data/names.txt, and are within it", name)
	}
	most = min(most, plan.FileBytesMax-d.read)
	file, err := d.files.Open(name)
	if failed := (*fs.PathError)(nil); errors.As(err, &failed) {
		err = failed.Err
	}
	if err != nil {
		return "", mistake(n, "%.80q cannot be read: %s", name, err)
	}
	defer file.Close()
	if info, err := file.Stat(); err != nil || !info.Mode().IsRegular() {
		return "", mistake(n, "%.80q is no file", name)
	}
	data, err := io.ReadAll(io.LimitReader(file, int64(most)+1))
	switch {
	case err != nil:
		return "", mistake(n, "%.80q cannot be read: %s", name, err)
	case len(data) > most:
		return "", mistake(n, "%.80q is too large: it may have %d bytes, and all files together %d", name, most, plan.FileBytesMax)
	}
	d.read += len(data)
	return string(data), nil
}

// template reads a template, and the files of which it takes lines.
func (d *decoder) template(n *yaml.Node, raw string) (*plan.Text, error) {
	t, err := plan.ParseText(raw)
	if err != nil {
		return nil, mistake(n, "%s", err)
	}
	for _, name := range t.Files() {
		if _, known := d.lines[name]; known {
			continue
		}
		all, err := d.open(n, name, plan.FileBytesMax)
		if err != nil {
			return nil, err
		}
		lines := strings.Split(strings.ReplaceAll(strings.TrimRight(all, "\r\n"), "\r\n", "\n"), "\n")
		if all == "" {
			return nil, mistake(n, "%.80q is empty: a line of it is needed", name)
		}
		d.lines[name] = lines
	}
	return t, nil
}

// payload is the text of a file, as a template. The line break at its end does not count.
func (d *decoder) payload(n *yaml.Node, name string) (*plan.Text, error) {
	if t, known := d.texts[name]; known {
		return t, nil
	}
	raw, err := d.open(n, name, plan.TextMax)
	if err != nil {
		return nil, err
	}
	t, err := d.template(n, strings.TrimSuffix(strings.TrimSuffix(raw, "\n"), "\r"))
	if err != nil {
		return nil, err
	}
	d.texts[name] = t
	return t, nil
}
