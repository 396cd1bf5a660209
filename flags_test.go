package main

import (
	"encoding"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"
)

// A wrong value names its flag and what is accepted.
func TestWrongValuesSayWhatIsRight(t *testing.T) {
	for line, says := range map[string]string{
		"serve --listen 127.0.0.1":               "--listen=127.0.0.1: must be host:port, with a port from 0 to 65,535; for example --listen=0.0.0.0:8080",
		"serve --listen 127.0.0.1:99999":         "--listen=127.0.0.1:99999: must be host:port",
		"serve --listen=":                        "--listen: must have an address",
		"serve --listen [::1]:9,[::1]:9":         "--listen and --admin: [::1]:9 is there twice",
		"serve --listen [::1]:9 --admin [::1]:9": "--listen and --admin: [::1]:9 is there twice",
		"serve --admin nowhere":                  "--admin=nowhere: must be host:port",
		"serve --admin unix:":                    "--admin=unix: must have a path",
		"serve --admin-socket-mode 888":          "--admin-socket-mode=888: must be a file's mode",
		"serve --max-conns -1":                   `--max-conns: must be a whole number from 0 to 1,073,741,824, not "-1"; for example --max-conns=1000000`,
		"serve --max-outbox 0":                   `--max-outbox: must be a whole number from 1 to 1,073,741,824, not "0"; for example --max-outbox=65536`,
		"serve --max-message 1e30":               `--max-message: must be a whole number from 1 to 268,435,456, not "1e30"`,
		"serve --idle-timeout 45":                `--idle-timeout: must be a time like 500ms, 30s or 1h30m from 0s to 8760h, not "45"; for example --idle-timeout=10m`,
		"serve --status=-1s":                     `--status: must be a time like 500ms, 30s or 1h30m from 0s to 24h, not "-1s"`,
		"serve --mode shout":                     `--mode: must be one of chat, rooms, echo, hooks, pusher, not "shout"`,
		"serve --fd-tables both":                 `--fd-tables: must be one of auto, shared, private, not "both"`,
		"serve --outbox-policy=":                 `--outbox-policy: must be one of close, drop-new, drop-old, latest, not ""`,
		"serve --config /does/not/exist":         "--config: open /does/not/exist: no such file",
		"load --conns":                           "--conns: must be followed by a whole number from 1 to 1,073,741,824; for example --conns=1000",
		"serve --mode":                           "--mode: must be followed by a value; for example --mode=chat",
		"load --hold soon":                       `--hold: must be a time like 500ms, 30s or 1h30m from 0s to 8760h, not "soon"; for example --hold=30s`,
		"load --rate NaN":                        `--rate: must be a number from 0 to 10,000,000, not "NaN"; for example --rate=10000`,
		"load --size 5":                          "--size: must be a whole number from 16 to 65,536",
		"load --url http://127.0.0.1/":           "URL http://127.0.0.1/: must begin with ws:// or wss:// and have a host",
		"load ws://":                             "URL ws://: must begin with ws:// or wss:// and have a host",
		"load --url ws://a/,ws://":               "URL ws://: must begin with ws:// or wss:// and have a host",
		"load --expect p99<5":                    "--expect: ",
		"load --json /nowhere/result.json":       "--json: open /nowhere/result.json: no such file or directory",
		"load --answer perhaps":                  "--answer=perhaps: must be echo, any, none, contains:TEXT or match:REGEXP",
		"load --answer match":                    "--answer=match: must be echo, any, none, contains:TEXT or match:REGEXP",
		"load --header Cookie":                   "--header=Cookie: must be a name, a colon and a value",
		"load --scenario a --tsung b":            "--scenario and --tsung: cannot be used together",
		"load --scale 2":                         "--scale: can be used only with --tsung",
		"load --web 0.0.0.0":                     "--web",
		"load --sources nowhere":                 "--sources: ",
		"load --active 900 --flood 101":          "--active=900 and --flood=101: must not be more than --conns=1000 together",
		"load --deaf 1000":                       "--deaf=1000: must be less than --conns=1000",
		"load --floor --size 126":                "--size=126: must be at most 125 with --floor",
		"load --floor --flood 1":                 "--deaf and --flood: cannot be used with --floor",
		"bench nothing":                          `unknown scenario "nothing": must be one of handshake, `,
		"bench flat --conns 5,2":                 "--conns: must be ascending",
		"bench flat --conns 10,x":                "--conns: must be a whole number from 2 to 1,073,741,824, not \"x\"",
		"bench echo --conns 10":                  "--conns: can only be used with flat, topics, resume, users, generators or daphne",
		"bench storm --plot x":                   "--plot: can only be used with flat or cluster",
		"bench generators --conns 5,10":          "--conns: must be one number with generators",
		"bench --rounds 0":                       "--rounds: must be a whole number from 1 to 1,000",
	} {
		if _, errs, code := run(t, strings.Fields(line)...); code != exitUsage || !strings.Contains(errs, says) || strings.Count(errs, "\n") != 2 {
			t.Errorf("lull %s: exit %d, %s", line, code, errs)
		}
	}
}

// flags calls f for each flag of each command.
func flags(f func(command *kong.Node, flag *kong.Flag)) {
	var visit func(*kong.Node)
	visit = func(command *kong.Node) {
		for _, flag := range command.Flags {
			f(command, flag)
		}
		for _, child := range command.Children {
			visit(child)
		}
	}
	visit(newParser().Model.Node)
}

// Each number has a range and an example that is accepted, and each word a list
// of all that there are.
func TestFlagsSayWhatTheyAccept(t *testing.T) {
	flags(func(command *kong.Node, flag *kong.Flag) {
		name := command.Path() + " --" + flag.Name
		switch flag.Target.Interface().(type) {
		case int, int64, float64, time.Duration:
			allowed, err := boundsOf(flag.Value)
			_, given, _ := strings.Cut(example(flag.Value), "=")
			at := reflect.New(flag.Target.Type()).Elem()
			scan := kong.Scan().PushTyped(given, kong.FlagValueToken)
			if err != nil || allowed.text == "" || given == "" || flag.Mapper.Decode(&kong.DecodeContext{Value: flag.Value, Scan: scan}, at) != nil {
				t.Errorf("%s: a range and an example in it are needed: %v, %q, %q", name, err, allowed, given)
			}
		case encoding.TextMarshaler:
			for _, word := range flag.EnumSlice() {
				if reflect.New(flag.Target.Type()).Interface().(encoding.TextUnmarshaler).UnmarshalText([]byte(word)) != nil {
					t.Errorf("%s: %q is no value", name, word)
				}
			}
			if flag.Enum == "" {
				t.Errorf("%s: the values are not listed", name)
			}
		}
	})
}

// A variable means the same to all commands that know it.
func TestVariablesMeanOneThing(t *testing.T) {
	types := map[string]reflect.Type{}
	flags(func(command *kong.Node, flag *kong.Flag) {
		for _, name := range flag.Envs {
			kind := flag.Target.Type()
			if other, ok := types[name]; ok && other != kind {
				t.Errorf("%s is %v for %s and %v elsewhere", name, kind, command.Path(), other)
			}
			types[name] = kind
		}
		if len(flag.Envs) != 1 && !flag.Hidden && flag.Name != "help" && flag.Name != "version" {
			t.Errorf("%s --%s has no variable", command.Path(), flag.Name)
		}
	})
	for _, name := range []string{"LULL_LISTEN", "LULL_FD_TABLES", "LULL_JSON", "LULL_CONFIG"} {
		if types[name] == nil {
			t.Errorf("there is no %s", name)
		}
	}
}
