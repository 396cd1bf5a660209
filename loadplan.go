package main

import (
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/seed-134acfd0/lull/loadgen"
	"github.com/seed-134acfd0/lull/loadgen/plan"
	"github.com/seed-134acfd0/lull/loadgen/scenario"
	"github.com/seed-134acfd0/lull/loadgen/tsung"
)

// loadUsers is who connects, and what they do.
type loadUsers struct {
	Conns     int           `help:"Number of connections." default:"1000" range:"1..1073741824"`
	Rate      float64       `help:"Connections per second. 0, the default, means as fast as the server accepts them." placeholder:"N" range:"0..10000000" example:"10000"`
	Compress  bool          `help:"Offer to compress messages (permessage-deflate). The server has to agree."`
	Reconnect bool          `help:"Open a connection again when the server has ended it: at the time that the Close frame tells (retry=12s), otherwise after about a second, and twice as long after each try that fails. --hold then lasts until all are back."`
	Hold      time.Duration `help:"How long the connections then stay idle." default:"0s" range:"0s..8760h" example:"30s"`

	Rooms      int           `help:"Number of rooms that the connections are in, which {{.Room}} in a URL names. --broadcasts are then sent in each room, and everybody there should receive them. 0, the default, means that there are none." placeholder:"N" range:"0..1073741824" example:"1000"`
	Broadcasts int           `help:"Then send this many messages, which every connection should receive." placeholder:"N" range:"0..1000000000" example:"5"`
	Burst      int           `help:"Send this many of them back to back." default:"1" range:"1..1000000"`
	Deaf       int           `help:"Let this many connections read nothing until the broadcasts are over." placeholder:"N" range:"0..1073741824" example:"100"`
	Active     int           `help:"Then let this many connections send a message, wait for its answer, and repeat." placeholder:"N" range:"0..1073741824" example:"1000"`
	Pace       float64       `help:"Messages per second of all --active connections together. 0, the default, means as fast as answers arrive." placeholder:"N" range:"0..10000000" example:"5000"`
	Flood      int           `help:"Let this many connections send without waiting for answers." placeholder:"N" range:"0..1073741824" example:"100"`
	FloodRate  float64       `help:"Messages per second of all --flood connections together. 0, the default, means as fast as the server reads them." placeholder:"N" range:"0..10000000" example:"5000"`
	Echo       time.Duration `help:"How long --active and --flood connections send." default:"5s" range:"1ms..8760h"`
	Probe      time.Duration `help:"During broadcasts, or else during echoes, ping at this interval on a separate connection. 0, the default, means not at all." placeholder:"1ms" range:"0s..1h" example:"1ms"`
}

// loadMessages is what connections send, and what their requests say.
type loadMessages struct {
	Size        int      `help:"Size of a message, in bytes, without --message." default:"32" range:"16..65536"`
	Message     string   `help:"Text to send in place of the generator's own messages; a template." placeholder:"TEXT"`
	MessageFile string   `help:"File with that text." type:"path" placeholder:"FILE" predictor:"file"`
	Binary      bool     `help:"Send --message in binary frames."`
	Answer      string   `help:"What counts as an answer: echo is the same message, any the next one, contains:TEXT the next one with this text, a template, match:REGEXP the next one that matches; none means that nobody answers." default:"echo"`
	Header      []string `help:"Line of the request's head, such as 'Authorization: Bearer {{hex 32}}'; a template. Can be repeated." sep:"none" placeholder:"LINE"`
	Cookie      []string `help:"Cookie, such as session={{.Conn}}; a template. Can be repeated." sep:"none" placeholder:"NAME=VALUE"`
	Subprotocol []string `help:"Subprotocol to offer. Can be repeated; the first is preferred." sep:"none" placeholder:"NAME"`
}

