package tsung

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/seed-134acfd0/lull/loadgen/plan"
)

// A file like that of the Phoenix experiment: everybody joins a room, and stays for
// 30,000 seconds.
func TestThePhoenixExperiment(t *testing.T) {
	i, err := Load("testdata/phoenix.xml")
	if err != nil {
		t.Fatal(err)
	}
	if got, want := showPhases(i.Plan.Phases), "ramp 100000 at 1000/s for 1m40s of chat; finish"; got != want {
		t.Errorf("phases: %s", got)
	}
	g := i.Plan.Groups[0]
	if got, want := show(g.Script), `binary {"topic":"rooms:hall","event":"phx_join","payload":{"user":"{{.Conn}}"},"ref":"1"} → any, 1000 × (30s), close`; got != want {
		t.Errorf("script: %s", got)
	}
	if g.Users != 100_000 || fmt.Sprint(g.URLs) != "[ws://127.0.0.1:4000/socket/websocket]" || i.Plan.Name != "phoenix" || len(i.Sources) > 0 {
		t.Errorf("%d users, %v, %q, %v", g.Users, g.URLs, i.Plan.Name, i.Sources)
	}
}

// A file like that of the Haskell experiment: everybody waits for good, and the clients'
// addresses have room for 960,000.
func TestTheHaskellExperiment(t *testing.T) {
	i, err := Load("testdata/haskell.xml")
	if err != nil {
		t.Fatal(err)
	}
	if got, want := showPhases(i.Plan.Phases), "ramp 960000 at 1000/s for 1h0m0s of idle; finish"; got != want {
		t.Errorf("phases: %s", got)
	}
	g := i.Plan.Groups[0]
	if len(g.Script) != 0 || g.Users != 960_000 || len(i.Sources) != 15 {
		t.Errorf("%s, %d users, %v", show(g.Script), g.Users, i.Sources)
	}
	if err := i.Scale(0.01); err != nil {
		t.Fatal(err)
	}
	if got, want := showPhases(i.Plan.Phases), "ramp 9600 at 10/s for 1h0m0s of idle; finish"; got != want {
		t.Errorf("scaled: %s", got)
	}
}

// A file in which everything is that is translated.
func TestAFileWithEverything(t *testing.T) {
	i, err := Load("testdata/all.xml")
	if err != nil {
		t.Fatal(err)
	}
	for got, want := range map[string]string{
		showGroups(i.Plan.Groups): "chat 54, watch 6, chat-2 120, watch-2 120, watch-start 2",
		showPhases(i.Plan.Phases): "ramp 30 at 10/s for 5s of chat+watch; hold for 2s; ramp 2 of watch-start; hold for 5s; finish for 59m50s; " +
			"ramp 120 at 2/s for 1m0s of chat-2+watch-2; ramp 30 at 10/s for 10s of chat+watch; hold for 7s; finish for 58m40s; " +
			"ramp 120 at 2/s for 1m0s of chat-2+watch-2; hold for 57m40s",
		show(i.Plan.Groups[0].Script): `text {"login":"{{line "people:1"}}","password":"{{line "people:2"}}"} → any in 30s, ` +
			`3 × (exponential 2s, text <general n="{{.Seq}}"/>, 1s–3s), 2s, close`,
		show(i.Plan.Groups[1].Script): "",
		strings.Join(i.Sources, " "):  "127.1.0.1 127.1.0.2 127.1.1.1 127.1.1.2 127.1.1.3 127.1.2.1 127.1.2.2 127.1.2.3",
	} {
		if got != want {
			t.Errorf("%s\nand not %s", got, want)
		}
	}
	check(t, i.Plan)
}

