package frame_test

import (
	"fmt"
	"slices"

	"github.com/seed-134acfd0/lull/frame"
)

// A server finds a client's messages in what it has read and answers them.
func Example() {
	wire := frame.AppendMasked(nil, frame.Text, [4]byte{0x37, 0xfa, 0x21, 0x3d}, []byte("Hello"))
	wire = frame.AppendMasked(wire, frame.Ping, [4]byte{1, 2, 3, 4}, nil)

	parser := frame.NewServerParser(64 << 10)
	var stream frame.Stream
	var out []byte
	buf := make([]byte, 1<<10)
	for read := range slices.Chunk(wire, 7) { // the reads of a socket
		n := stream.Take(buf)
		in := buf[:n+copy(buf[n:], read)]
		for {
			ev, consumed, err := parser.Message(&stream, in)
			if err != nil {
				fmt.Println(err)
				return
			}
			if consumed == 0 { // more has to arrive first
				break
			}
			in = in[consumed:]
			switch ev.Op {
			case frame.Ping:
				fmt.Printf("ping %q\n", ev.Payload)
				out = frame.Append(out, frame.Pong, ev.Payload)
			case frame.Text:
				fmt.Printf("text %q\n", ev.Payload)
				out = frame.Append(out, frame.Text, ev.Payload)
			}
		}
		stream.Keep(in)
	}
	fmt.Printf("% x, idle: %v\n", out, stream.Idle())
	// Output:
	// text "Hello"
	// ping ""
	// 81 05 48 65 6c 6c 6f 8a 00, idle: true
}
