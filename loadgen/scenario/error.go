package scenario

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Error is a mistake in a scenario, and where it is.
type Error struct {
	File         string
	Line, Column int // from 1; 0 is unknown
	Text         string
}

// Error is the mistake in one line, as file.yaml:12:5: and what to do.
func (e *Error) Error() string {
	switch {
	case e.Line == 0:
		return fmt.Sprintf("%s: %s", e.File, e.Text)
	case e.Column == 0:
		return fmt.Sprintf("%s:%d: %s", e.File, e.Line, e.Text)
	}
	return fmt.Sprintf("%s:%d:%d: %s", e.File, e.Line, e.Column, e.Text)
}

// mistake is an error at a node.
func mistake(n *yaml.Node, format string, args ...any) error {
	return &Error{Line: n.Line, Column: n.Column, Text: fmt.Sprintf(format, args...)}
}

var libraryError = regexp.MustCompile(`(?s)^yaml: (?:line (\d+): )?(.*)$`)

// syntax is an error of the YAML library, which knows the line at the most.
func syntax(err error) error {
	m := libraryError.FindStringSubmatch(err.Error())
	if m == nil {
		return &Error{Text: err.Error()}
	}
	line, _ := strconv.Atoi(m[1])
	return &Error{Line: line, Text: "it is no YAML: " + m[2]}
}

// in is an error with the file that it is in.
func in(file string, err error) error {
	var e *Error
	if errors.As(err, &e) {
		e.File = file
		e.Text = strings.TrimPrefix(e.Text, strconv.Quote(file)+" ") // it is the file itself
	}
	return err
}
