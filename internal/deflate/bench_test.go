package deflate_test

import (
	"fmt"
	"testing"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/internal/deflate"
)

var benchSizes = []int{100, 300, 1000, 4 << 10, 16 << 10, 64 << 10}

func BenchmarkDeflate(b *testing.B) {
	for _, size := range benchSizes {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			var d deflate.Deflater
			plain := chat(size)
			var out []byte
			b.ReportAllocs()
			b.SetBytes(int64(size))
			for b.Loop() {
				out = d.Deflate(out[:0], plain, frame.MaxWindow)
			}
			b.ReportMetric(float64(len(out))/float64(size), "ratio")
		})
	}
}

func BenchmarkInflate(b *testing.B) {
	for _, size := range benchSizes {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			var d deflate.Deflater
			var f deflate.Inflater
			compressed := d.Deflate(nil, chat(size), frame.MaxWindow)
			b.ReportAllocs()
			b.SetBytes(int64(size))
			for b.Loop() {
				if m, err := f.Message(frame.Binary, compressed, size); err != nil || len(m) != size {
					b.Fatal(len(m), err)
				}
			}
		})
	}
}
