package cluster

import (
	"encoding/binary"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/server"
	"github.com/seed-134acfd0/lull/server/cluster/internal/sequence"
)

// kind says what an envelope holds.
type kind byte

const (
	kindMessage kind = 'm' // a message to a topic
	kindTail    kind = 't' // the last number of a subject that is quiet
	kindEnd     kind = 'e' // the last number of a subject that is forgotten
	kindAsk     kind = 'q' // how far are you on these subjects? The number is the question's
	kindAt      kind = 'a' // an answer: so far. The number is the question's
	kindMembers kind = 'p' // of package presence
	kindKept    kind = 'k' // a message to a topic with a history
	kindHistory kind = 'h' // of package history
	kindGap     kind = 'g' // up to a time, which is in place of the number, the stream may not have everything
)

// head begins every envelope. The byte order is big-endian.
//
//	0      1        9          17
//	kind   node's   number     …
type head struct {
	kind   kind
	node   uint64 // who says it
	number uint64 // of the message, or of the question
}

const headBytes = 17

func (h head) append(b []byte) []byte {
	b = append(b, byte(h.kind))
	b = binary.BigEndian.AppendUint64(b, h.node)
	return binary.BigEndian.AppendUint64(b, h.number)
}

// open returns an envelope's head and the rest.
func open(b []byte) (h head, rest []byte, ok bool) {
	if len(b) < headBytes {
		return h, nil, false
	}
	return head{kind(b[0]), binary.BigEndian.Uint64(b[1:]), binary.BigEndian.Uint64(b[9:])}, b[headBytes:], true
}

// seal is the envelope of a message.
//
//	17   18            19
//	op   the topic's   topic · data
//	     length
//
// The queue gives it its number.
func seal(node uint64, topic string, op frame.Op, data []byte) []byte {
	b := make([]byte, 0, headBytes+2+len(topic)+len(data))
	b = head{kind: kindMessage, node: node}.append(b)
	b = append(b, byte(op), byte(len(topic)))
	return append(append(b, topic...), data...)
}

// number writes an envelope's number.
func number(envelope []byte, n sequence.Number) {
	binary.BigEndian.PutUint64(envelope[9:headBytes], uint64(n))
}

// message is what follows the head of a message.
func message(rest []byte) (topic []byte, op frame.Op, data []byte, ok bool) {
	if len(rest) < 2 {
		return nil, 0, nil, false
	}
	op, length, rest := frame.Op(rest[0]), int(rest[1]), rest[2:]
	if !op.Data() || length == 0 || length > server.TopicMax || len(rest) < length {
		return nil, 0, nil, false
	}
	return rest[:length], op, rest[length:], true
}

// question is a kindAsk: subjects' suffixes, each behind its length in two bytes.
func question(node, number uint64, suffixes []string) []byte {
	b := head{kindAsk, node, number}.append(nil)
	for _, s := range suffixes {
		b = binary.BigEndian.AppendUint16(b, uint16(len(s)))
		b = append(b, s...)
	}
	return b
}

// asked are the suffixes of a question.
func asked(rest []byte) (suffixes []string, ok bool) {
	for len(rest) > 0 {
		if len(rest) < 2 || len(suffixes) == askMax {
			return nil, false
		}
		n := int(binary.BigEndian.Uint16(rest))
		if rest = rest[2:]; len(rest) < n {
			return nil, false
		}
		suffixes = append(suffixes, string(rest[:n]))
		rest = rest[n:]
	}
	return suffixes, true
}

// answer is a kindAt: a number for each subject of the question.
func answer(node, number uint64, numbers []sequence.Number) []byte {
	b := head{kindAt, node, number}.append(make([]byte, 0, headBytes+8*len(numbers)))
	for _, n := range numbers {
		b = binary.BigEndian.AppendUint64(b, uint64(n))
	}
	return b
}

// answered are the numbers of an answer to a question about so many subjects.
func answered(rest []byte, subjects int) (numbers []sequence.Number, ok bool) {
	if len(rest) != 8*subjects {
		return nil, false
	}
	for ; len(rest) > 0; rest = rest[8:] {
		numbers = append(numbers, sequence.Number(binary.BigEndian.Uint64(rest)))
	}
	return numbers, true
}
