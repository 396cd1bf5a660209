package tsung

import (
	"strings"
	"testing"
)

// What a plan cannot say is named with its line.
func TestWhatIsNotTranslatedIsNamed(t *testing.T) {
	message := `<request subst="true"><websocket type="message" ack="no_ack">%%_x%%</websocket></request>`
	setX := `<setdynvars sourcetype="random_number"><var name="x"/></setdynvars>`
	for steps, want := range map[string]string{
		`<thinktime value="wait_bidi"/>`:                              "stays connected",
		`<thinktime value="wait_bidi"/>` + message:                    "users do not come here: at line 6 they stay",
		`<abort/>` + message:                                          "users do not come here: at line 6 they leave",
		`<thinktime value="wait_global"/>`:                            "does not wait until all users",
		`<request><websocket type="message" ack="global"/></request>`: "does not wait until all users",
		`<transaction name="t"/>`:                                     "transaction t",
		`<repeat name="r"><while var="x" eq="y"/></repeat>`:           "<repeat> is run once",
		`<if var="x" eq="y"/>`:                                        "<if> is left out",
		`<foreach name="x" in="y"/>`:                                  "<foreach> is left out",
		`<set_option name="x"/>`:                                      "<set_option> is left out",
		`<change_type new_type="ts_http"/>`:                           "<change_type> is left out",
		`<request><match>ok</match></request>`:                        "<match> is left out",
		`<request><dyn_variable name="x"/></request>`:                 "<dyn_variable> is left out",
		`<request><http url="/"/></request>`:                          "<http> is left out",
		connect:                                                       "connects once",
		`<setdynvars sourcetype="erlang" callback="a:b"><var name="x"/></setdynvars>`: "x gets no value, because it comes from erlang",
		message:                  "%%_x%% is sent as it is written",
		setX + message + message: "x: it is another random number each time",
		setX + `<for var="i" from="1" to="2">` + message + `</for>`: "x: it is another random number each time",
		`<for var="x" from="1" to="2">` + message + `</for>`:        "x: the number of the user's message",
	} {
		i := loaded(t, scenario{sessions: doing(steps)})
		noted(t, i, steps, 6, want)
	}
	i := loaded(t, scenario{sessions: doing(setX + message)})
	if len(i.Notes) != 0 {
		t.Errorf("a variable that is used once: %v", i.Notes)
	}
	for line, c := range map[int]struct {
		scenario
		want string
	}{
		2: {scenario{clients: `<client host="a" cpu="2"/>`}, "host, weight, cpu and maxusers"},
		3: {scenario{servers: `<server host="a" port="80" type="websocket"/>`}, "type websocket"},
		4: {scenario{clients: `<client host="a" maxusers="3"/>`, sessions: doing(`<thinktime value="wait_bidi"/>`)}, "3 of 10 users arrive"},
		5: {scenario{options: `<option name="hibernate" value="5"/>`}, "hibernate makes no difference"},
		6: {scenario{sessions: strings.Replace(oneSession, "100", "50", 1) + strings.Replace(oneSession, "100", "30", 1)}, "probabilities add up to 80"},
	} {
		noted(t, loaded(t, c.scenario), c.scenario.String(), line, c.want)
	}
	for option, want := range map[string]string{"seed": "makes no difference", "speed": "is not known"} {
		noted(t, loaded(t, scenario{options: `<option name="` + option + `" value="5"/>`}), option, 5, want)
	}
}

func noted(t *testing.T, i *Import, of string, line int, want string) {
	t.Helper()
	for _, n := range i.Notes {
		if n.Line == line && strings.Contains(n.Text, want) {
			return
		}
	}
	t.Errorf("%s: %v, and not line %d: …%s…", of, i.Notes, line, want)
}
