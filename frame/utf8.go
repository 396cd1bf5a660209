package frame

import "unicode/utf8"

// textCheck checks UTF-8 as it arrives. A rune may be cut by the end of a
// piece; its first bytes wait here for the rest.
type textCheck struct {
	held  [utf8.UTFMax - 1]byte
	holds uint8
}

// valid takes the next piece. It is false from the first byte on that no valid
// UTF-8 text can contain at its place.
func (t *textCheck) valid(p []byte) bool {
	if t.holds > 0 {
		var r [utf8.UTFMax]byte
		n := copy(r[:], t.held[:t.holds])
		for len(p) > 0 && !utf8.FullRune(r[:n]) {
			r[n] = p[0]
			n++
			p = p[1:]
		}
		if !utf8.FullRune(r[:n]) {
			t.holds = uint8(copy(t.held[:], r[:n]))
			return true
		}
		if !utf8.Valid(r[:n]) {
			return false
		}
	}
	cut := cutRune(p)
	t.holds = uint8(copy(t.held[:], p[len(p)-cut:]))
	return utf8.Valid(p[:len(p)-cut])
}

// complete reports whether the text may end here.
func (t *textCheck) complete() bool { return t.holds == 0 }

// cutRune returns the length of the rune's beginning that ends p, zero when p
// ends with a rune's end. A beginning that no byte could make valid is not
// one: FullRune calls it full, and Valid refuses it.
func cutRune(p []byte) int {
	for n := 1; n < utf8.UTFMax && n <= len(p); n++ {
		if tail := p[len(p)-n:]; utf8.RuneStart(tail[0]) {
			if utf8.FullRune(tail) {
				return 0
			}
			return n
		}
	}
	return 0
}
