package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// written is a configuration file.
func written(t *testing.T, text string) (name string) {
	t.Helper()
	name = filepath.Join(t.TempDir(), "lull.yml")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// runWith runs lull with variables in its environment.
func runWith(t *testing.T, variables []string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	cmd := exec.Command(program, args...)
	cmd.Env = append(os.Environ(), variables...)
	return runCommand(t, cmd)
}

// A flag comes before the environment, that before the file, and that before the
// default; and config says which it was.
func TestConfigSaysWhatIsInForceAndWhy(t *testing.T) {
	file := written(t, `
serve:
  listen: [127.0.0.1:1, "[::1]:2"]
  grace: 3s
  status: 4s
  max-conns: 1_000
  pprof: true
  outbox-policy: latest
  admin: ""
load:
  conns: 7
tune: {apply: {target: 100}}
`)
	variables := []string{"LULL_STATUS=5s", "LULL_MAX_CONNS=2000", "LULL_CONFIG=" + file, "LULL_CONNS=not for serve"}
	out, errs, code := runWith(t, variables, "config", "--max-conns", "3000")
	if code != 0 || errs != "" {
		t.Fatalf("exit %d, %s", code, errs)
	}
	spaces := regexp.MustCompile(`  +`)
	got := spaces.ReplaceAllString(out, " ")
	for _, line := range []string{
		"listen: ['127.0.0.1:1', '[::1]:2'] # " + file + ":3", "grace: 3s # " + file + ":4", "status: 5s # LULL_STATUS",
		"max-conns: 3000 # flag", "pprof: true # " + file + ":7", "outbox-policy: latest # " + file + ":8", `admin: "" # ` + file + ":9",
		"mode: chat # default", "idle-timeout: 10m0s # default",
	} {
		if !strings.Contains(got, " "+line+"\n") {
			t.Errorf("%s lacks %q", got, line)
		}
	}
	again, errs, code := run(t, "config", "--config", written(t, out))
	values := regexp.MustCompile(` *#.*`)
	if code != 0 || values.ReplaceAllString(again, "") != values.ReplaceAllString(out, "") {
		t.Errorf("the output is no such file: exit %d, %s%s", code, again, errs)
	}
}

// The file is for all commands, and is read for each.
func TestServeObeysItsFile(t *testing.T) {
	file := written(t, "serve:\n  mode: echo\n  max-conns: 1234\n")
	_, stop := serve(t, "--config", file)
	stop()
	out, _, code := run(t, "doctor", "--root", patient(t, "amazon"), "--config", written(t, "doctor: {target: 3000000}"))
	if code != 2 {
		t.Errorf("exit %d, %s", code, out)
	}
}

func TestMistakesInAFileNameTheKeyAndTheLine(t *testing.T) {
	for text, says := range map[string]string{
		"serve:\n  mode: echo\n  max-con: 5\n":   `:3: unknown key "max-con": "lull serve --help" shows the flags that there are`,
		"sever: {}\n":                            `:1: unknown key "sever": must be a command with flags`,
		"config: {mode: echo}\n":                 `:1: unknown key "config"`,
		"version: true\n":                        `:1: unknown key "version"`,
		"tune:\n  target: 5\n":                   `:2: unknown key "target": "lull tune --help"`,
		"serve:\n  help: true\n":                 `:2: unknown key "help"`,
		"serve:\n  grace: soon\n":                `:2: grace: must be a time like 500ms, 30s or 1h30m from 0s to 24h, not "soon"`,
		"serve:\n  max-conns: -1\n":              `:2: max-conns: must be a whole number from 0 to`,
		"serve:\n  max-conns: [1, 2]\n":          ":2: max-conns: must be one value",
		"serve:\n  max-conns:\n":                 ":2: max-conns: must be one value",
		"serve:\n  listen: {a: b}\n":             ":2: listen: must be a value or a list of values",
		"serve:\n  mode: shout\n":                ":2: mode: must be one of chat, rooms, echo, hooks",
		"load:\n  conns: no\n":                   ":2: conns: must be a whole number", // another command's
		"serve:\n  grace: 1s\n  grace: 2s\n":     ":3: grace is there twice",
		"serve: [1]\n":                           ":1: serve: must have keys with values",
		"just text\n":                            ":1: lull: must have keys with values",
		"serve: {}\n---\nserve: {}\n":            "it must have one document",
		"serve:\n\t- tab\n":                      "line 2",
		"serve:\n  mode: &m echo\n  grace: *m\n": ":3: grace: must be one value",
	} {
		file := written(t, text)
		if _, errs, code := run(t, "serve", "--config", file); code != exitUsage || !strings.Contains(errs, "--config: "+filepath.Dir(file)) && !strings.Contains(errs, "yaml") || !strings.Contains(errs, says) {
			t.Errorf("%q: exit %d, %s", text, code, errs)
		}
	}
	if out, errs, code := run(t, "config", "--config", written(t, "")); code != 0 || !strings.Contains(out, "listen: ['127.0.0.1:8080']") {
		t.Errorf("empty: exit %d, %s", code, errs)
	}
}

func TestMistakesInTheEnvironmentNameTheVariable(t *testing.T) {
	_, errs, code := runWith(t, []string{"LULL_GRACE=soon"}, "serve")
	if code != exitUsage || !strings.Contains(errs, `--grace: must be a time`) || !strings.Contains(errs, `LULL_GRACE="soon"`) {
		t.Errorf("exit %d, %s", code, errs)
	}
}
