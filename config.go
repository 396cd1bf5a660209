package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
	"go.yaml.in/yaml/v3"
)

// configFlag is the flag that names the configuration file.
type configFlag string

// BeforeResolve reads the file, before flags that were not given are looked up in
// it.
func (f configFlag) BeforeResolve(ctx *kong.Context, trace *kong.Path, file *configFile) error {
	name := ctx.FlagValue(trace.Flag).(configFlag)
	if name == "" {
		return nil // LULL_CONFIG= is no file
	}
	if err := file.read(string(name), ctx.Model.Node); err != nil {
		return fmt.Errorf("%s: %w", trace.Flag.ShortSummary(), err)
	}
	return nil
}

// configFile has the values of flags that a file gives. It has a part for each
// command, whose keys are the names of the command's flags.
type configFile struct {
	name   string
	values map[string]setting // by the command's path and the flag's name
}

// setting is a value in a file.
type setting struct {
	value any // a string, or a []any of strings
	line  int
}

// read reads a file for the commands of an application. The error names the
// line.
func (f *configFile) read(name string, app *kong.Node) error {
	file, err := os.Open(name)
	if err != nil {
		return err
	}
	defer file.Close()
	f.name, f.values = name, map[string]setting{}
	in := yaml.NewDecoder(file)
	var document, more yaml.Node
	if err := in.Decode(&document); errors.Is(err, io.EOF) {
		return nil // it is empty
	} else if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if err := in.Decode(&more); !errors.Is(err, io.EOF) {
		return fmt.Errorf("%s: it must have one document", name)
	}
	return f.part(document.Content[0], app)
}

// part reads the part of a command.
func (f *configFile) part(at *yaml.Node, command *kong.Node) error {
	if at.Kind != yaml.MappingNode {
		return f.mistake(at, "%s: must have keys with values, as in \"serve: {status: 1m}\"", pathOf(command))
	}
	seen := map[string]bool{}
	for pair := range slices.Chunk(at.Content, 2) {
		key, value := pair[0], pair[1]
		if seen[key.Value] {
			return f.mistake(key, "%s is there twice", key.Value)
		}
		seen[key.Value] = true
		if err := f.entry(key, value, command); err != nil {
			return err
		}
	}
	return nil
}

// entry reads a key and its value: of a command, or of a flag.
func (f *configFile) entry(key, value *yaml.Node, command *kong.Node) error {
	for _, child := range command.Children {
		if child.Name == key.Value && configurable(child) {
			return f.part(value, child)
		}
	}
	for _, flag := range command.Flags {
		if flag.Name == key.Value && command.Parent != nil {
			s, err := f.setting(value, flag)
			f.values[pathOf(command)+" "+flag.Name] = s
			return err
		}
	}
	if command.Parent == nil {
		return f.mistake(key, "unknown key %q: must be a command with flags, as serve or tune", key.Value)
	}
	return f.mistake(key, "unknown key %q: \"lull %s --help\" shows the flags that there are", key.Value, pathOf(command))
}

// setting reads the value of a flag, and checks that it is one.
func (f *configFile) setting(at *yaml.Node, flag *kong.Flag) (setting, error) {
	s := setting{line: at.Line}
	switch {
	case at.Kind == yaml.ScalarNode && at.Tag != "!!null":
		s.value = at.Value
	case at.Kind == yaml.SequenceNode && flag.IsSlice() && !slices.ContainsFunc(at.Content, func(n *yaml.Node) bool { return n.Kind != yaml.ScalarNode }):
		all := []any{}
		for _, n := range at.Content {
			all = append(all, n.Value)
		}
		s.value = all
	case flag.IsSlice():
		return s, f.mistake(at, "%s: must be a value or a list of values", flag.Name)
	default:
		return s, f.mistake(at, "%s: must be one value", flag.Name)
	}
	scratch := reflect.New(flag.Target.Type()).Elem()
	scan := kong.Scan().PushTyped(s.value, kong.FlagValueToken)
	if err := flag.Mapper.Decode(&kong.DecodeContext{Value: flag.Value, Scan: scan}, scratch); err != nil {
		return s, f.mistake(at, "%s: %w", flag.Name, err)
	}
	return s, nil
}

