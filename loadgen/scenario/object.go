package scenario

import (
	"fmt"
	"strings"

	"github.com/agext/levenshtein"
	"go.yaml.in/yaml/v3"
)

// value is what a key can have: how it is read, and what schema and manual say.
type value[V any] struct {
	schema schema
	limits string // such as "1 to 1000"
	read   func(*decoder, *yaml.Node) (V, error)
}

// key is a key of a T.
type key[T any] struct {
	name    string
	what    string // a sentence for schema and manual
	without string // what counts if it is not there; "" if it must be
	field   string // JSON's name of it in a plan, if it has another one
	schema  schema
	limits  string
	read    func(*decoder, *yaml.Node, *T) error
}

// to makes a key whose value goes into a T.
func to[T, V any](name string, v value[V], put func(*T, V), without, what string) key[T] {
	return key[T]{name: name, what: what, without: without, schema: v.schema, limits: v.limits, read: func(d *decoder, n *yaml.Node, into *T) error {
		got, err := v.read(d, n)
		if err == nil {
			put(into, got)
		}
		return err
	}}
}

// is makes a key whose value is at a place in a T.
func is[T, V any](name string, v value[V], at func(*T) *V, without, what string) key[T] {
	return to(name, v, func(into *T, got V) { *at(into) = got }, without, what)
}

// as is a key that has another name in a plan.
func (k key[T]) as(field string) key[T] {
	k.field = field
	return k
}

// of makes a key of an S one of a T that has an S.
func of[T, S any](keys []key[S], at func(*T) *S) []key[T] {
	var all []key[T]
	for _, k := range keys {
		all = append(all, key[T]{k.name, k.what, k.without, k.field, k.schema, k.limits, func(d *decoder, n *yaml.Node, into *T) error { return k.read(d, n, at(into)) }})
	}
	return all
}

// object is a mapping with known keys.
type object[T any] struct {
	name string
	what string
	keys []key[T]
}

func (o *object[T]) names() (names []string) {
	for _, k := range o.keys {
		names = append(names, k.name)
	}
	return names
}

// decode reads a mapping.
func (o *object[T]) decode(d *decoder, n *yaml.Node, into *T) error {
	seen := map[string]bool{}
	start := n
	err := d.mapping(n, func(name, value *yaml.Node) error {
		for _, k := range o.keys {
			if k.name != name.Value {
				continue
			}
			seen[k.name] = true
			d.note(start, k.name, k.field, value)
			return about(k.name, k.read(d, value, into))
		}
		return mistake(name, "%s has no key %.40q: %s", o.name, name.Value, advice(name.Value, o.names()))
	})
	if err != nil {
		return err
	}
	for _, k := range o.keys {
		if k.without == "" && !seen[k.name] {
			return mistake(n, "%s needs the key %s: %s", o.name, k.name, k.what)
		}
	}
	d.note(start, "", "", start)
	return nil
}

// note remembers where a key is of what begins at a node.
func (d *decoder) note(start *yaml.Node, name, field string, at *yaml.Node) {
	d.keys[place{start.Line, strings.ReplaceAll(name, "-", "_")}] = position{at, name}
	if field != "" {
		d.keys[place{start.Line, field}] = position{at, name}
	}
}

// about puts a key's name in front of a mistake, unless it names one itself.
func about(name string, err error) error {
	if e, ok := err.(*Error); ok && strings.HasPrefix(e.Text, "must ") {
		e.Text = name + " " + e.Text
	}
	return err
}

// advice says which name is meant, or which there are.
func advice(name string, known []string) string {
	const near = 3
	best, least := "", near
	for _, k := range known {
		if n := levenshtein.Distance(strings.ToLower(name), k, nil); n < least && n < len(k) {
			best, least = k, n
		}
	}
	if best != "" {
		return fmt.Sprintf("did you mean %s?", best)
	}
	return "it can have " + strings.Join(known, ", ")
}

// variants are objects that are told apart by their first key.
type variants[T any] struct {
	name    string
	objects []object[T]
}

// pick is the object that a mapping is.
func (v *variants[T]) pick(d *decoder, n *yaml.Node) (*object[T], error) {
	m, err := d.enter(n)
	if err != nil {
		return nil, err
	}
	var names []string
	for i := range v.objects {
		o := &v.objects[i]
		names = append(names, o.keys[0].name)
		if m.Kind == yaml.MappingNode && find(m, o.keys[0].name) != nil {
			return o, nil
		}
	}
	if m.Kind == yaml.MappingNode && len(m.Content) > 0 {
		first := m.Content[0]
		return nil, mistake(first, "%s %.40q is not known: %s", v.name, first.Value, advice(first.Value, names))
	}
	return nil, mistake(n, "a %s must have one of the keys %s", v.name, strings.Join(names, ", "))
}

// find is the value of a key, or nil.
func find(mapping *yaml.Node, name string) *yaml.Node {
	for i := 0; i+1 < len(mapping.Content); i += 2 {
		if mapping.Content[i].Value == name {
			return mapping.Content[i+1]
		}
	}
	return nil
}
