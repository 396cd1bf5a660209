package plan

import (
	"encoding/base64"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// The most of a template.
const (
	TextMax      = 1 << 20 // bytes of its text, and of what it makes
	textPartsMax = 1000
)

// Text is a template, for messages, headers and URLs:
//
//	{{.Conn}}           the connection's number, from 0
//	{{.Seq}}            the number of the connection's message, from 0
//	{{.Group}}          the group's name
//	{{.Room}}           the number of the connection's room (Group.Rooms), from 0
//	{{random 1 100}}    a random whole number, both ends included
//	{{hex 16}}          random hexadecimal digits
//	{{uuid}}            a random UUID (RFC 9562, version 4)
//	{{line "names.txt"}} a line of a file: the first for the first connection, and so on,
//	                    and again from the beginning; in messages by connection and number
//	{{base64 "user{{.Conn}}:secret"}} another template, in base64 (RFC 4648 section 4)
//
// Strings are quoted as in Go: "…" with escapes, or `…` without.
// There is nothing else in it, so that a template cannot do harm or take long.
type Text struct {
	raw   string
	parts []part
}

// part is a constant or a field of a template.
type part struct {
	field    field
	raw      string // as it was written
	from, to int64  // of random; to is the number of digits of hex
	file     string // of line
	inner    *Text  // of base64
}

type field uint8

const (
	constant field = iota
	conn
	seq
	group
	room
	random
	hexadecimal
	uuid
	line
	inBase64
)

// Values are what a template is filled in with.
type Values struct {
	Conn, Seq int
	Room      int
	Group     string
	Random    *rand.Rand
	Files     map[string][]string // Plan.Files
}

// ParseText reads a template. An error names the part that is wrong, and what
// could be there.
func ParseText(raw string) (*Text, error) {
	if len(raw) > TextMax {
		return nil, fmt.Errorf("a template has at most %d bytes, not %d", TextMax, len(raw))
	}
	if !utf8.ValidString(raw) {
		return nil, errors.New("a template must be UTF-8")
	}
	t := &Text{raw: raw}
	for rest := raw; rest != ""; {
		before, after, found := strings.Cut(rest, "{{")
		if before != "" {
			t.parts = append(t.parts, part{raw: before})
		}
		if !found {
			break
		}
		words, after, found := action(after)
		if !found {
			return nil, fmt.Errorf("a template has {{ without }}: %.40s", rest[len(before):])
		}
		p, err := parsePart(words)
		if err != nil {
			return nil, err
		}
		p.raw = rest[len(before) : len(rest)-len(after)]
		t.parts = append(t.parts, p)
		rest = after
	}
	if len(t.parts) > textPartsMax {
		return nil, fmt.Errorf("a template has at most %d parts, not %d", textPartsMax, len(t.parts))
	}
	if n := t.lengthMax(nil); n > TextMax {
		return nil, fmt.Errorf("a template makes at most %d bytes, not %d", TextMax, n)
	}
	return t, nil
}

// action splits what follows {{ into its words and what is behind }}. A quoted string
// is one word.
func action(s string) (words []string, rest string, found bool) {
	for {
		s = strings.TrimLeft(s, " \t\n")
		if rest, found := strings.CutPrefix(s, "}}"); found {
			return words, rest, true
		}
		word, err := strconv.QuotedPrefix(s)
		if err != nil {
			end := strings.IndexAny(s, " \t\n}")
			if end < 0 {
				return nil, "", false
			}
			word = s[:max(end, 1)] // a brace by itself is a word
		}
		words, s = append(words, word), s[len(word):]
	}
}

func parsePart(words []string) (p part, err error) {
	if len(words) == 0 {
		return p, unknownPart(words)
	}
	name, args := words[0], words[1:]
	plain := map[string]field{".Conn": conn, ".Seq": seq, ".Group": group, ".Room": room, "uuid": uuid}
	switch f, known := plain[name]; {
	case known && len(args) == 0:
		return part{field: f}, nil
	case name == "random" && len(args) == 2:
		return parseRandom(args[0], args[1])
	case name == "hex" && len(args) == 1:
		n, err := strconv.ParseInt(args[0], 10, 64)
		if err != nil || n < 1 || n > TextMax {
			return p, fmt.Errorf("a template's {{hex %s}} needs a number of digits, 1 to %d", args[0], TextMax)
		}
		return part{field: hexadecimal, to: n}, nil
	case name == "line" && len(args) == 1:
		file, err := strconv.Unquote(args[0])
		if err != nil || file == "" {
			return p, errors.New(`a template's {{line …}} needs a file's name in quotes, as in {{line "names.txt"}}`)
		}
		return part{field: line, file: file}, nil
	case name == "base64" && len(args) == 1:
		return parseBase64(args[0])
	}
	return p, unknownPart(words)
}

func unknownPart(words []string) error {
	return fmt.Errorf(`a template has no {{%.60s}}: it can have {{.Conn}}, {{.Seq}}, {{.Group}}, {{.Room}}, {{random 1 100}}, {{hex 16}}, {{uuid}}, {{line "FILE"}} and {{base64 "TEXT"}}`, strings.Join(words, " "))
}

func parseRandom(first, last string) (part, error) {
	from, err1 := strconv.ParseInt(first, 10, 64)
	to, err2 := strconv.ParseInt(last, 10, 64)
	if err1 != nil || err2 != nil || to < from || to-from < 0 {
		return part{}, fmt.Errorf("a template's {{random %.20s %.20s}} needs two whole numbers, the smaller one first", first, last)
	}
	return part{field: random, from: from, to: to}, nil
}

func parseBase64(quoted string) (part, error) {
	raw, err := strconv.Unquote(quoted)
	if err != nil {
		return part{}, errors.New(`a template's {{base64 …}} needs a text in quotes, as in {{base64 "user{{.Conn}}:secret"}}`)
	}
	inner, err := ParseText(raw)
	if err == nil && slices.ContainsFunc(inner.parts, func(p part) bool { return p.field == inBase64 }) {
		err = errors.New("a template has no {{base64 …}} within another")
	}
	return part{field: inBase64, inner: inner}, err
}

// Plain returns the template that is raw itself, whatever is in it.
func Plain(raw string) *Text { return &Text{raw: raw, parts: []part{{raw: raw}}} }

// String is the template as it was written.
func (t *Text) String() string { return t.raw }

// Constant reports whether t is the same for each connection and message.
func (t *Text) Constant() bool {
	return !t.has(conn, seq, group, room, random, hexadecimal, uuid, line)
}

// has reports whether t, or what is within it, has a part of one of the fields.
func (t *Text) has(fields ...field) bool {
	return slices.ContainsFunc(t.parts, func(p part) bool {
		return slices.Contains(fields, p.field) || p.inner != nil && p.inner.has(fields...)
	})
}

// Files are the names of the files of which t takes lines.
func (t *Text) Files() (names []string) {
	for _, p := range t.parts {
		switch p.field {
		case line:
			names = append(names, p.file)
		case inBase64:
			names = append(names, p.inner.Files()...)
		}
	}
	return names
}

// Escape returns t with what is constant in it changed by a function.
func (t *Text) Escape(escape func(string) string) (*Text, error) {
	var raw strings.Builder
	for _, p := range t.parts {
		if p.field == constant {
			p.raw = escape(p.raw)
		}
		raw.WriteString(p.raw)
	}
	return ParseText(raw.String())
}

// constants are the parts of t that do not change.
func (t *Text) constants() (all []string) {
	for _, p := range t.parts {
		if p.field == constant {
			all = append(all, p.raw)
		}
	}
	return all
}

// lengthMax is how many bytes t makes at the most, where longest has the length of
// each file's longest line.
func (t *Text) lengthMax(longest map[string]int) (n int) {
	for i := range t.parts {
		n += t.parts[i].lengthMax(longest)
	}
	return n
}

func (p *part) lengthMax(longest map[string]int) int {
	const numberMax, uuidLength = len("-9223372036854775808"), 36
	switch p.field {
	case conn, seq, room, random:
		return numberMax
	case group:
		return NameMax
	case hexadecimal:
		return int(p.to)
	case uuid:
		return uuidLength
	case line:
		return longest[p.file]
	case inBase64:
		return base64.StdEncoding.EncodedLen(p.inner.lengthMax(longest))
	}
	return len(p.raw)
}

// Append fills t in and appends it to dst.
func (t *Text) Append(dst []byte, v *Values) []byte {
	for i := range t.parts {
		dst = t.parts[i].append(dst, v)
	}
	return dst
}

func (p *part) append(dst []byte, v *Values) []byte {
	switch p.field {
	case conn:
		return strconv.AppendInt(dst, int64(v.Conn), 10)
	case seq:
		return strconv.AppendInt(dst, int64(v.Seq), 10)
	case group:
		return append(dst, v.Group...)
	case room:
		return strconv.AppendInt(dst, int64(v.Room), 10)
	case random:
		return strconv.AppendInt(dst, p.from+int64(v.Random.Uint64N(uint64(p.to-p.from)+1)), 10)
	case hexadecimal:
		return appendHex(dst, int(p.to), v.Random)
	case uuid:
		return appendUUID(dst, v.Random)
	case line:
		if lines := v.Files[p.file]; len(lines) > 0 {
			return append(dst, lines[(v.Conn+v.Seq)%len(lines)]...)
		}
		return dst
	case inBase64:
		return base64.StdEncoding.AppendEncode(dst, p.inner.Append(nil, v))
	}
	return append(dst, p.raw...)
}

const hexDigits = "0123456789abcdef"

func appendHex(dst []byte, digits int, r *rand.Rand) []byte {
	for range digits {
		dst = append(dst, hexDigits[r.Uint64()&15])
	}
	return dst
}

// appendUUID appends a random UUID: its digit 13 is the version, 4, and the upper
// bits of digit 17 are the variant, 10 (RFC 9562 section 5.4).
func appendUUID(dst []byte, r *rand.Rand) []byte {
	for i, digits := range [...]int{8, 4, 4, 4, 12} {
		if i > 0 {
			dst = append(dst, '-')
		}
		at := len(dst)
		dst = appendHex(dst, digits, r)
		switch i {
		case 2:
			dst[at] = '4'
		case 3:
			dst[at] = "89ab"[r.Uint64()&3]
		}
	}
	return dst
}

// MarshalText is the template as it was written.
func (t *Text) MarshalText() ([]byte, error) { return []byte(t.raw), nil }

// UnmarshalText reads a template.
func (t *Text) UnmarshalText(raw []byte) error {
	parsed, err := ParseText(string(raw))
	if err == nil {
		*t = *parsed
	}
	return err
}
