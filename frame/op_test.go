package frame_test

import (
	"testing"

	"github.com/seed-134acfd0/lull/frame"
)

func TestOpTellsControlFromData(t *testing.T) {
	for op := range frame.Op(16) {
		data := op == frame.Text || op == frame.Binary
		control := op >= 8 // section 5.5: the most significant bit
		if op.Data() != data || op.Control() != control {
			t.Errorf("%v: Data %v, Control %v; want %v, %v", op, op.Data(), op.Control(), data, control)
		}
	}
}

func TestOpHasAName(t *testing.T) {
	names := map[frame.Op]string{
		frame.Continuation: "continuation",
		frame.Text:         "text",
		frame.Binary:       "binary",
		frame.Close:        "close",
		frame.Ping:         "ping",
		frame.Pong:         "pong",
		11:                 "opcode 0xb",
	}
	for op, name := range names {
		if op.String() != name {
			t.Errorf("opcode %d is called %q, want %q", op, op, name)
		}
	}
}

// sendable is the list of sections 7.4.1 and 7.4.2 and of the registry,
// written out.
func sendable(c frame.Code) bool {
	switch c {
	case 1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014:
		return true
	}
	return 3000 <= c && c < 5000
}

func TestSendableCodes(t *testing.T) {
	for c := range frame.Code(5101) {
		if c.Sendable() != sendable(c) {
			t.Errorf("code %d: Sendable is %v", c, c.Sendable())
		}
	}
}

// Whoever shows an error shows its code beside it.
func TestErrorDoesNotRepeatItsCode(t *testing.T) {
	if text := frame.ErrUTF8.Error(); text != "frame: text is not UTF-8" || frame.ErrUTF8.Code != 1007 {
		t.Errorf("%q, %d", text, frame.ErrUTF8.Code)
	}
}
