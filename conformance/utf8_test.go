package conformance

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// kosme is the Greek word that Markus Kuhn's test of UTF-8 decoders begins with.
const kosme = "\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5"

// umlauts has characters of two bytes.
const umlauts = "Hello-\xc2\xb5@\xc3\x9f\xc3\xb6\xc3\xa4\xc3\xbc\xc3\xa0\xc3\xa1-UTF-8!!"

// broken is a text with a code point that is none, at its 12th byte.
const (
	surrogate = kosme + "\xed\xa0\x80" + "edited"
	tooLarge  = kosme + "\xf4\x90\x80\x80" + "edited"
)

// pieces of one message, of which the last is bad.
func parts(p ...string) (frames []frame) {
	for i, s := range p {
		f := rest(s).open()
		if i == 0 {
			f.op = opText
		}
		f.bad = i == len(p)-1
		frames = append(frames, f)
	}
	return frames
}

// firstBad is how many bytes of s can be part of UTF-8.
func firstBad(s string) int {
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		if r != utf8.RuneError || n != 1 {
			i += n
			continue
		}
		// It is bad from the byte on that no longer begins anything.
		for j := i + 1; j <= len(s); j++ {
			if utf8.FullRuneInString(s[i:j]) {
				return j - 1
			}
		}
		return len(s)
	}
	return len(s)
}

// sequences are those of Markus Kuhn's UTF-8-test.txt, as Autobahn has them.
var sequences = []struct {
	what string
	of   []string
}{
	{"valid text", []string{"hello\x24world", "hello\xC2\xA2world", "hello\xE2\x82\xACworld", "hello\xF0\xA4\xAD\xA2world", kosme}},
	{"a prefix of a text", prefixes(kosme)},
	{"the first code point of a length", []string{"\x00", "\xc2\x80", "\xe0\xa0\x80", "\xf0\x90\x80\x80"}},
	{"the first sequence of 5 or 6 bytes", []string{"\xf8\x88\x80\x80\x80", "\xfc\x84\x80\x80\x80\x80"}},
	{"the last code point of a length", []string{"\x7f", "\xdf\xbf", "\xef\xbf\xbf", "\xf4\x8f\xbf\xbf"}},
	{"the last sequence of 4, 5 or 6 bytes", []string{"\xf7\xbf\xbf\xbf", "\xfb\xbf\xbf\xbf\xbf", "\xfd\xbf\xbf\xbf\xbf\xbf"}},
	{"another boundary", []string{"\xed\x9f\xbf", "\xee\x80\x80", "\xef\xbf\xbd", "\xf4\x8f\xbf\xbf", "\xf4\x90\x80\x80"}},
	{"unexpected continuation bytes", []string{"\x80", "\xbf", "\x80\xbf", "\x80\xbf\x80", "\x80\xbf\x80\xbf", "\x80\xbf\x80\xbf\x80", "\x80\xbf\x80\xbf\x80\xbf", bytesFrom(0x80, 0xbf, "")}},
	{"lonely first bytes", []string{bytesFrom(0xc0, 0xdf, " "), bytesFrom(0xe0, 0xef, " "), bytesFrom(0xf0, 0xf7, " "), bytesFrom(0xf8, 0xfb, " "), bytesFrom(0xfc, 0xfd, " ")}},
	{"a sequence without its last byte", unfinished},
	{"such sequences, one behind another", []string{strings.Join(unfinished, "")}},
	{"bytes that are never part of UTF-8", []string{"\xfe", "\xff", "\xfe\xfe\xff\xff"}},
	{"an overlong ASCII character", []string{"\xc0\xaf", "\xe0\x80\xaf", "\xf0\x80\x80\xaf", "\xf8\x80\x80\x80\xaf", "\xfc\x80\x80\x80\x80\xaf"}},
	{"the longest overlong sequence", []string{"\xc1\xbf", "\xe0\x9f\xbf", "\xf0\x8f\xbf\xbf", "\xf8\x87\xbf\xbf\xbf", "\xfc\x83\xbf\xbf\xbf\xbf"}},
	{"an overlong NUL", []string{"\xc0\x80", "\xe0\x80\x80", "\xf0\x80\x80\x80", "\xf8\x80\x80\x80\x80", "\xfc\x80\x80\x80\x80\x80"}},
	{"a surrogate of UTF-16", []string{"\xed\xa0\x80", "\xed\xad\xbf", "\xed\xae\x80", "\xed\xaf\xbf", "\xed\xb0\x80", "\xed\xbe\x80", "\xed\xbf\xbf"}},
	{"a pair of surrogates", []string{
		"\xed\xa0\x80\xed\xb0\x80", "\xed\xa0\x80\xed\xbf\xbf", "\xed\xad\xbf\xed\xb0\x80", "\xed\xad\xbf\xed\xbf\xbf",
		"\xed\xae\x80\xed\xb0\x80", "\xed\xae\x80\xed\xbf\xbf", "\xed\xaf\xbf\xed\xb0\x80", "\xed\xaf\xbf\xed\xbf\xbf",
	}},
	{"a code point that is no character, but valid", noncharacters()},
	{"a special", []string{"\xef\xbf\xb9", "\xef\xbf\xba", "\xef\xbf\xbb", "\xef\xbf\xbc", "\xef\xbf\xbd", "\xef\xbf\xbe", "\xef\xbf\xbf"}},
}