func (f *configFile) mistake(at *yaml.Node, format string, args ...any) error {
	return fmt.Errorf("%s:%d: "+format, append([]any{f.name, at.Line}, args...)...)
}

// Validate does nothing: read has checked the file.
func (f *configFile) Validate(*kong.Application) error { return nil }

// Resolve returns the file's value for a flag, or nil. The environment comes
// first.
func (f *configFile) Resolve(_ *kong.Context, parent *kong.Path, flag *kong.Flag) (any, error) {
	if _, set := variableOf(flag); set {
		return nil, nil
	}
	value := f.values[pathOf(parent.Node())+" "+flag.Name].value
	if value == "" && flag.Tag.Type == "path" {
		return nil, nil // kong would make the working directory of it
	}
	return value, nil
}

// pathOf is the path of a command in a file: "tune apply". What config shows is
// what serve would do.
func pathOf(command *kong.Node) string {
	if command.Parent == nil {
		return "lull"
	}
	if command.Name == "config" {
		return "serve"
	}
	return strings.TrimPrefix(pathOf(command.Parent)+" "+command.Name, "lull ")
}

// configurable reports whether a file may have a part for a command: it has
// flags, or commands that have, and is not the one that shows another's.
func configurable(command *kong.Node) bool {
	return command.Name != "config" && (len(command.Flags) > 0 || slices.ContainsFunc(command.Children, configurable))
}

// variableOf is the environment variable that sets a flag.
func variableOf(flag *kong.Flag) (name string, set bool) {
	for _, name := range flag.Envs {
		if _, set := os.LookupEnv(name); set {
			return name, true
		}
	}
	return "", false
}

type configCommand struct {
	serveCommand
}

func (configCommand) Help() string {
	return `lull config takes the flags of lull serve. It prints what lull serve would do with them, and where each value comes
from: a flag, a variable of the environment, a line of the file that --config names, or the default. The first of these
counts. The output is itself such a file.

Each flag of each command has a variable, which its help names: LULL_ and the flag's name. In a file, each command has
a part, and the keys are the names of its flags:

  serve:
    listen: [0.0.0.0:8080, 0.0.0.0:8081]
    idle-timeout: 100s
  tune:
    apply:
      target: 1000000

Examples:
  lull config
  lull config --config /etc/lull.yml --max-conns 1000000
  LULL_IDLE_TIMEOUT=100s lull config`
}

func (c *configCommand) Run(ctx *kong.Context, file *configFile) error {
	wide := 0
	var lines, from []string
	for _, flag := range ctx.Selected().Flags {
		if flag.Hidden {
			continue
		}
		text, err := inYAML(flag)
		if err != nil {
			return err
		}
		lines = append(lines, "  "+flag.Name+": "+text)
		from = append(from, origin(ctx, file, flag))
		wide = max(wide, len(lines[len(lines)-1]))
	}
	fmt.Println("serve:")
	for i := range lines {
		fmt.Printf("%-*s  # %s\n", wide, lines[i], from[i])
	}
	return nil
}

// inYAML is a flag's value on one line of a file.
func inYAML(flag *kong.Flag) (string, error) {
	value := flag.Target.Interface()
	if s, ok := value.(fmt.Stringer); ok {
		value = s.String()
	}
	var node yaml.Node
	if err := node.Encode(value); err != nil {
		return "", err
	}
	node.Style = yaml.FlowStyle
	b, err := yaml.Marshal(&node)
	return strings.TrimSpace(string(b)), err
}

// origin says where a flag's value comes from.
func origin(ctx *kong.Context, file *configFile, flag *kong.Flag) string {
	for _, p := range ctx.Path {
		switch {
		case p.Flag != flag:
		case p.Resolved:
			return fmt.Sprintf("%s:%d", file.name, file.values[pathOf(ctx.Selected())+" "+flag.Name].line)
		default:
			return "flag"
		}
	}
	if name, set := variableOf(flag); set {
		return name
	}
	return "default"
}
