package tsung

import (
	"strings"
	"testing"
)

func TestArrivalsBecomeRamps(t *testing.T) {
	phase := func(number, attrs, users string) string {
		return `<arrivalphase phase="` + number + `" ` + attrs + `>` + users + `</arrivalphase>`
	}
	const ten = `<users arrivalrate="10" unit="second"/>`
	for _, c := range []struct{ load, want string }{
		{phase("1", `duration="10" unit="minute"`, `<users interarrival="2" unit="second"/>`), "ramp 300 at 0.5/s for 10m0s of a; finish"},
		{phase("1", `duration="1" unit="hour"`, `<users arrivalrate="90" unit="minute"/>`), "ramp 5400 at 1.5/s for 1h0m0s of a; finish"},
		{phase("1", `duration="500" unit="millisecond"`, ten), "ramp 5 at 10/s for 500ms of a; finish"},
		// It may have fewer users than the time has room for. Then tsung waits, but not after the last phase.
		{phase("1", `duration="10"`, `<users maxnumber="20" arrivalrate="10" unit="second"/>`), "ramp 20 at 10/s for 10s of a; finish"},
		{phase("1", `duration="10"`, `<users maxnumber="20" arrivalrate="10" unit="second"/>`) + phase("2", `duration="2"`, ten),
			"ramp 20 at 10/s for 10s of a; hold for 8s; ramp 20 at 10/s for 2s of a; finish"},
		// Or more. They do not arrive.
		{phase("1", `duration="10"`, `<users maxnumber="2000" arrivalrate="10" unit="second"/>`), "ramp 100 at 10/s for 10s of a; finish"},
		// By their numbers, and with pauses between them.
		{phase("3", `duration="1"`, ten) + phase("1", `duration="2"`, ten) + phase("2", `duration="30"`, `<users maxnumber="0" arrivalrate="1" unit="second"/>`),
			"ramp 20 at 10/s for 2s of a; hold for 30s; ramp 10 at 10/s for 1s of a; finish"},
		{phase("1", `duration="2" wait_all_sessions_end="true"`, ten) + phase("2", `duration="1"`, ten),
			"ramp 20 at 10/s for 2s of a; finish; ramp 10 at 10/s for 1s of a; finish"},
		// Users that start by themselves cut a phase in two, or come after it.
		{phase("1", `duration="10"`, ten) + `<user session="a" start_time="4" unit="second"/><user session="a" start_time="4000" unit="millisecond"/>`,
			"ramp 40 at 10/s for 4s of a; ramp 2 of a-start; ramp 60 at 10/s for 6s of a; finish"},
		{phase("1", `duration="1"`, ten) + `<user session="*" start_time="1" unit="minute"/>`,
			"ramp 10 at 10/s for 1s of a; hold for 59s; ramp 1 of a-start; finish"},
		{`<user session="a" start_time="0"/><user session="a" start_time="3"/>`, "ramp 1 of a-start; hold for 3s; ramp 1 of a-start; finish"},
	} {
		i := loaded(t, scenario{load: c.load})
		if got := showPhases(i.Plan.Phases); got != c.want {
			t.Errorf("%s\nbecomes %s\nand not %s", c.load, got, c.want)
		}
		check(t, i.Plan)
	}
}

func TestLoopAndDurationOfTheLoad(t *testing.T) {
	const phases = `<arrivalphase phase="1" duration="10"><users arrivalrate="10" unit="second"/></arrivalphase>
		<arrivalphase phase="2" duration="5"><users arrivalrate="2" unit="second"/></arrivalphase>`
	stays := doing(`<thinktime value="wait_bidi"/>`)
	for _, c := range []struct{ attrs, sessions, want string }{
		{`loop="1"`, oneSession, "ramp 100 at 10/s for 10s of a; ramp 10 at 2/s for 5s of a; ramp 100 at 10/s for 10s of a; ramp 10 at 2/s for 5s of a; finish"},
		{`duration="1" unit="minute"`, oneSession, "ramp 100 at 10/s for 10s of a; ramp 10 at 2/s for 5s of a; finish for 45s"},
		{`duration="12"`, oneSession, "ramp 100 at 10/s for 10s of a; ramp 4 at 2/s for 2s of a"},
		{`duration="10"`, oneSession, "ramp 100 at 10/s for 10s of a"},
		{`duration="4"`, oneSession, "ramp 40 at 10/s for 4s of a"},
		{`duration="20"`, stays, "ramp 100 at 10/s for 10s of a; ramp 10 at 2/s for 5s of a; hold for 5s"},
		{``, stays, "ramp 100 at 10/s for 10s of a; ramp 10 at 2/s for 5s of a; finish"},
	} {
		text := strings.Replace(scenario{load: phases, sessions: c.sessions}.String(), "<load>", "<load "+c.attrs+">", 1)
		i, err := load(t, text)
		if err != nil {
			t.Fatal(err)
		}
		if got := showPhases(i.Plan.Phases); got != c.want {
			t.Errorf("%s\nmakes %s\nand not %s", c.attrs, got, c.want)
		}
		check(t, i.Plan)
	}
}