var unfinished = []string{
	"\xc0", "\xe0\x80", "\xf0\x80\x80", "\xf8\x80\x80\x80", "\xfc\x80\x80\x80\x80",
	"\xdf", "\xef\xbf", "\xf7\xbf\xbf", "\xfb\xbf\xbf\xbf", "\xfd\xbf\xbf\xbf\xbf",
}

func prefixes(s string) (all []string) {
	for i := range len(s) {
		all = append(all, s[:i+1])
	}
	return all
}

func bytesFrom(first, end byte, between string) (s string) {
	for b := first; b < end; b++ {
		s += string([]byte{b}) + between
	}
	return s
}

func noncharacters() []string {
	all := []string{"\xef\xbf\xbe", "\xef\xbf\xbf"}
	for r := rune(0x1fffe); r <= utf8.MaxRune; r += 0x10000 {
		all = append(all, string(r), string(r+1))
	}
	return all
}

var utf8s = func() []talk {
	talks := []talk{
		{id: "6.1.1", what: "text without payload", rfc: "6455 5.6", frames: []frame{text("")}},
		{id: "6.1.2", what: "three fragments without payload", rfc: "6455 5.4", frames: []frame{text("").open(), rest("").open(), rest("")}},
		{id: "6.1.3", what: "three fragments, of which the middle one has a payload", rfc: "6455 5.4", frames: []frame{text("").open(), rest("middle frame payload").open(), rest("")}},
		{id: "6.2.1", what: "valid text", rfc: "6455 8.1", frames: []frame{text(umlauts)}},
		{id: "6.2.2", what: "valid text in two fragments, cut between characters", rfc: "6455 8.1", frames: []frame{text(umlauts[:12]).open(), rest(umlauts[12:])}},
		{id: "6.2.3", what: "valid text in fragments of a byte", rfc: "6455 8.1", frames: fragments(text(umlauts), 1)},
		{id: "6.2.4", what: "other valid text in fragments of a byte", rfc: "6455 8.1", frames: fragments(text(kosme), 1)},
		{id: "6.3.1", what: "text with a surrogate", rfc: "6455 8.1", frames: []frame{text(surrogate).breach()}, code: 1007},
		{id: "6.3.2", what: "text with a surrogate, in fragments of a byte", rfc: "6455 8.1", frames: func() []frame {
			f := fragments(text(surrogate), 1)
			f[12].bad = true
			return f
		}(), code: 1007},
		{id: "6.4.1", what: "a valid fragment, then one with too large a code point", rfc: "6455 8.1", frames: parts(kosme, "\xf4\x90\x80\x80"), code: 1007},
		{id: "6.4.2", what: "a fragment that can go on, then the one byte with which it is not UTF-8", rfc: "6455 8.1", frames: parts(tooLarge[:12], tooLarge[12:13]), code: 1007},
		{id: "6.4.3", what: "a frame of which too large a code point has come, and not the rest", rfc: "6455 8.1", frames: []frame{text(tooLarge).breach()}, cut: 6, code: 1007},
		{id: "6.4.4", what: "a frame of which the first bad byte has come, and not the rest", rfc: "6455 8.1", frames: []frame{text(tooLarge).breach()}, cut: len(tooLarge) - 13, code: 1007},
	}
	for i, s := range sequences {
		section := fmt.Sprintf("6.%d", i+5)
		talks = append(talks, numbered(section, func(of string) talk {
			t := talk{what: fmt.Sprintf("%s: %s", s.what, spelled(of)), rfc: "6455 8.1", frames: []frame{text(of)}}
			if !utf8.ValidString(of) {
				t.frames[0].bad, t.code = true, 1007
			}
			return t
		}, s.of...)...)
	}
	// Each bad sequence once more, byte by byte and no farther than it is bad.
	var bad []string
	for _, s := range sequences {
		for _, of := range s.of {
			if n := firstBad(of); n < len(of) && !slices.Contains(bad, of[:n+1]) {
				bad = append(bad, of[:n+1])
			}
		}
	}
	return append(talks, numbered("6.24", func(of string) talk {
		f := fragments(text(of).open(), 1)
		f[len(f)-1].bad = true
		return talk{what: "fragments of a byte, up to the one that is bad: " + spelled(of), rfc: "6455 8.1", frames: f, code: 1007}
	}, bad...)...)
}()

// spelled spells bytes, and leaves out the middle of many.
func spelled(s string) string {
	if len(s) > 16 {
		return fmt.Sprintf("% x … (%d bytes)", s[:8], len(s))
	}
	return fmt.Sprintf("% x", s)
}
