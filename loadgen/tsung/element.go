package tsung

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/seed-134acfd0/lull/loadgen/plan"
)

// The most of a file.
const (
	fileBytesMax = 4 << 20
	elementsMax  = 20_000
	depthMax     = 32 // of elements within elements
	attrBytesMax = 8 << 10
)

// element is an XML element.
type element struct {
	name     string
	attrs    map[string]string
	text     strings.Builder // before its first child
	line     int
	children []*element
}

// attr is the value of an attribute. If there is none, it is the first of
// otherwise, or empty.
func (e *element) attr(name string, otherwise ...string) string {
	value, written := e.attrs[name]
	if !written && len(otherwise) > 0 {
		return otherwise[0]
	}
	return value
}

// child is the first child with a name. It is an empty element if there is none.
func (e *element) child(name string) *element {
	for _, c := range e.children {
		if c.name == name {
			return c
		}
	}
	return &element{name: name, line: e.line}
}

// all are the children with a name.
func (e *element) all(name string) (found []*element) {
	for _, c := range e.children {
		if c.name == name {
			found = append(found, c)
		}
	}
	return found
}

// parse reads a file. It opens no other: a document type definition is skipped, and its
// entities are unknown.
func parse(r io.Reader) (*element, error) {
	limited := &io.LimitedReader{R: r, N: fileBytesMax + 1}
	d := xml.NewDecoder(limited)
	d.CharsetReader = func(charset string, _ io.Reader) (io.Reader, error) {
		return nil, fmt.Errorf("its encoding is %s: convert it to UTF-8", charset)
	}
	// stack is the open elements. The first one holds the root.
	stack := []*element{{}}
	for elements := 0; ; {
		line, _ := d.InputPos()
		token, err := d.Token()
		if limited.N == 0 {
			return nil, fmt.Errorf("it is larger than %d bytes", fileBytesMax)
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, explain(err)
		}
		top := stack[len(stack)-1]
		switch token := token.(type) {
		case xml.StartElement:
			if elements++; elements > elementsMax || len(stack) > depthMax {
				return nil, &plan.Fault{Line: line, What: fmt.Sprintf("it has more than %d elements, or more than %d within each other", elementsMax, depthMax)}
			}
			e := &element{name: token.Name.Local, line: line, attrs: map[string]string{}}
			for _, a := range token.Attr {
				if len(a.Value) > attrBytesMax {
					return nil, &plan.Fault{Line: line, What: fmt.Sprintf("%s has more than %d bytes", a.Name.Local, attrBytesMax)}
				}
				e.attrs[a.Name.Local] = a.Value
			}
			top.children = append(top.children, e)
			stack = append(stack, e)
		case xml.EndElement:
			stack = stack[:len(stack)-1]
		case xml.CharData:
			if len(top.children) == 0 {
				top.text.Write(token)
			}
		}
	}
	roots := stack[0].children
	if len(roots) != 1 || roots[0].name != "tsung" {
		return nil, errors.New("it is no tsung file: its outermost element has to be <tsung>")
	}
	return roots[0], nil
}

// explain says what to do about an error of package xml.
func explain(err error) error {
	var syntax *xml.SyntaxError
	if !errors.As(err, &syntax) {
		return err
	}
	text := syntax.Msg
	if strings.Contains(text, "entity") {
		text += ": a DTD's entities are not read: write here what this one stands for (or &amp; for a plain &)"
	}
	return &plan.Fault{Line: syntax.Line, What: text}
}
