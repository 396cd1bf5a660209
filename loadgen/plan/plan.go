package plan

import "time"

// The most that a plan has of each.
const (
	GroupsMax    = 64 // groups are bits of a word
	PhasesMax    = 1000
	StepsMax     = 1000 // of a group's script, nested ones counted too
	DepthMax     = 8    // of steps within steps
	HeadersMax   = 100
	HeadMax      = 16 << 10 // bytes of a group's URL, headers and subprotocols together
	ProtocolsMax = 16
	URLsMax      = 1000
	UsersMax     = 1 << 30
	FilesMax     = 100
	FileBytesMax = 16 << 20 // bytes of all files together
	NameMax      = 64       // bytes of a name
)

// The limits of what groups, steps and phases say. Zero is more than the least where it
// has a meaning of its own.
const (
	SizeMin     = 16                     // bytes of a payload that the generator makes: time, number and checksum
	SizeMax     = 64 << 10               // it fits into a socket's buffer
	ReadRateMax = 1 << 30                // bytes a second
	TimesMax    = 1_000_000_000          // rounds of a Repeat
	RateMax     = 10_000_000             // a second
	CountMax    = 1_000_000_000          // messages of a Publish
	BurstMax    = 1_000_000              // messages
	StreamsMax  = 64                     // of a Talk
	TimeMin     = time.Millisecond       // of timeouts, pings and repeats
	TimeMax     = 365 * 24 * time.Hour   // of everything
	ProbeMin    = 100 * time.Microsecond // between pings
)

// Plan is a load.
type Plan struct {
	Name   string      `json:"name,omitempty"`
	Groups []Group     `json:"groups"`
	Phases []Phase     `json:"phases"` // one after the other
	Expect []Threshold `json:"expect,omitempty"`
	// Files has the lines of the files that templates name.
	Files map[string][]string `json:"files,omitempty"`
}

// Users is how many users all groups have together.
func (p *Plan) Users() (n int) {
	for i := range p.Groups {
		n += p.Groups[i].Users
	}
	return n
}

// Group is users that are alike.
type Group struct {
	Name  string `json:"name"` // letters, digits, '.', '_' and '-', because templates put it into URLs
	Users int    `json:"users"`
	Line  int    `json:"line,omitempty"` // of the file that it is from

	// Rooms are how many rooms its users are in, each in one, by turns; 0 is no rooms. The
	// server knows which by what {{.Room}} stands in, such as the URL. What is published
	// in a room reaches those in it: a Publish publishes each message in each room, once.
	Rooms int `json:"rooms,omitempty"`

	// How a user connects. Its URL is the one with its number modulo their number.
	// Templates in URLs, headers and subprotocols are filled in for each connection.
	URLs         []*Text       `json:"urls"` // ws:// or wss://
	Headers      []Header      `json:"headers,omitempty"`
	Subprotocols []*Text       `json:"subprotocols,omitempty"`
	Compress     bool          `json:"compress,omitempty"`  // offer permessage-deflate (RFC 7692)
	Reconnect    bool          `json:"reconnect,omitempty"` // come back after the server has ended the connection
	HalfOpen     bool          `json:"half_open,omitempty"` // open TCP, and send no request
	Timeout      time.Duration `json:"timeout,omitempty"`   // for all handshakes together; 0 is the run's

	// How its connection behaves.
	Ping     time.Duration `json:"ping,omitempty"`      // send a Ping this often; 0 is never
	Mute     bool          `json:"mute,omitempty"`      // leave the server's Pings unanswered
	ReadRate int           `json:"read_rate,omitempty"` // bytes a second that it reads; 0 is all there are
	Fragment int           `json:"fragment,omitempty"`  // the most payload bytes of a frame that it sends; 0 is a frame a message

	// Script is what each user does when its connection is open. At its end the user
	// stays connected, unless its last step is Close. A connection that comes back
	// begins anew.
	Script []Step `json:"script,omitempty"`
}

// Header is a line of the request's head.
type Header struct {
	Name  string `json:"name"`
	Value *Text  `json:"value"`
}

// Message is what a user sends.
type Message struct {
	// Text is the payload. If it is nil, the generator makes it: Size bytes with
	// the time, a number and a checksum, by which answers and deliveries are told apart.
	Text   *Text  `json:"text,omitempty"`
	Size   int    `json:"size,omitempty"`   // of a payload that the generator makes, in bytes; 0 is 32
	Binary bool   `json:"binary,omitempty"` // send Text in a binary frame. What the generator makes is binary always.
	Answer Answer `json:"answer,omitzero"`
}

// Answer is what a user expects to receive for a message.
type Answer struct {
	Kind AnswerKind `json:"kind"`
	// Contains is for AnswerContains: a template, filled in with the message's own
	// numbers, that the answer's payload contains. Nothing in it is random, so that a user
	// does not have to remember what it waits for.
	Contains *Text `json:"contains,omitempty"`
	// Match is for AnswerMatch: the regular expression that the answer's payload matches
	// (package regexp). Payloads that do not match are no answers.
	Match *Pattern `json:"match,omitempty"`
	// Within is how long the answer may take. 0 is the run's patience.
	Within time.Duration `json:"within,omitempty"`
}

// AnswerKind says which message is an answer.
type AnswerKind string

