package loadgen

import (
	"testing"

	"github.com/seed-134acfd0/lull/frame"
)

func TestKeysDifferBySeedAndUser(t *testing.T) {
	one, other := newKeys([16]byte{1}), newKeys([16]byte{2})
	seen, nonce := map[frame.Key]bool{}, new([16]byte)
	for i := range uint32(1000) {
		for _, k := range []keys{one, other} {
			if key := k.of(i, nonce); seen[key] {
				t.Fatalf("key %s is given twice", key)
			} else {
				seen[key] = true
			}
		}
		if one.of(i, nonce) != newKeys([16]byte{1}).of(i, nonce) {
			t.Fatalf("user %d has two keys", i)
		}
	}
}