func TestAScaleIsOfUsersAndRatesAlone(t *testing.T) {
	i := loaded(t, scenario{
		load: `<arrivalphase phase="1" duration="10" unit="second"><users arrivalrate="200" unit="second"/></arrivalphase>
			<arrivalphase phase="2" duration="10" unit="second"><users maxnumber="3" arrivalrate="1" unit="second"/></arrivalphase>
			<user session="a" start_time="1"/>`,
		sessions: doing(`<thinktime value="7"/>`),
	})
	for factor, want := range map[float64]string{
		1:    "ramp 200 at 200/s for 1s of a; ramp 1 of a-start; ramp 1800 at 200/s for 9s of a; ramp 3 at 1/s for 10s of a; finish",
		0.01: "ramp 2 at 2/s for 1s of a; ramp 1 of a-start; ramp 18 at 2/s for 9s of a; ramp 1 at 0.01/s for 10s of a; finish",
		2:    "ramp 400 at 400/s for 1s of a; ramp 2 of a-start; ramp 3600 at 400/s for 9s of a; ramp 6 at 2/s for 10s of a; finish",
	} {
		if err := i.Scale(factor); err != nil {
			t.Fatal(err)
		}
		if got := showPhases(i.Plan.Phases); got != want {
			t.Errorf("scaled by %v: %s", factor, got)
		}
		if got := show(i.Plan.Groups[0].Script); got != "7s, close" {
			t.Errorf("scaled by %v: %s", factor, got)
		}
	}
	for _, factor := range []float64{0, -1, math.NaN(), math.Inf(1), 1e300} {
		if err := i.Scale(factor); err == nil {
			t.Errorf("a scale of %v is accepted", factor)
		}
	}
	if got := i.Plan.Users(); got == 0 {
		t.Error("a wrong scale took the plan away")
	}
	if err := i.Scale(scaleMax); err == nil || !strings.Contains(err.Error(), "users arrive, more than") {
		t.Errorf("%v", err)
	}
}

func TestWrongFilesAreRefused(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"nothing":            {"", "outermost element"},
		"other XML":          {"<html></html>", "outermost element"},
		"no XML":             {"clients:\n- a", "outermost element"},
		"cut":                {"<tsung>\n<clients>", ":2: unexpected EOF"},
		"tags":               {"<tsung>\n\n<clients></servers></tsung>", ":3: element <clients> closed by </servers>"},
		"two roots":          {"<tsung></tsung><tsung></tsung>", "outermost element"},
		"entity":             {`<!DOCTYPE tsung [<!ENTITY host "x">]>` + "\n<tsung>&host;</tsung>", ":2: invalid character entity &host;: a DTD's entities are not read"},
		"external entity":    {`<!DOCTYPE tsung [<!ENTITY s SYSTEM "/etc/passwd">]><tsung>&s;</tsung>`, "entities are not read"},
		"many entities":      {`<!DOCTYPE tsung [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]><tsung>&b;</tsung>`, "entities are not read"},
		"encoding":           {`<?xml version="1.0" encoding="ISO-8859-1"?><tsung></tsung>`, "convert it to UTF-8"},
		"depth":              {"<tsung>" + strings.Repeat("<for>", depthMax+1), "within each other"},
		"elements":           {"<tsung>" + strings.Repeat("<a/>", elementsMax+1), "more than 20000 elements"},
		"size":               {"<tsung>" + strings.Repeat(" ", fileBytesMax), "larger than"},
		"long attribute":     {`<tsung a="` + strings.Repeat("x", attrBytesMax+1) + `"/>`, "a has more than 8192 bytes"},
		"no server":          {strings.Replace(scenario{}.String(), oneServer, "", 1), ":3: <servers> needs"},
		"no session":         {strings.Replace(scenario{}.String(), oneSession, "", 1), ":6: no session is of type ts_websocket"},
		"no WebSocket":       {strings.Replace(scenario{}.String(), "ts_websocket", "ts_http", 1), ":6: no session is of type ts_websocket"},
		"no load":            {strings.Replace(scenario{}.String(), tenUsers, "", 1), ":4: nobody arrives"},
		"file":               {scenario{options: `<option name="file_server" id="f" value="none.csv"/>`}.String(), ":5: option file_server: open "},
		"too many groups":    {scenario{sessions: strings.Repeat(oneSession, plan.GroupsMax+1)}.String(), ":6: there are more than 64 sessions"},
		"too many mixes":     {scenario{load: mixes(plan.GroupsMax/2 + 1), sessions: strings.ReplaceAll(oneSession, "100", "50") + strings.ReplaceAll(strings.ReplaceAll(oneSession, "100", "50"), `"a"`, `"b"`)}.String(), "more than 64 groups"},
		"too many phases":    {scenario{load: mixes(plan.PhasesMax + 1)}.String(), "1001 phases, more than 1000"},
		"too many loops":     {strings.Replace(scenario{}.String(), "<load>", `<load loop="1000">`, 1), ":4: it makes 1002 phases"},
		"too many addresses": {scenario{clients: `<client><iprange value="10.0-1.0-255.0-255"/></client>`}.String(), "more than 65536 addresses"},
	} {
		i, err := load(t, c.text)
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), "tsung: ") {
			t.Errorf("%s: %v, and not …%s…", name, err, c.want)
		}
		if i != nil {
			t.Errorf("%s: there is a plan beside the error", name)
		}
	}
}

