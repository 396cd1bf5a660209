package server

import (
	"sync"

	"github.com/seed-134acfd0/lull/frame"
)

// compresses reports whether a message of so many bytes is sent compressed to
// those who have agreed to it.
func (s *Server) compresses(size int) bool {
	return s.options.Compress && size >= s.options.CompressFrom
}

// deflated encodes a broadcast for those who have agreed to permessage-deflate.
// It returns nil where that is not shorter.
func (s *Server) deflated(op frame.Op, data []byte) []byte {
	scratch := s.scratch.get()
	defer s.scratch.put(scratch)
	wire, shorter := s.deflater.AppendFrame((*scratch)[:0], op, data, frame.MaxWindow)
	*scratch = wire
	if !shorter {
		return nil
	}
	return append(make([]byte, 0, len(wire)), wire...)
}

// scratch is a pool of buffers that frames are compressed into.
type scratch struct{ pool sync.Pool }

// scratchMax is the largest that is kept, in bytes.
const scratchMax = 128 << 10

func (s *scratch) get() *[]byte {
	if b, ok := s.pool.Get().(*[]byte); ok {
		return b
	}
	return new([]byte)
}

func (s *scratch) put(b *[]byte) {
	if cap(*b) <= scratchMax {
		s.pool.Put(b)
	}
}
