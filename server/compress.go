package server

import (
	"slices"
	"sync"
	"sync/atomic"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/internal/deflate"
)

// compression compresses what is sent, on whatever goroutine sends it.
type compression struct {
	deflater deflate.Deflater
	pool     sync.Pool     // of *[]byte, what frames are compressed into
	peers    atomic.Int64  // open connections that have agreed to permessage-deflate
	before   atomic.Uint64 // bytes of messages that were compressed
	after    atomic.Uint64 // what they became
}

// compresses reports whether a message of so many bytes is sent compressed to
// those who have agreed to it.
func (s *Server) compresses(size int) bool {
	return s.options.Compress && size >= s.options.CompressFrom
}

// scratchMax is the largest buffer that the pool keeps, in bytes.
const scratchMax = 128 << 10

// frame encodes a message for a window: compressed if that makes it shorter.
// The caller gives the scratch back with put when it needs wire no more.
func (p *compression) frame(op frame.Op, data []byte, w frame.Window) (wire []byte, shorter bool, scratch *[]byte) {
	scratch, _ = p.pool.Get().(*[]byte)
	if scratch == nil {
		scratch = new([]byte)
	}
	wire, shorter = p.deflater.AppendFrame((*scratch)[:0], op, data, w)
	*scratch = wire
	p.before.Add(uint64(len(data)))
	p.after.Add(uint64(min(len(wire), len(data))))
	return wire, shorter, scratch
}

func (p *compression) put(scratch *[]byte) {
	if cap(*scratch) <= scratchMax {
		p.pool.Put(scratch)
	}
}

// broadcast encodes a broadcast for those who have agreed to permessage-deflate.
// It returns nil where that is not shorter.
func (p *compression) broadcast(op frame.Op, data []byte) []byte {
	wire, shorter, scratch := p.frame(op, data, frame.MaxWindow)
	defer p.put(scratch)
	if !shorter {
		return nil
	}
	return slices.Clone(wire)
}
