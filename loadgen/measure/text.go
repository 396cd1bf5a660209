package measure

import (
	"bytes"
	"iter"
	"strings"
	"unicode"
)

// splitLines are the lines of text without their ends.
func splitLines(text []byte) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		for line := range bytes.Lines(text) {
			if !yield(bytes.TrimSuffix(line, []byte("\n"))) {
				return
			}
		}
	}
}

// cut separates a line's first word from the rest.
func cut(line []byte) (name string, rest []byte, ok bool) {
	first, rest, ok := bytes.Cut(line, []byte(" "))
	return string(first), rest, ok
}

// Printable replaces what could move a terminal's cursor or change its colours: texts of
// errors are partly the server's.
func Printable(text string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '�'
		}
		return r
	}, text)
}