// The kinds of answers.
const (
	AnswerNone     AnswerKind = ""         // nobody answers
	AnswerEcho     AnswerKind = "echo"     // the same bytes, in a frame of the same type
	AnswerAny      AnswerKind = "any"      // the next message
	AnswerContains AnswerKind = "contains" // the next one that contains a text, such as the message's number
	AnswerMatch    AnswerKind = "match"    // the next one that matches a regular expression
)

// Step is a part of a script.
type Step struct {
	Do   Do  `json:"do"`
	Line int `json:"line,omitempty"` // of the file that it is from

	Message Message `json:"message,omitzero"` // of Send
	Think   Think   `json:"think,omitzero"`   // of Pause
	Times   int     `json:"times,omitempty"`  // of Repeat; 0 is until the run ends
	// Every is of Repeat: the time from the beginning of one round to the next. A round
	// that takes longer makes the next one late, and the times of the next one's messages
	// count from when they were meant to be sent. If Every is zero, a round begins
	// when the one before has ended.
	Every time.Duration `json:"every,omitempty"`
	Steps []Step        `json:"steps,omitempty"` // of Repeat
}

// Do is what a step does.
type Do string

// What a step can do.
const (
	Send   Do = "send"   // send a message, and wait for its answer if it has one
	Pause  Do = "pause"  // do nothing for a time
	Repeat Do = "repeat" // do other steps several times
	Close  Do = "close"  // end the connection with a Close frame; a script's last step
)

// Think is a random time.
type Think struct {
	Shape Shape         `json:"shape"`
	Mean  time.Duration `json:"mean"`           // of Constant, Exponential and Normal
	Dev   time.Duration `json:"dev,omitempty"`  // standard deviation of Normal
	From  time.Duration `json:"from,omitempty"` // of Uniform
	To    time.Duration `json:"to,omitempty"`   // of Uniform
}

// Shape is a distribution.
type Shape string

// The distributions of think times.
const (
	Constant    Shape = ""
	Uniform     Shape = "uniform"
	Exponential Shape = "exponential"
	Normal      Shape = "normal" // cut off at zero
)

// Phase is a part of a run.
type Phase struct {
	Name   string        `json:"name"` // in results; unique
	Kind   Kind          `json:"kind"`
	Groups []string      `json:"groups,omitempty"` // on which it acts, by name; all if there are none
	For    time.Duration `json:"for,omitempty"`    // how long: Hold, Churn, Talk; Ramp and Publish end after it at the latest
	Users  int           `json:"users,omitempty"`  // Ramp: how many connect; Storm, Drain: how many end. 0 is all
	Rate   float64       `json:"rate,omitempty"`   // a second, all users together; 0 is as fast as it goes
	Line   int           `json:"line,omitempty"`   // of the file that it is from

	Streams []Stream      `json:"streams,omitempty"` // of Talk: at the same time
	Message Message       `json:"message,omitzero"`  // of Publish
	Count   int           `json:"count,omitempty"`   // of Publish: messages
	Burst   int           `json:"burst,omitempty"`   // of Publish: how many are sent back to back; 0 is 1
	Deaf    int           `json:"deaf,omitempty"`    // of Publish: users that read only at its end
	Probe   time.Duration `json:"probe,omitempty"`   // of Publish and Talk: ping this often on one more connection; 0 is never
	Listen  bool          `json:"listen,omitempty"`  // of Publish: another machine publishes; this one's users receive
}

// Stream is messages of the same kind, which some users send. A user has one stream at
// a time.
type Stream struct {
	Groups  []string `json:"groups,omitempty"` // whose users send, by name; if there are none, all that are neither half-open nor have a script
	Users   int      `json:"users,omitempty"`  // how many of the open ones; 0 is all that have no stream yet
	Rate    float64  `json:"rate,omitempty"`   // messages a second, all users together, in turn; 0 is as fast as Window allows
	Message Message  `json:"message,omitzero"`
	// Window is how many of a user's messages may be unanswered. 0 is no limit: the
	// user then sends as fast as the server takes it. Texts have at most WindowMax.
	Window int `json:"window,omitempty"`
	Line   int `json:"line,omitempty"` // of the file that it is from
}

// WindowMax is the most unanswered messages of a user, and also the limit for
// messages with a text if a Stream's Window is 0.
const WindowMax = 1024

// Kind is what a phase does.
type Kind string

// The kinds of phases.
const (
	// Ramp opens connections of users that have not connected yet, Rate a second. The
	// groups take turns according to their sizes. It ends when each is open or has failed.
	Ramp Kind = "ramp"
	// Hold leaves the users to their scripts.
	Hold Kind = "hold"
	// Churn ends Rate connections a second, and opens each anew at once.
	Churn Kind = "churn"
	// Publish sends Count messages, each from some user, which all open users of the
	// groups should receive; Rate a second, or each burst when the last one has
	// been received. Its Message's Answer is what it is when it arrives: the same bytes,
	// or something that contains a text or matches.
	Publish Kind = "publish"
	// Talk makes the users of its Streams send and receive answers, For a time. They
	// must have no script.
	Talk Kind = "talk"
	// Storm cuts users off without a Close frame, all at once, and opens them again,
	// Rate a second.
	Storm Kind = "storm"
	// Drain ends users' connections with a Close frame, Rate a second.
	Drain Kind = "drain"
	// Finish waits until each script has ended, For at the most.
	Finish Kind = "finish"
)
