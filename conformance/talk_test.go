package conformance

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"unicode/utf8"
)

// talk is a case: what a client sends once its connection is open. What the server
// has to answer follows from the frames: a message is sent back, a Ping is answered
// with a Pong (of several Pings perhaps only the last, section 5.5.3), a Close frame
// with one of the same code, and a bad frame with a Close frame of code. Behind
// these two everything is ignored. A client that has sent none says 1000 at the end.
type talk struct {
	id, what, rfc string
	frames        []frame
	code          uint16 // for the bad frame

	offer  string // of extensions; what the server agrees to is agreed, if it has --compress
	agreed string
	only   bool // this is for servers with --compress alone

	chop  int  // sent in pieces of so many bytes; perFrame is a frame at a time
	cut   int  // so many bytes of the last frame are not sent
	tail  int  // bytes of rubbish behind the last frame
	hangs bool // the client hangs up at the end, without a Close frame
}

const perFrame = -1

// usual is what a client offers a server with --compress if the case says nothing.
const usual = "permessage-deflate; client_max_window_bits"

// terms are what a server that knows permessage-deflate agrees to, which keeps
// nothing from one message to the next.
const terms = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"

// none is the offer of a client that does not know extensions.
const none = "-"

// section is a chapter of the page.
type section struct {
	title, about string
	talks        []talk
}

var sections = []section{
	{"1 Framing", "", framing},
	{"2 Pings and Pongs", "", pings},
	{"3 Reserved bits", "The client offers no extension, but for the cases that say so.", reserved},
	{"4 Opcodes", "", opcodes},
	{"5 Fragmentation", "", fragmentation},
	{"6 UTF-8", "A message that breaks off is refused at the byte that cannot be part of UTF-8: what would follow is not sent.", utf8s},
	{"7 Closing", "", closings},
	{"9 Limits", "The servers have `--max-message 262144`. Autobahn's sizes are divided by 64, and its thousand messages by ten.", limits},
	{"10 Miscellaneous", "", misc},
	{"12 Compression, by what is sent", "Each message comes back as it was before it was compressed.", compression},
	{"13 Compression, by what is offered", "", offers},
	{"14 Compression, broken", "", corruption},
}

// message is a message or a control frame of the server.
type message struct {
	op   byte
	data string
}

func (m message) String() string {
	if len(m.data) > 40 {
		return fmt.Sprintf("%d:%.40q… (%d bytes)", m.op, m.data, len(m.data))
	}
	return fmt.Sprintf("%d:%q", m.op, m.data)
}

// answers is what a server says to a talk.
type answers struct {
	messages []message
	pongs    []string // to all Pings
	closed   bool     // there is a Close frame
	code     uint16   // 1005 if it has none
}

// expected are the answers to a talk.
func (t *talk) expected() (a answers) {
	var open *message // the message that is not whole
	var squeezed bool // it is compressed
	for i, f := range t.frames {
		switch {
		case t.cut > 0 && t.hangs && i == len(t.frames)-1: // it does not arrive whole
		case f.bad:
			a.closed, a.code = true, t.code
			return a
		case f.op == opClose:
			a.closed, a.code = true, codeOf(f.payload)
			return a
		case f.op == opPing:
			a.pongs = append(a.pongs, string(f.payload))
		case f.op == opPong:
		default:
			if f.op != opRest {
				open, squeezed = &message{f.op, string(f.says)}, f.rsv == 4
			}
			if !squeezed {
				open.data += string(f.payload)
			}
			if !f.more {
				a.messages = append(a.messages, *open)
			}
		}
	}
	if !t.hangs {
		a.closed, a.code = true, 1000
	}
	return a
}

func codeOf(payload []byte) uint16 {
	if len(payload) < 2 {
		return 1005
	}
	return binary.BigEndian.Uint16(payload)
}

// ends reports whether a frame is the last that counts.
func (f frame) ends() bool { return f.bad || f.op == opClose }

// stream is what the client sends.
func (t *talk) stream() *stream {
	s := &stream{chop: t.chop}
	frames := t.frames
	if !t.hangs && !slices.ContainsFunc(frames, frame.ends) {
		frames = append(slices.Clip(frames), closing(1000, ""))
	}
	over := false
	for _, f := range frames {
		if s.data = f.encode(s.data); !over {
			s.ends = append(s.ends, len(s.data))
		}
		over = over || f.ends()
	}
	s.data = append(s.data, strings.Repeat("x", t.tail)...)
	s.data = s.data[:len(s.data)-t.cut]
	return s
}

// delivery is how the bytes reach the server.
type delivery struct {
	name, about string
	// early sends everything at once, the request and the end of the client's side
	// too. Over TLS the handshake's last message is in that flight.
	early bool
	most  int             // how many bytes are sent in this way at most; 0 for any number
	next  func(i int) int // the length of the i-th piece; nil for all in one
}