// mixes is n phases, in each of which session a has another share.
func mixes(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `<arrivalphase phase="%d" duration="100"><session_setup name="a" probability="%d"/><users arrivalrate="10" unit="second"/></arrivalphase>`, i, 50+i)
	}
	return b.String()
}

func TestAMissingFileIsAnError(t *testing.T) {
	if _, err := Load(filepath.Join(t.TempDir(), "none.xml")); err == nil || !strings.Contains(err.Error(), "none.xml") {
		t.Error(err)
	}
}

// Whatever a file has in it: there is an error, or a plan whose parts fit together.
func FuzzFile(f *testing.F) {
	for _, name := range []string{"phoenix", "haskell", "all"} {
		b, err := os.ReadFile("testdata/" + name + ".xml")
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(b))
	}
	f.Fuzz(func(t *testing.T, file string) { fuzzed(t, file, 1) })
}

// As a file, by its parts, so that more of what is tried is XML.
func FuzzScenario(f *testing.F) {
	f.Add(`<client host="a" maxusers="3"><ip value="1.2.3.4"/></client>`, oneServer, tenUsers, `<option name="thinktime" value="2"/>`, `<thinktime value="3"/>`, 1.0)
	f.Add(`<client><iprange value="1.2.3.4-9"/></client>`, oneServer+oneServer, mixes(2)+`<user session="*" start_time="3"/>`,
		`<option name="file_server" value="x"/>`, `<for var="i" from="1" to="3"><thinktime min="1" max="2"/></for>`, 0.5)
	f.Add("", `<server host="::1" port="443" type="ssl" weight="0.5"/>`, `<arrivalphase phase="1" duration="1" unit="hour" wait_all_sessions_end="true"><users maxnumber="5" interarrival="1" unit="minute"/></arrivalphase>`,
		"", `<setdynvars sourcetype="file"><var name="x"/></setdynvars><request subst="true"><websocket type="message" ack="no_ack">{{%%_x%%</websocket></request>`, 100.0)
	f.Fuzz(func(t *testing.T, clients, servers, load, options, steps string, factor float64) {
		fuzzed(t, scenario{clients, servers, load, options, doing(steps)}.String(), factor)
	})
}

func fuzzed(t *testing.T, file string, factor float64) {
	root, err := parse(strings.NewReader(file))
	if err != nil {
		return
	}
	if !(factor >= fractionMin && factor <= scaleMax) {
		factor = 1
	}
	people := func(string) ([]string, error) { return []string{"anna;a1", "ben"}, nil }
	if is, err := translate(root, factor, people); err == nil {
		check(t, &is.plan)
	}
}

// check is what holds for each plan that is made of a file.
func check(t *testing.T, p *plan.Plan) {
	t.Helper()
	arrive := map[string]int{}
	for _, phase := range p.Phases {
		if phase.Kind != plan.Ramp {
			continue
		}
		for _, name := range phase.Groups {
			arrive[name] = 0
		}
	}
	users := 0
	for _, phase := range p.Phases {
		users += phase.Users
	}
	if users != p.Users() || users == 0 {
		t.Errorf("groups have %d users, and phases let %d connect", p.Users(), users)
	}
	for _, g := range p.Groups {
		if _, named := arrive[g.Name]; !named || g.Users == 0 || len(g.URLs) == 0 {
			t.Errorf("group %q has %d users, %d URLs", g.Name, g.Users, len(g.URLs))
		}
	}
	b, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	var again plan.Plan
	if err := json.Unmarshal(b, &again); err != nil {
		t.Fatal(err)
	}
	if err := again.Validate(); err != nil {
		t.Error(err)
	}
}
