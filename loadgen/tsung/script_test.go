package tsung

import (
	"fmt"
	"strings"
	"testing"

	"github.com/seed-134acfd0/lull/loadgen/plan"
)

func TestSessionsBecomeScripts(t *testing.T) {
	const setRoom = `<setdynvars sourcetype="random_number" start="1" end="9"><var name="room"/></setdynvars>`
	message := func(text string) string {
		return `<request subst="true"><websocket type="message" ack="no_ack" frame="text">` + text + `</websocket></request>`
	}
	for steps, want := range map[string]string{
		"": "close",
		`<request><websocket type="close"/></request>`: "close",

		// Messages. A binary frame and an answer are what tsung takes for granted.
		`<request><websocket type="message">hi</websocket></request>`:                                "binary hi → any, close",
		`<request><websocket type="message" ack="local" frame="text">hi</websocket></request>`:       "text hi → any, close",
		`<request><websocket type="message" ack="no_ack" frame="binary">hi</websocket></request>`:    "binary hi, close",
		`<request><websocket type="message" ack="global">hi</websocket></request>`:                   "binary hi, close",
		`<request><websocket type="message" ack="no_ack">  a &lt; b &#33; </websocket></request>`:    "binary a < b !, close",
		`<request><websocket type="message" ack="no_ack"><![CDATA[<a>&amp;]]></websocket></request>`: "binary <a>&amp;, close",
		`<request><websocket type="message" ack="no_ack"/></request>`:                                "binary , close",
		`<request><websocket type="message" ack="no_ack">a<!-- b -->c</websocket></request>`:         "binary ac, close",

		// Think times.
		`<thinktime value="3"/>`:                           "3s, close",
		`<thinktime value="0.25"/>`:                        "250ms, close",
		`<thinktime value="2" unit="minute"/>`:             "2m0s, close",
		`<thinktime value="3" random="true"/>`:             "exponential 3s, close",
		`<thinktime min="2" max="10" random="true"/>`:      "2s–10s, close",
		`<thinktime value="0"/>`:                           "close",
		`<thinktime/>`:                                     "5s, close",
		`<thinktime value="wait_global"/>`:                 "close",
		`<thinktime value="wait_bidi"/>`:                   "",
		setRoom + `<thinktime value="%%_room%%"/>`:         "1s–9s, close",
		`<thinktime value="wait_bidi"/>` + message("lost"): "",

		// Loops.
		`<for var="i" from="1" to="3"><thinktime value="1"/></for>`:                                           "3 × (1s), close",
		`<for var="i" from="1" to="10" incr="4"><thinktime value="1"/></for>`:                                 "4 × (1s), close",
		`<for var="i" from="5" to="5"><thinktime value="1"/></for>`:                                           "1s, close",
		`<for var="i" from="5" to="1"><thinktime value="1"/></for>`:                                           "1s, close",
		`<for var="i" from="1" to="3"></for>`:                                                                 "close",
		`<for var="i" from="1" to="2"><for var="j" from="0" to="2"><thinktime value="1"/></for></for>`:        "2 × (3 × (1s)), close",
		`<for var="i" from="1" to="3">` + message("a") + `<thinktime value="wait_bidi"/></for>`:               "text a",
		`<for var="i" from="1" to="3">` + message("a") + `<request><websocket type="close"/></request></for>`: "text a, close",
		`<for var="i" from="1" to="2">` + message("%%_i%%") + `</for>`:                                        "2 × (text {{.Seq}}), close",
		`<setdynvars sourcetype="value" value="4"><var name="n"/></setdynvars>` +
			`<for var="i" from="1" to="%%_n%%"><thinktime value="%%_n%%"/></for>`: "4 × (4s), close",
		`<repeat name="r" max_repeat="5"><thinktime value="1"/><while var="x" eq="y"/></repeat>`: "1s, close",

		// What is looked through, and what is left out.
		`<transaction name="t"><thinktime value="1"/></transaction>`: "1s, close",
		`<if var="x" eq="y"><thinktime value="1"/></if>`:             "close",
		`<foreach name="x" in="y"><thinktime value="1"/></foreach>`:  "close",
		`<request><http url="/"/></request>`:                         "close",
		`<abort/><thinktime value="1"/>`:                             "close",
		`<interaction action="send" id="x"/><new/>`:                  "close",
		message("a") + connect + message("b"):                        "text a",

		// Variables.
		message("%%ts_user_server:get_unique_id%%"):                                                              "text {{.Conn}}, close",
		setRoom + message("in %%_room%%!"):                                                                       "text in {{random 1 9}}!, close",
		setRoom + `<request><websocket type="message" ack="no_ack">%%_room%%</websocket></request>`:              "binary %%_room%%, close",
		`<setdynvars sourcetype="random_string" length="4"><var name="s"/></setdynvars>` + message("%%_s%%"):     "text {{hex 4}}, close",
		`<setdynvars sourcetype="value" value="x"><var name="v"/></setdynvars>` + message("%%_v%%"):              "text x, close",
		`<setdynvars sourcetype="server"><var name="h"/><var name="p"/></setdynvars>` + message("%%_h%% %%_p%%"): "text host 80, close",
		`<setdynvars sourcetype="erlang" callback="a:b"><var name="e"/></setdynvars>` + message("%%_e%%"):        "text %%_e%%, close",
		message("100 %% and %%_none%%"):                                                                          "text 100 %% and %%_none%%, close",
		message(`{"a":{"b":{}}}`):                                                                                `text {"a":{"b":{}}}, close`,
	} {
		i := loaded(t, scenario{sessions: doing(steps)})
		if got := show(i.Plan.Groups[0].Script); got != want {
			t.Errorf("%s\nbecomes %s\nand not %s", steps, got, want)
		}
	}
}