var (
	whole  = &delivery{name: "whole", about: "when the connection is open, in one piece, or as the case says"}
	early  = &delivery{name: "early", about: "at once, together with the request and the end of the client's side, and with the last message of the TLS handshake", early: true}
	single = &delivery{name: "single", about: "byte by byte, if it is no request and there are 700 at most", most: 700, next: func(int) int { return 1 }}
	odd    = &delivery{name: "odd", about: "in pieces of odd lengths, which get longer", next: func(i int) int { return odds[i%len(odds)] << (i / len(odds)) }}
)

var odds = []int{1, 3, 1, 7, 2, 13, 5, 31}

// stream is what a client sends, and where each frame ends that counts.
type stream struct {
	data []byte
	ends []int
	chop int
}

// pieces cuts a stream. What follows the frame that ends it goes out together with
// that frame's last byte: when it has that, a server may close.
func (d *delivery) pieces(s *stream) (cut [][]byte) {
	size := func(int) int { return len(s.data) }
	switch {
	case d.next != nil:
		size = d.next
	case !d.early && s.chop > 0:
		size = func(int) int { return s.chop }
	case !d.early && s.chop == perFrame:
		size = func(i int) int {
			if i == 0 {
				return s.ends[0]
			}
			return s.ends[i] - s.ends[i-1]
		}
	}
	last := s.ends[len(s.ends)-1]
	sent := 0
	for i := 0; sent < len(s.data); i++ {
		end := min(sent+size(i), len(s.data))
		if end >= last {
			end = len(s.data)
		}
		cut = append(cut, s.data[sent:end])
		sent = end
	}
	return cut
}

func TestTalks(t *testing.T) {
	for _, section := range sections {
		for i := range section.talks {
			c := &section.talks[i]
			if race && i%raceShare != 0 {
				continue
			}
			t.Run(c.id, func(t *testing.T) {
				t.Parallel()
				c.run(t)
			})
		}
	}
}

// raceShare: under the race detector one case of so many is run.
const raceShare = 8

func (c *talk) run(t *testing.T) {
	want, stream := c.expected(), c.stream()
	everywhere(t, func(s *server, d *delivery) error {
		if c.only && !s.compress || d.most > 0 && len(stream.data) > d.most {
			return nil
		}
		got, err := c.hold(s, d, stream)
		if err != nil {
			return err
		}
		return got.differ(want)
	})
}

// everywhere runs a case against each server, in each of its ways.
func everywhere(t *testing.T, try func(*server, *delivery) error) {
	var tries sync.WaitGroup
	defer tries.Wait()
	for _, s := range servers {
		for _, d := range s.ways {
			tries.Go(func() {
				if err := try(s, d); err != nil {
					t.Errorf("%s, %s: %v", s.name, d.name, err)
				}
			})
		}
	}
}

// differ tells what is wrong with the answers that came.
func (got answers) differ(want answers) error {
	if !slices.Equal(got.messages, want.messages) {
		return fmt.Errorf("messages %v, want %v", got.messages, want.messages)
	}
	if got.closed != want.closed || got.code != want.code {
		return fmt.Errorf("close %v %d, want %v %d", got.closed, got.code, want.closed, want.code)
	}
	left := want.pongs
	for _, p := range got.pongs {
		i := slices.Index(left, p)
		if i < 0 {
			return fmt.Errorf("Pongs %.80q for Pings %.80q", got.pongs, want.pongs)
		}
		left = left[i+1:]
	}
	if len(left) > 0 && len(left) == len(want.pongs) || len(left) > 0 && left[len(left)-1] == want.pongs[len(want.pongs)-1] {
		return fmt.Errorf("Pongs %.80q for Pings %.80q: the last is missing", got.pongs, want.pongs)
	}
	return nil
}

// take adds a frame of the server to its answers.
func (a *answers) take(m message) error {
	switch {
	case a.closed:
		return fmt.Errorf("%v behind the Close frame", m)
	case m.op == opPong:
		a.pongs = append(a.pongs, m.data)
	case m.op == opClose:
		a.closed, a.code = true, codeOf([]byte(m.data))
		if len(m.data) == 1 || len(m.data) > 2 && !utf8.ValidString(m.data[2:]) {
			return fmt.Errorf("a Close frame with %q", m.data)
		}
	case m.op == opText && !utf8.ValidString(m.data):
		return fmt.Errorf("text that is not UTF-8: %v", m)
	case m.op == opText, m.op == opBinary:
		a.messages = append(a.messages, m)
	default:
		return fmt.Errorf("a frame with opcode %d", m.op)
	}
	return nil
}
