package plan

import (
	"encoding/json"
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

func text(raw string) *Text {
	t, err := ParseText(raw)
	if err != nil {
		panic(err)
	}
	return t
}

// whole is a plan with something of everything: groups a with a script, b, half, and a
// phase of each kind, in the order of Kind.
func whole() *Plan {
	match, _ := ParsePattern("ok")
	url := []*Text{text("wss://host:8443/{{.Group}}?n={{.Conn}}&name={{line \"names.txt\"}}")}
	return &Plan{
		Name: "everything",
		Groups: []Group{
			{Name: "a", Users: 10, Line: 3, URLs: url, Headers: []Header{{"X-Name", text(`{{base64 "{{line \"names.txt\"}}:secret"}}`)}}, Subprotocols: []*Text{text("v{{random 1 2}}.chat")},
				Ping: time.Second, Mute: true, ReadRate: 100, Fragment: 1, Compress: true, Reconnect: true, Timeout: time.Second,
				Script: []Step{
					{Do: Send, Line: 7, Message: Message{Text: text(`{"id":{{.Seq}}}`), Answer: Answer{Kind: AnswerContains, Contains: text(`"id":{{.Seq}}`), Within: time.Second}}},
					{Do: Pause, Think: Think{Shape: Uniform, From: 1, To: 2}},
					{Do: Repeat, Times: 3, Every: time.Second, Steps: []Step{{Do: Send, Message: Message{Size: SizeMax}}, {Do: Pause, Think: Think{Mean: 1}}}},
					{Do: Close},
				}},
			{Name: "b", Users: 5, URLs: url},
			{Name: "half", Users: 5, URLs: url, HalfOpen: true},
		},
		Phases: []Phase{
			{Name: "some", Kind: Ramp, Users: 4, Rate: 2.5, For: time.Minute, Groups: []string{"a", "half"}},
			{Name: "all", Kind: Ramp},
			{Name: "hold", Kind: Hold, For: time.Second},
			{Name: "churn", Kind: Churn, For: time.Second, Rate: 1},
			{Name: "publish", Kind: Publish, Line: 20, Groups: []string{"b"}, Count: 3, Burst: 2, Deaf: 4, Rate: 1, Probe: time.Millisecond, Message: Message{Text: text("x"), Answer: Answer{Kind: AnswerMatch, Match: match}}},
			{Name: "talk", Kind: Talk, For: time.Second, Probe: time.Millisecond, Streams: []Stream{
				{Users: 2, Line: 30, Window: 1, Message: Message{Answer: Answer{Kind: AnswerEcho}}}, {Users: 3, Rate: 10, Groups: []string{"b"}, Message: Message{Size: SizeMin}}}},
			{Name: "storm", Kind: Storm, Users: 20, Rate: 1},
			{Name: "drain", Kind: Drain},
			{Name: "finish", Kind: Finish},
		},
		Expect: []Threshold{{Figure: "lost", Op: "="}},
		Files:  map[string][]string{"names.txt": {"anna", "ben"}},
	}
}

func TestAPlanWithSomethingOfEverythingIsValid(t *testing.T) {
	if err := whole().Validate(); err != nil {
		t.Error(err)
	}
}

// What is at a limit is valid.
func TestLimitsThemselvesAreValid(t *testing.T) {
	for name, change := range map[string]func(*Plan){
		"users": func(p *Plan) { p.Groups[1].Users = UsersMax - 15 },
		"share": func(p *Plan) { p.Groups[1].Users = 0; p.Phases = p.Phases[1:3] },
		"script": func(p *Plan) {
			p.Groups[0].Script = slices.Repeat([]Step{{Do: Pause, Think: Think{Mean: TimeMax}}}, StepsMax)
		},
		"depth":  func(p *Plan) { p.Groups[0].Script = nested(DepthMax) },
		"text":   func(p *Plan) { p.Phases[4].Message.Text = text(strings.Repeat("x", TextMax)) },
		"window": func(p *Plan) { p.Phases[5].Streams[0].Window = WindowMax },
		"name":   func(p *Plan) { p.Groups[0].Name = strings.Repeat("a", NameMax); p.Phases = p.Phases[1:3] },
		"normal": func(p *Plan) { p.Groups[0].Script[1].Think = Think{Shape: Normal, Dev: time.Second} },
		"endless": func(p *Plan) {
			p.Groups[0].Script = []Step{{Do: Repeat, Every: TimeMin, Steps: []Step{{Do: Send}}}}
			p.Phases[8].For = TimeMax
		},
		"exponential":    func(p *Plan) { p.Groups[0].Script[1].Think = Think{Shape: Exponential, Mean: TimeMax} },
		"IPv6":           func(p *Plan) { p.Groups[0].URLs = []*Text{text("ws://[::1]:8080")} },
		"host and query": func(p *Plan) { p.Groups[0].URLs = []*Text{text("WS://host?{{.Conn}}")} },
	} {
		p := whole()
		change(p)
		if err := p.Validate(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// nested is a script with steps so deep within steps.
func nested(depth int) []Step {
	steps := []Step{{Do: Send}}
	for range depth - 1 {
		steps = []Step{{Do: Repeat, Times: 1, Steps: steps}}
	}
	return steps
}

func TestMistakesInAPlanAreNamed(t *testing.T) {
	group := func(change func(*Group)) func(*Plan) { return func(p *Plan) { change(&p.Groups[0]) } }
	url := func(raw string) func(*Plan) { return func(p *Plan) { p.Groups[1].URLs = []*Text{text(raw)} } }
	header := func(name, value string) func(*Plan) {
		return group(func(g *Group) { g.Headers = []Header{{name, text(value)}} })
	}
	script := func(steps ...Step) func(*Plan) { return group(func(g *Group) { g.Script = steps }) }
	think := func(th Think) func(*Plan) { return script(Step{Do: Pause, Think: th}) }
	message := func(m Message) func(*Plan) { return script(Step{Do: Send, Line: 7, Message: m}) }
	phase := func(i int, change func(*Phase)) func(*Plan) { return func(p *Plan) { change(&p.Phases[i]) } }
	stream := func(change func(*Stream)) func(*Plan) {
		return phase(5, func(p *Phase) { change(&p.Streams[0]) })
	}
	inRooms := func(groups int, change func(*Phase)) func(*Plan) { // so many of groups b and a
		return func(p *Plan) {
			p.Groups[1].Rooms, p.Groups[0].Rooms = 4, 4*(groups-1)
			p.Phases[4].Deaf = 0
			change(&p.Phases[4])
		}
	}
	const some, all, hold, churn, publish, talk, storm, finish = 0, 1, 2, 3, 4, 5, 6, 8

	for _, row := range []struct {
		change func(*Plan)
		says   string
	}{
		{func(p *Plan) { p.Name = "a\nb" }, `name is "a\nb": it must be at most 64 printable`},
		{func(p *Plan) { p.Groups = nil }, "groups are 0: there must be 1 to 64"},
		{func(p *Plan) { p.Groups = slices.Repeat(p.Groups, 65) }, "groups are 195"},
		{func(p *Plan) { p.Phases = nil }, "phases are 0: there must be 1 to 1000"},
		{func(p *Plan) { p.Phases = make([]Phase, PhasesMax+1) }, "phases are 1001"},
		{func(p *Plan) { p.Expect = make([]Threshold, ThresholdsMax+1) }, "expect has 101 thresholds"},
		{func(p *Plan) { p.Expect = []Threshold{{Figure: "p99", Of: "sleep", Op: "<", Value: 1}} }, `expect has a mistake: there are no times "sleep"`},
		{func(p *Plan) { p.Expect = []Threshold{{Figure: "lost", Op: "<", Value: math.NaN()}} }, "expect has a mistake: lost is a number"},
		{func(p *Plan) { p.Expect = []Threshold{{Figure: "lost", Op: "!="}} }, "expect has a mistake:"},
		{func(p *Plan) { p.Files["empty"] = nil }, `file "empty": it has no lines`},
		{func(p *Plan) { p.Files["names.txt"] = []string{"a", "b\nc"} }, `file "names.txt": line 2 must be one line`},
		{func(p *Plan) { p.Files["names.txt"] = []string{"\xff"} }, `line 1 must be one line of UTF-8`},
		{func(p *Plan) { p.Files["big"] = slices.Repeat([]string{strings.Repeat("x", 1<<20)}, 17) }, "files have 17_825_799 bytes: they may have 16_777_216"},

		{group(func(g *Group) { g.Name = "" }), `line 3: group "": name must be`},
		{group(func(g *Group) { g.Name = "a b" }), `name must be 1 to 64 letters, digits, dots`},
		{group(func(g *Group) { g.Name = strings.Repeat("a", NameMax+1) }), "name must be 1 to 64 letters"},
		{group(func(g *Group) { g.Name = "b" }), `group "b": name is there twice`},
		{group(func(g *Group) { g.Users = -1 }), `line 3: group "a": users is -1: it must be 0 to 1_073_741_824`},
		{func(p *Plan) { p.Groups[1].Users = UsersMax }, "users are 1_073_741_834 with those of the groups before"},
		{group(func(g *Group) { g.Timeout = time.Microsecond }), "timeout is 1µs: it must be 1ms to 8760h0m0s"},
		{group(func(g *Group) { g.Ping = -1 }), "ping is -1ns"},
		{group(func(g *Group) { g.ReadRate = ReadRateMax + 1 }), "read_rate is 1_073_741_825"},
		{group(func(g *Group) { g.Fragment = -1 }), "fragment is -1: it must be 0 to 1_048_576 bytes"},
		{func(p *Plan) { p.Groups[2].Script = nested(1) }, `group "half": script is not for half-open users`},
		{func(p *Plan) { p.Groups[2].Ping = time.Second }, `group "half": ping is not for half-open users`},

		{group(func(g *Group) { g.URLs = nil }), "urls are 0: there must be 1 to 1000"},
		{group(func(g *Group) { g.URLs = []*Text{nil} }), "urls must not be empty"},
		{url("http://host/"), `group "b": urls has "http://host/": it must begin with ws:// or wss://`},
		{url("host:8080"), "must begin with ws://"},
		{url("ws://"), "it must have a host"},
		{url("ws:///path"), "it must have a host"},
		{url("ws://:80/"), "it must have a host"},
		{url("ws://host{{.Conn}}/"), "not in its host"},
		{url("ws://{{.Group}}/"), "not in its host"},
		{url("ws://user:pass@host/"), "belong into the header Authorization"},
		{url("ws://host:65536/"), "its port must be 1 to 65535"},
		{url("ws://host:0/"), "its port must be 1 to 65535"},
		{url("ws://host/a b"), `urls has " " in "ws://host/a b": it may have letters`},
		{url("ws://host/#part"), `urls has "#"`},
		{url("ws://host/%zz"), "urls has"},
		{url(`ws://host/{{line "nobody.txt"}}`), `takes lines of "nobody.txt", which is not there`},
		{func(p *Plan) { p.Files["names.txt"] = []string{"anna", "ben b"} }, `takes lines of "names.txt", and line 2 of it has something else than letters`},
		{header("Bad Name", "x"), `headers has "Bad Name": a header's name has letters`},
		{header("", "x"), `headers has ""`},
		{header("Host", "x"), "headers has Host, which is made from url"},
		{header("sec-websocket-KEY", "x"), "which is made from url"},
		{header("X", "a\r\nb"), `headers has "\r"`},
		{header("X", ""), "headers must not be empty"},
		{header("X", "{{base64 `{{line \"nobody\"}}`}}"), `takes lines of "nobody"`},
		{header("X", "{{hex 20000}}"), "they may have 16_384"},
		{group(func(g *Group) { g.Headers = slices.Repeat(g.Headers, HeadersMax+1) }), "headers are 101: there may be 100"},
		{group(func(g *Group) { g.Subprotocols = []*Text{text("a, b")} }), `subprotocols has ","`},
		{group(func(g *Group) { g.Subprotocols = make([]*Text, ProtocolsMax+1) }), "subprotocols are 17: there may be 16"},

		{script(Step{Do: "wait"}), `group "a": step wait: do is "wait": it must be send, pause, repeat or close`},
		{script(Step{Do: Close}, Step{Do: Send}), "step close: it must be the script's last step"},
		{script(Step{Do: Repeat, Times: 1, Steps: []Step{{Do: Close}}}), "not in a repeat"},
		{script(Step{Do: Repeat, Every: 1}, Step{Do: Close}), "the steps behind it never come: it needs times"},
		{script(Step{Do: Repeat, Steps: []Step{{Do: Send}}}), "nothing in it waits"},
		{script(Step{Do: Repeat, Times: 1}), "steps are missing"},
		{script(Step{Do: Repeat, Times: -1, Steps: nested(1)}), "times is -1"},
		{script(Step{Do: Repeat, Every: 1, Steps: nested(1)}), "every is 1ns"},
		{script(Step{Do: Pause, Times: 1}), "step pause: times is for repeat only"},
		{script(Step{Do: Close, Think: Think{Mean: 1}}), "step close: think is for pause only"},
		{script(Step{Do: Send, Steps: nested(1)}), "step send: steps is for repeat only"},
		{script(nested(DepthMax + 1)...), "more than 8 deep"},
		{script(slices.Repeat(nested(1), StepsMax+1)...), "more than 1000 steps"},
		{script(Step{Do: Repeat, Times: 1, Steps: slices.Repeat(nested(1), StepsMax)}), "more than 1000 steps"},
		{think(Think{}), "mean is 0s: it must be 1ns to 8760h0m0s"},
		{think(Think{Mean: -1}), "mean is -1ns"},
		{think(Think{Shape: Uniform, From: 2, To: 1}), "uniform is 2ns to 1ns: the shorter time must come first"},
		{think(Think{Shape: Uniform, From: -1, To: 1}), "uniform is -1ns to 1ns"},
		{think(Think{Shape: Uniform}), "uniform is 0s to 0s"},
		{think(Think{Shape: Exponential}), "mean is 0s"},
		{think(Think{Shape: Normal, Mean: 1, Dev: -1}), "dev is -1ns"},
		{think(Think{Shape: "pareto", Mean: 1}), `shape is "pareto": it must be uniform, exponential, normal`},

		{message(Message{Size: SizeMin - 1}), `line 7: group "a": step send: size is 15: it must be 16 to 65_536 bytes`},
		{message(Message{Size: SizeMax + 1}), "size is 65_537"},
		{message(Message{Text: text("x"), Size: 20}), "there is a text already"},
		{message(Message{Text: text(`{{line "nobody"}}`)}), `text takes lines of "nobody"`},
		{message(Message{Text: text(`{{hex 1048574}}{{line "names.txt"}}`)}), "text is 1_048_578: it must be 0 to 1_048_576 bytes"},
		{message(Message{Answer: Answer{Kind: "all"}}), `answer is "all": it must be echo`},
		{message(Message{Answer: Answer{Kind: AnswerMatch}}), "answer must have match and a regular expression together"},
		{message(Message{Answer: Answer{Kind: AnswerEcho, Contains: text("x")}}), "answer must have contains and a text together"},
		{message(Message{Answer: Answer{Kind: AnswerContains, Contains: text("")}}), "contains must not be empty"},
		{message(Message{Answer: Answer{Kind: AnswerContains, Contains: text("{{uuid}}")}}), "contains must not be random"},
		{message(Message{Answer: Answer{Kind: AnswerContains, Contains: text("{{base64 `{{hex 3}}`}}")}}), "contains must not be random"},
		{message(Message{Answer: Answer{Within: time.Second}}), "within is for messages with an answer"},
		{message(Message{Answer: Answer{Kind: AnswerAny, Within: -1}}), "within is -1ns"},

		{phase(all, func(p *Phase) { p.Name = "" }), `phase "": name must be 1 to 64 printable`},
		{phase(all, func(p *Phase) { p.Name = "some" }), `phase "some": name is there twice`},
		{phase(all, func(p *Phase) { p.Kind = "rest" }), `kind is "rest": it must be ramp, hold`},
		{phase(all, func(p *Phase) { p.Groups = []string{"c"} }), `phase "all": groups has "c": there is no such group, but ["a" "b" "half"]`},
		{phase(all, func(p *Phase) { p.Groups = []string{"a", "a"} }), `groups has "a" twice`},
		{phase(some, func(p *Phase) { p.Users = 16 }), `phase "some": users is 16: 15 are left for it`},
		{phase(some, func(p *Phase) { p.Users, p.Groups = 0, nil }), `phase "all": all users of its groups are taken`},
		{phase(some, func(p *Phase) { p.Users, p.Groups = 20, nil }), `phase "all": all users of its groups are taken`},
		{phase(all, func(p *Phase) { p.Users = 17 }), `phase "all": users is 17: 16 are left for it`},
		{phase(all, func(p *Phase) { p.Rate = -1 }), "rate is -1: it must be 0 to 10_000_000"},
		{phase(all, func(p *Phase) { p.Rate = math.NaN() }), "rate is NaN"},
		{phase(all, func(p *Phase) { p.Rate = math.Inf(1) }), "rate is +Inf"},
		{phase(all, func(p *Phase) { p.For = 1 }), "for is 1ns"},
		{phase(all, func(p *Phase) { p.Count = 1 }), `phase "all": count is not for ramp`},
		{phase(hold, func(p *Phase) { p.For = 0 }), `phase "hold": for is 0s: it must be 1ms to`},
		{phase(hold, func(p *Phase) { p.Rate = 1 }), "rate is not for hold"},
		{phase(churn, func(p *Phase) { p.Rate = 0 }), "rate is missing: how many connections a second"},
		{phase(churn, func(p *Phase) { p.For = 0 }), "for is 0s"},
		{phase(publish, func(p *Phase) { p.Count = 0 }), `line 20: phase "publish": count is missing`},
		{phase(publish, func(p *Phase) { p.Count = -1 }), "count is -1"},
		{phase(publish, func(p *Phase) { p.Burst = BurstMax + 1 }), "burst is 1_000_001: it must be 0 to 1_000_000"},
		{phase(publish, func(p *Phase) { p.Deaf = 5 }), "deaf is 5: at least one of the 5 users must read"},
		{phase(publish, func(p *Phase) { p.Groups = []string{"a"} }), "deaf is not for groups with reconnect"},
		{phase(publish, func(p *Phase) { p.Groups = []string{"half"} }), "groups are half-open"},
		{phase(publish, func(p *Phase) { p.Probe = 1 }), "probe is 1ns"},
		{group(func(g *Group) { g.Rooms = -1 }), "rooms is -1: it must be 0 to 1_073_741_824, and 0 for none"},
		{url("ws://host/{{.Room}}"), "rooms is missing: urls has {{.Room}}"},
		{inRooms(1, func(p *Phase) { p.Groups = nil }), "groups are partly in rooms"},
		{inRooms(2, func(p *Phase) { p.Groups = nil }), "groups are several in rooms"},
		{inRooms(1, func(p *Phase) { p.For = time.Minute }), "for is not for groups in rooms"},
		{inRooms(1, func(p *Phase) {}), "text is not for groups in rooms"},
		{phase(publish, func(p *Phase) { p.Message.Answer = Answer{Kind: AnswerAny} }), "answer is any: those who receive"},
		{phase(publish, func(p *Phase) { p.Message.Answer.Within = time.Second }), "within is not for publish"},
		{phase(publish, func(p *Phase) { p.Message.Size = 20 }), "there is a text already"},
		{phase(talk, func(p *Phase) { p.Streams = nil }), "streams are 0: there must be 1 to 64"},
		{phase(talk, func(p *Phase) { p.For = 0 }), "for is 0s"},
		{phase(talk, func(p *Phase) { p.Groups = []string{"b"} }), "groups is not for talk"},
		{phase(talk, func(p *Phase) { p.Message = Message{Size: 20} }), "message is not for talk"},
		{stream(func(s *Stream) { s.Message = Message{} }), `line 30: phase "talk": stream 1: message is missing`},
		{stream(func(s *Stream) { s.Users = 6 }), "stream 1: users is 6: 5 are left for it"},
		{stream(func(s *Stream) { s.Users = 3 }), "stream 2: users is 3: 2 are left for it"},
		{stream(func(s *Stream) { s.Users = 0 }), "stream 2: all users of its groups are taken"},
		{stream(func(s *Stream) { s.Users = -1 }), "users is -1"},
		{stream(func(s *Stream) { s.Groups = []string{"a"} }), "groups has users with a script"},
		{stream(func(s *Stream) { s.Groups = []string{"half"} }), "groups has half-open users"},
		{stream(func(s *Stream) { s.Groups = []string{"c"} }), "there is no such group"},
		{stream(func(s *Stream) { s.Window = WindowMax + 1 }), "window is 1_025: it must be 0 to 1_024"},
		{stream(func(s *Stream) { s.Rate = -1 }), "rate is -1"},
		{stream(func(s *Stream) { s.Message.Answer = Answer{}; s.Message.Size = 20 }), "window counts unanswered messages"},
		{func(p *Plan) { p.Groups[1].Script = nested(1) }, "stream 1: groups are all half-open or with a script"},
		{phase(storm, func(p *Phase) { p.Users = 21 }), "users is 21: its groups have 20"},
		{func(p *Plan) { p.Phases = p.Phases[3:] }, `phase "churn": nobody of its groups is connected yet`},
		{func(p *Plan) { p.Phases = slices.Delete(p.Phases, 1, 5) }, `stream 1: groups are not connected yet`},
		{func(p *Plan) {
			p.Groups[0].Script = []Step{{Do: Repeat, Times: 2, Steps: []Step{{Do: Repeat, Every: time.Second, Steps: nested(1)}}}}
		}, `phase "finish": for is missing: the script of group "a" has no end`},
	} {
		p := whole()
		row.change(p)
		err := p.Validate()
		var fault *Fault
		if !errors.As(err, &fault) || !strings.Contains(err.Error(), row.says) {
			t.Errorf("%v\ndoes not say %s", err, row.says)
		}
	}
}

// Memory and time are bounded for what comes from another machine, too.
func TestAPlanWithoutContentIsRefused(t *testing.T) {
	if err := (&Plan{}).Validate(); err == nil {
		t.Error("it is accepted")
	}
	if err := (&Plan{Groups: make([]Group, 1), Phases: make([]Phase, 1)}).Validate(); err == nil {
		t.Error("it is accepted")
	}
}

// Whatever another machine sends, a plan that is accepted can be drawn from and filled in.
func FuzzPlan(f *testing.F) {
	data, err := json.Marshal(whole())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte(`{"groups":[{"name":"a","users":1,"urls":["ws://h/"],"headers":[{"name":"X","value":null}],"script":[{"do":"pause","think":{"shape":"uniform","to":1}}]}],"phases":[{"name":"r","kind":"ramp"}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var p Plan
		if json.Unmarshal(data, &p) != nil || p.Validate() != nil {
			return
		}
		v := &Values{Random: rand.New(rand.NewPCG(1, 2)), Files: p.Files}
		for _, g := range p.Groups {
			g.URLs[0].Append(nil, v)
			for _, h := range g.Headers {
				if value := string(h.Value.Append(nil, v)); strings.ContainsAny(value, "\r\n") {
					t.Errorf("header %q", value)
				}
			}
			for _, s := range g.Script {
				if s.Do == Pause && s.Think.Draw(v.Random) < 0 {
					t.Errorf("%+v", s.Think)
				}
			}
		}
	})
}
