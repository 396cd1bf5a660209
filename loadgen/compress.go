package loadgen

import (
	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/internal/deflate"
)

// compression is a worker's permessage-deflate, for the groups that have it.
type compression struct {
	parser     *frame.Parser
	deflater   deflate.Deflater
	inflater   deflate.Inflater
	compressed []byte // a message
}

func newCompression() *compression {
	parser := frame.NewClientParser(messageMax)
	parser.Deflate = true
	return &compression{parser: parser}
}

// body returns a message as it is sent: compressed if that makes it shorter.
func (z *compression) body(op frame.Op, payload []byte) (frame.Op, []byte) {
	z.compressed = z.deflater.Deflate(z.compressed[:0], payload, frame.MaxWindow)
	if len(z.compressed) < len(payload) {
		return op | frame.Deflated, z.compressed
	}
	return op, payload
}