// check checks what can be checked before all is put together.
func (m *loadMessages) check() error {
	if m.Message != "" && m.MessageFile != "" {
		return fmt.Errorf("--message and --message-file: cannot be used together")
	}
	for _, line := range m.Header {
		if name, _, ok := strings.Cut(line, ":"); !ok || strings.TrimSpace(name) == "" {
			return fmt.Errorf("--header=%s: must be a name, a colon and a value; for example --header='Authorization: Bearer abc'", line)
		}
	}
	for _, c := range m.Cookie {
		if name, _, ok := strings.Cut(c, "="); !ok || name == "" {
			return fmt.Errorf("--cookie=%s: must be a name, = and a value; for example --cookie=session=abc", c)
		}
	}
	_, err := m.answer()
	return err
}

// plan is what to do: what a file says, or else the flags.
func (c *loadCommand) plan(log *slog.Logger) (*plan.Plan, []netip.Addr, error) {
	sources, _ := loadgen.ParseSources(c.Sources) // Validate has accepted them
	switch {
	case c.Scenario != "":
		p, err := scenario.Load(c.Scenario)
		return p, sources, err
	case c.Tsung != "":
		return c.tsungPlan(sources, log)
	}
	p, err := c.flagsPlan()
	return p, sources, err
}

// tsungPlan is what a file of tsung's says.
func (c *loadCommand) tsungPlan(sources []netip.Addr, log *slog.Logger) (*plan.Plan, []netip.Addr, error) {
	file, err := tsung.Load(c.Tsung)
	if err != nil {
		return nil, nil, err
	}
	if err := file.Scale(c.Scale); err != nil {
		return nil, nil, named("--scale", err)
	}
	for _, n := range file.Notes {
		log.Warn(n.Text, "file", c.Tsung, "line", n.Line)
	}
	if given := c.given(); len(given) > 0 {
		if err := replaceServers(file.Plan, given); err != nil {
			return nil, nil, err
		}
	}
	if len(sources) > 0 || len(file.Sources) == 0 {
		return file.Plan, sources, nil
	}
	if sources, err = loadgen.ParseSources(file.Sources); err == nil {
		err = loadgen.OwnSources(sources)
	}
	if err != nil {
		log.Warn("the file's client addresses are not this machine's, so that its own are used; --sources names others", "error", err)
		sources = nil
	}
	return file.Plan, sources, nil
}

// replaceServers makes users connect to other servers, with the paths that they have.
func replaceServers(p *plan.Plan, servers []string) error {
	for i := range p.Groups {
		g := &p.Groups[i]
		_, path, _ := strings.Cut(g.URLs[0].String(), "://")
		if at := strings.IndexAny(path, "/?"); at >= 0 {
			path = path[at:]
		} else {
			path = ""
		}
		g.URLs = nil
		for _, server := range servers {
			scheme, rest, _ := strings.Cut(server, "://")
			if at := strings.IndexAny(rest, "/?#"); at >= 0 && len(rest) > at+1 {
				path = "" // a URL with a path of its own replaces that too
			} else if at >= 0 {
				rest = rest[:at]
			}
			t, err := plan.ParseText(scheme + "://" + rest + path)
			if err != nil {
				return fmt.Errorf("URL %s: %w", server, err)
			}
			g.URLs = append(g.URLs, t)
		}
	}
	return nil
}

// flagsPlan is what the flags say.
func (c *loadCommand) flagsPlan() (*plan.Plan, error) {
	config := loadgen.Config{
		URLs: c.urls(), Conns: c.Conns, Rate: c.Rate, Compress: c.Compress, Reconnect: c.Reconnect, Hold: c.Hold,
		Rooms: c.Rooms, Broadcasts: c.Broadcasts, Burst: c.Burst, Size: c.Size, Deaf: c.Deaf, Active: c.Active, Pace: c.Pace,
		Flood: c.Flood, FloodRate: c.FloodRate, Echo: c.Echo, Probe: c.Probe,
	}
	p, err := config.MakePlan()
	if err != nil {
		return nil, err
	}
	if err := c.loadMessages.apply(p); err != nil {
		return nil, err
	}
	if p.Files, err = filesOf(p); err != nil {
		return nil, err
	}
	return p, nil
}