func TestTheOptionThinktime(t *testing.T) {
	for option, want := range map[string]string{
		`value="2"`:                               "2s, 9s, 1s–3s, close",
		`value="2" random="true"`:                 "exponential 2s, exponential 9s, 1s–3s, close",
		`value="2" random="true" override="true"`: "exponential 2s, exponential 2s, exponential 2s, close",
		`min="4" max="6"`:                         "4s–6s, 9s, 1s–3s, close",
	} {
		i := loaded(t, scenario{
			options:  `<option name="thinktime" ` + option + `/>`,
			sessions: doing(`<thinktime/><thinktime value="9"/><thinktime min="1" max="3"/>`),
		})
		if got := show(i.Plan.Groups[0].Script); got != want {
			t.Errorf("%s makes %s", option, got)
		}
	}
}

func TestConnectSaysHowUsersConnect(t *testing.T) {
	i := loaded(t, scenario{
		servers: `<server host="a" port="80" type="tcp" weight="2"/><server host="::1" port="443" type="ssl"/>`,
		options: `<option name="idle_timeout" value="1500"/><option name="rate_limit" value="2"/>`,
		sessions: `<session name="a b" weight="1" type="ts_websocket"><request subst="true">
			<websocket type="connect" path="ws?id=%%ts_user_server:get_unique_id%%" origin="https://a" subprotocols="chat, super">
			<http_header name="X-User" value="u%%ts_user_server:get_unique_id%%"/></websocket></request>
			<request><websocket type="message">m</websocket></request></session>`,
	})
	g := i.Plan.Groups[0]
	got := fmt.Sprint(g.Name, " ", g.URLs, g.Subprotocols, g.ReadRate, " ", show(g.Script))
	if want := "a-b [ws://a:80/ws?id={{.Conn}} ws://a:80/ws?id={{.Conn}} wss://[::1]:443/ws?id={{.Conn}}] [chat super] 2048 binary m → any in 1.5s, close"; got != want {
		t.Errorf("%s\nand not %s", got, want)
	}
	for n, want := range []string{"Origin https://a", "X-User u{{.Conn}}"} {
		if got := g.Headers[n].Name + " " + g.Headers[n].Value.String(); got != want {
			t.Errorf("header %s", got)
		}
	}
}

// Two braces would begin a field of a template. They arrive as they are.
func TestBracesAreSentAsTheyAre(t *testing.T) {
	const text = `{{.Conn}} {{{ {"n":{%%_v%%}}`
	i := loaded(t, scenario{sessions: doing(`<setdynvars sourcetype="value" value="{5"><var name="v"/></setdynvars>
		<request subst="true"><websocket type="message">` + text + `</websocket></request>`)})
	got := fill(i, 0, 0)
	if want := strings.Replace(text, "%%_v%%", "{5", 1); got != want {
		t.Errorf("%s is sent as %s", text, got)
	}
}

func TestColumnsOfAFile(t *testing.T) {
	i := loaded(t, scenario{
		options: `<option name="file_server" id="people" value="people.csv"/>`,
		sessions: doing(`<setdynvars sourcetype="file" fileid="people"><var name="user"/><var name="word"/></setdynvars>
			<request subst="true"><websocket type="message">%%_user%%/%%_word%%</websocket></request>`),
	})
	for conn, want := range []string{"anna/a1", "ben/b2", "carl/", "anna/a1"} {
		if got := fill(i, conn, 0); got != want {
			t.Errorf("user %d sends %s, and not %s", conn, got, want)
		}
	}
}

