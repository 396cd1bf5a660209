package frame_test

import (
	"fmt"

	"github.com/seed-134acfd0/lull/frame"
)

// A server finds a client's frames in what it has read and answers them.
func Example() {
	in := frame.AppendMasked(nil, frame.Text, [4]byte{0x37, 0xfa, 0x21, 0x3d}, []byte("Hello"))
	in = frame.AppendMasked(in, frame.Ping, [4]byte{1, 2, 3, 4}, nil)

	parser := frame.NewServerParser(64 << 10)
	var state frame.State
	var out []byte
	for len(in) > 0 {
		ev, n, err := parser.Next(&state, in)
		if err != nil || n == 0 { // a breach, or half a frame
			fmt.Println("stopped:", err)
			break
		}
		in = in[n:]
		fmt.Printf("%v %q, whole: %v\n", ev.Op, ev.Payload, ev.Whole)
		switch ev.Op {
		case frame.Ping:
			out = frame.Append(out, frame.Pong, ev.Payload)
		case frame.Text:
			out = frame.Append(out, frame.Text, ev.Payload)
		}
	}
	fmt.Printf("% x\n", out)
	// Output:
	// text "Hello", whole: true
	// ping "", whole: true
	// 81 05 48 65 6c 6c 6f 8a 00
}
