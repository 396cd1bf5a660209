// Package percent spells text so that it can stand where not all bytes can (RFC 3986
// section 2.1).
package percent

// Encode returns text with %XX in place of each byte that is not plain.
func Encode(text string, plain func(byte) bool) string {
	const digits = "0123456789ABCDEF"
	n := 0
	for i := range len(text) {
		if !plain(text[i]) {
			n++
		}
	}
	if n == 0 {
		return text
	}
	b := make([]byte, 0, len(text)+2*n)
	for i := range len(text) {
		if c := text[i]; plain(c) {
			b = append(b, c)
		} else {
			b = append(b, '%', digits[c>>4], digits[c&15])
		}
	}
	return string(b)
}