func TestWrongSessionsAreRefused(t *testing.T) {
	for steps, want := range map[string]string{
		`<request><websocket type="mesage">a</websocket></request>`:                                            "type has to be connect, message or close",
		`<request><websocket>a</websocket></request>`:                                                          "type has to be",
		`<request><websocket type="message" ack="never"/></request>`:                                           "ack has to be",
		`<request><websocket type="message" frame="ascii"/></request>`:                                         "frame has to be",
		`<thinktime value="soon"/>`:                                                                            "value has to be 0, or a number",
		`<thinktime value="-1"/>`:                                                                              "value has to be 0, or a number",
		`<thinktime value="NaN"/>`:                                                                             "value has to be 0, or a number",
		`<thinktime value="1e300"/>`:                                                                           "value has to be 0, or a number",
		`<thinktime value="99" unit="hour"/><thinktime value="9999" unit="hour"/>`:                             "no time may be longer than",
		`<thinktime value="1" unit="day"/>`:                                                                    "unit has to be",
		`<thinktime min="5" max="2"/>`:                                                                         "max has to be at least min",
		`<thinktime value="%%_x%%"/>`:                                                                          "the value of x is not known here",
		`<for var="i" from="1" to="2" incr="0"><thinktime value="1"/></for>`:                                   "more than 1000000000 rounds",
		`<for var="i" from="1" to="9999999999999"><thinktime value="1"/></for>`:                                "more than 1000000000 rounds",
		`<for var="i" from="a" to="2"/>`:                                                                       "from has to be a whole number",
		`<for var="i" from="1" to="%%_x%%"/>`:                                                                  "to has to be a whole number",
		`<setdynvars sourcetype="random_number" start="5" end="2"><var name="x"/></setdynvars>`:                "end has to be at least start",
		`<setdynvars sourcetype="file" fileid="none"><var name="x"/></setdynvars>`:                             "no option file_server has it",
		`<request><websocket type="message">` + strings.Repeat("x", plan.TextMax+1) + `</websocket></request>`: "at most 1048576 bytes",
	} {
		_, err := load(t, scenario{sessions: doing(steps)}.String())
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), ".xml:6: ") {
			t.Errorf("%.90s: %v, and not …%s…", steps, err, want)
		}
	}
	for sessions, want := range map[string]string{
		`<session name="a" type="ts_websocket"/>`:                                                        `needs a <websocket type="connect">`,
		`<session name="a" type="ts_websocket"><request><websocket type="message"/></request></session>`: "first request has to be of type connect",
		`<session name="a" type="ts_websocket" probability="x">` + connect + `</session>` + oneSession:   "probability has to be",
		strings.Replace(oneSession, `path="/"`, `path="/`+strings.Repeat("x", attrBytesMax)+`"`, 1):      "path has more than",
	} {
		if _, err := load(t, scenario{sessions: sessions}.String()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.90s: %v, and not …%s…", sessions, err, want)
		}
	}
}

func TestWrongServersAndClientsAreRefused(t *testing.T) {
	for text, want := range map[string]string{
		`<server host="a" port="80" type="udp"/>`:            "type has to be tcp, ssl or websocket",
		`<server host="a" port="80"/>`:                       "type has to be",
		`<server host="" port="80" type="tcp"/>`:             "a host and a port",
		`<server host="a" type="tcp"/>`:                      "a host and a port",
		`<server host="a" port="70000" type="tcp"/>`:         "port has to be",
		`<server host="a" port="80" type="tcp" weight="0"/>`: "no server has a weight",
	} {
		if _, err := load(t, scenario{servers: text}.String()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", text, err)
		}
	}
	for text, want := range map[string]string{
		`<client host="a"><ip value="here"/></client>`:             "an IP address",
		`<client host="a"><iprange value="1.2.3"/></client>`:       "a range such as",
		`<client host="a"><iprange value="1.2.3.9-4"/></client>`:   "a range such as",
		`<client host="a"><iprange value="1.2.3.4-400"/></client>`: "a range such as",
		`<client host="a" maxusers="many"/>`:                       "maxusers has to be",
	} {
		if _, err := load(t, scenario{clients: text}.String()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestSources(t *testing.T) {
	i := loaded(t, scenario{clients: `<client host="a"><ip value="10.0.0.2"/><ip value="10.0.0.1"/><ip value="10.0.0.2"/></client>
		<client host="b"><ip scan="true" value="eth0"/><iprange value="10.0.1-2.7-8"/></client><client host="c"><ip value="::1"/><ip value="resolve"/></client>`})
	if got := strings.Join(i.Sources, " "); got != "10.0.0.2 10.0.0.1 10.0.1.7 10.0.1.8 10.0.2.7 10.0.2.8 ::1" {
		t.Error(got)
	}
}

// fill is the first message of the first group's user, as it is sent.
func fill(i *Import, conn, seq int) string {
	return string(i.Plan.Groups[0].Script[0].Message.Text.Append(nil, &plan.Values{Conn: conn, Seq: seq, Files: i.Plan.Files}))
}