// apply changes what users send, and what their requests say.
func (m *loadMessages) apply(p *plan.Plan) error {
	message, err := m.message()
	if err != nil {
		return err
	}
	for i := range p.Phases {
		ph := &p.Phases[i]
		if ph.Kind == plan.Publish {
			ph.Message = message
			if message.Answer.Kind == plan.AnswerAny || message.Answer.Kind == plan.AnswerEcho {
				ph.Message.Answer = plan.Answer{} // the same text comes to everybody
			}
		}
		for j := range ph.Streams {
			ph.Streams[j].Message = message
		}
	}
	g := &p.Groups[0]
	for _, line := range m.headers() {
		name, raw, _ := strings.Cut(line, ":")
		value, err := plan.ParseText(strings.TrimSpace(raw))
		if err != nil {
			return named("--header", err)
		}
		g.Headers = append(g.Headers, plan.Header{Name: strings.TrimSpace(name), Value: value})
	}
	for _, name := range m.Subprotocol {
		t, err := plan.ParseText(name)
		if err != nil {
			return named("--subprotocol", err)
		}
		g.Subprotocols = append(g.Subprotocols, t)
	}
	return nil
}

// headers are the lines of --header, and one with all cookies.
func (m *loadMessages) headers() []string {
	if len(m.Cookie) == 0 {
		return m.Header
	}
	return append(m.Header[:len(m.Header):len(m.Header)], "Cookie: "+strings.Join(m.Cookie, "; "))
}

// message is what users send.
func (m *loadMessages) message() (plan.Message, error) {
	answer, err := m.answer()
	if err != nil {
		return plan.Message{}, err
	}
	raw, flag := m.Message, "--message"
	if m.MessageFile != "" {
		flag = "--message-file"
		text, err := os.ReadFile(m.MessageFile)
		if err != nil {
			return plan.Message{}, named(flag, err)
		}
		raw = string(text)
	}
	if raw == "" {
		return plan.Message{Size: m.Size, Answer: answer}, nil
	}
	text, err := plan.ParseText(raw)
	return plan.Message{Text: text, Binary: m.Binary, Answer: answer}, named(flag, err)
}

// answer is what --answer says.
func (m *loadMessages) answer() (a plan.Answer, err error) {
	kind, text, hasText := strings.Cut(m.Answer, ":")
	switch kind {
	case "none":
		return a, nil
	case "echo":
		a.Kind = plan.AnswerEcho
	case "any":
		a.Kind = plan.AnswerAny
	case "contains":
		a.Kind = plan.AnswerContains
		a.Contains, err = plan.ParseText(text)
	case "match":
		a.Kind = plan.AnswerMatch
		a.Match, err = plan.ParsePattern(text)
	default:
		return a, fmt.Errorf("--answer=%s: must be echo, any, none, contains:TEXT or match:REGEXP", m.Answer)
	}
	if needsText := kind == "contains" || kind == "match"; err == nil && hasText != needsText {
		return a, fmt.Errorf("--answer=%s: must be echo, any, none, contains:TEXT or match:REGEXP", m.Answer)
	}
	return a, named("--answer", err)
}

// filesOf reads the files that templates take lines of.
func filesOf(p *plan.Plan) (map[string][]string, error) {
	files, left := map[string][]string{}, int64(plan.FileBytesMax)
	for _, name := range p.FileNames() {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		text, err := io.ReadAll(io.LimitReader(f, left+1))
		f.Close()
		if left -= int64(len(text)); err == nil && left < 0 {
			err = fmt.Errorf("%s: the files of templates may have %d bytes together", name, plan.FileBytesMax)
		}
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(string(text)) {
			files[name] = append(files[name], strings.TrimRight(line, "\r\n"))
		}
	}
	return files, nil
}
