package deflate_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
)

// chat makes text as a chat's messages in JSON are, always the same.
func chat(length int) []byte {
	words := strings.Fields("hello the deploy is done price update room thanks see you tomorrow error in build of master")
	rng := rand.New(rand.NewPCG(7692, 1951))
	var b []byte
	for len(b) < length {
		b = fmt.Appendf(b, `{"type":"message","room":"r%d","user":{"id":%d,"name":%q},"ts":%d,"price":%.2f,"text":"`,
			rng.IntN(50), rng.IntN(1<<20), words[rng.IntN(len(words))], 1_700_000_000_000+rng.IntN(1e9), 1000*rng.Float64())
		for range 3 + rng.IntN(8) {
			b = append(append(b, words[rng.IntN(len(words))]...), ' ')
		}
		b = append(b, `"},`...)
	}
	return b[:length]
}
