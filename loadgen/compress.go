package loadgen

import (
	"errors"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/internal/deflate"
)

// compression is a worker's permessage-deflate.
type compression struct {
	deflater   deflate.Deflater
	inflater   deflate.Inflater
	compressed []byte // a message
}

var errPlain = errors.New("the server does not compress")

// shaken checks the head of a response to c.
func (w *worker) shaken(c *client, head []byte) error {
	key := w.run.key(c.index)
	if w.compression == nil {
		return frame.CheckResponse(head, key)
	}
	agreed, err := frame.CheckDeflateResponse(head, key)
	if err == nil && !agreed {
		return errPlain
	}
	return err
}

// body returns the payload as it is sent: compressed if that was agreed and makes it
// shorter.
func (w *worker) body() (frame.Op, []byte) {
	if z := w.compression; z != nil {
		z.compressed = z.deflater.Deflate(z.compressed[:0], w.payload, frame.MaxWindow)
		if len(z.compressed) < len(w.payload) {
			return frame.Binary | frame.Deflated, z.compressed
		}
	}
	return frame.Binary, w.payload
}
