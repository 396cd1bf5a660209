package agent

import (
	"errors"
	"fmt"
)

// part is a part of something that is too long for one message.
type part struct {
	Index int    `json:"index"`
	Count int    `json:"count"`
	Data  []byte `json:"data"`
}

// cut cuts bytes into parts, at least one.
func cut(b []byte) []part {
	count := max(1, (len(b)+partMax-1)/partMax)
	parts := make([]part, count)
	for i := range parts {
		n := min(len(b), partMax)
		parts[i] = part{i, count, b[:n]}
		b = b[n:]
	}
	return parts
}

// whole puts parts together. They come in order, and each possibly again.
type whole struct {
	max   int // bytes
	bytes []byte
	have  int // parts
	done  bool
}

// add adds a part. After the last one, done is true.
func (w *whole) add(p part) error {
	last := (w.max + partMax - 1) / partMax
	switch {
	case p.Count < 1 || p.Count > last || p.Index < 0 || p.Index >= p.Count || len(p.Data) > partMax:
		return fmt.Errorf("agent: part %d of %d, with %d bytes, is not within the limits: %d parts of %d bytes", p.Index, p.Count, len(p.Data), last, partMax)
	case p.Index < w.have:
		return nil // it was sent again, because its answer was lost
	case p.Index > w.have || w.done:
		return errors.New("agent: a part is missing")
	}
	w.bytes = append(w.bytes, p.Data...)
	w.have++
	w.done = w.have == p.Count
	return nil
}