func TestUsersAreSharedBySessions(t *testing.T) {
	sessions := func(shares ...string) string {
		var all string
		for i, s := range shares {
			all += strings.Replace(strings.Replace(oneSession, `probability="100"`, s, 1), `"a"`, `"`+string(rune('a'+i))+`"`, 1)
		}
		return all
	}
	hundred := `<arrivalphase phase="1" duration="10"><users arrivalrate="10" unit="second"/></arrivalphase>`
	http := `<session name="h" probability="25" type="ts_http"/>`
	for _, c := range []struct{ load, sessions, groups, phases string }{
		{hundred, sessions(`probability="70"`, `probability="30"`), "a 70, b 30", "ramp 100 at 10/s for 10s of a+b; finish"},
		{hundred, sessions(`probability="66.67"`, `probability="33.33"`), "a 67, b 33", "ramp 100 at 10/s for 10s of a+b; finish"},
		{hundred, sessions(`weight="2"`, `weight="1"`), "a 67, b 33", "ramp 100 at 10/s for 10s of a+b; finish"},
		{hundred, sessions(`probability="100"`, `probability="0"`), "a 100", "ramp 100 at 10/s for 10s of a; finish"},
		{hundred, sessions(`probability="75"`) + http, "a 75", "ramp 75 at 7.5/s for 10s of a; finish"},
		{hundred + `<user session="b" start_time="20"/>`, sessions(`probability="100"`, `probability="0"`), "a 100, b-start 1",
			"ramp 100 at 10/s for 10s of a; hold for 10s; ramp 1 of b-start; finish"},
		// Phases that share alike have the same groups, and others have their own.
		{hundred + strings.Replace(strings.Replace(hundred, `"1"`, `"2"`, 1), "<users", `<session_setup name="a" probability="10"/><session_setup name="b" probability="90"/><users`, 1) +
			strings.Replace(hundred, `"1"`, `"3"`, 1), sessions(`probability="50"`, `probability="50"`), "a 100, b 100, a-2 10, b-2 90",
			"ramp 100 at 10/s for 10s of a+b; ramp 100 at 10/s for 10s of a-2+b-2; ramp 100 at 10/s for 10s of a+b; finish"},
	} {
		i := loaded(t, scenario{load: c.load, sessions: c.sessions})
		if got := showGroups(i.Plan.Groups); got != c.groups {
			t.Errorf("groups %s, and not %s", got, c.groups)
		}
		if got := showPhases(i.Plan.Phases); got != c.phases {
			t.Errorf("%s, and not %s", got, c.phases)
		}
		check(t, i.Plan)
	}
}

// Where users leave, tsung starts another virtual machine for those that find no room. Where none
// leaves, the clients' addresses have no ports for more.
func TestMaxusersBoundsUsersThatStay(t *testing.T) {
	stays := doing(`<thinktime value="wait_bidi"/>`)
	for _, c := range []struct{ clients, sessions, want string }{
		{`<client host="a" maxusers="4"/>`, stays, "a 4"},
		{`<client host="a" maxusers="4" cpu="2"/>`, stays, "a 8"},
		{`<client host="a" maxusers="4" cpu="2" use_controller_vm="true"/>`, stays, "a 4"},
		{`<client host="a" maxusers="4"/><client host="b"/>`, stays, "a 10"},
		{`<client host="a" maxusers="400"/>`, stays, "a 10"},
		{`<client host="a" maxusers="4"/>`, oneSession, "a 10"},
	} {
		i := loaded(t, scenario{clients: c.clients, sessions: c.sessions})
		if got := showGroups(i.Plan.Groups); got != c.want {
			t.Errorf("%s: %s, and not %s", c.clients, got, c.want)
		}
		check(t, i.Plan)
	}
}

func TestWrongLoadsAreRefused(t *testing.T) {
	const rate = `<users arrivalrate="1" unit="second"/>`
	for load0, want := range map[string]string{
		`<arrivalphase phase="1">` + rate + `</arrivalphase>`:                                                         "needs a duration",
		`<arrivalphase phase="1" duration="x">` + rate + `</arrivalphase>`:                                            "duration has to be",
		`<arrivalphase phase="1" duration="1" unit="week">` + rate + `</arrivalphase>`:                                "unit has to be",
		`<arrivalphase phase="1" duration="1"><users unit="second"/></arrivalphase>`:                                  "an arrivalrate or an interarrival",
		`<arrivalphase phase="1" duration="1"><users arrivalrate="1" interarrival="1" unit="second"/></arrivalphase>`: "one of them",
		`<arrivalphase phase="1" duration="1"><users arrivalrate="1" maxnumber="-5" unit="second"/></arrivalphase>`:   "maxnumber has to be",
		`<arrivalphase phase="1" duration="9"><users arrivalrate="1e12" unit="second"/></arrivalphase>`:               "users arrive, more than",
		strings.Repeat(tenUsers, 2):              "another phase 1",
		`<user session="b" start_time="1"/>`:     "there is no session",
		`<user session="a" start_time="later"/>`: "start_time has to be",
		``:                                       "nobody arrives",
		`<arrivalphase phase="1" duration="1"/>`: "nobody arrives",
	} {
		text := strings.Replace(scenario{}.String(), tenUsers, load0, 1)
		if _, err := load(t, text); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), ".xml:4: ") {
			t.Errorf("%s: %v, and not …%s…", load0, err, want)
		}
	}
}
