package main

import (
	"bytes"
	"os/exec"
	"strings"
	"testing"

	"github.com/seed-134acfd0/lull/loadgen/experiment"
)

// inSmallTable runs lull in a namespace whose TCP hash table has few buckets.
func inSmallTable(t *testing.T, buckets int, args ...string) (stderr string, code int) {
	t.Helper()
	space, err := experiment.NewNamespace(buckets)
	if err != nil {
		t.Skip(err)
	}
	defer space.Leave()
	var errs bytes.Buffer
	cmd := exec.Command(program, args...)
	cmd.Dir, cmd.Stderr = t.TempDir(), &errs
	if err := space.Start(cmd); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // its exit code is the result
	return errs.String(), cmd.ProcessState.ExitCode()
}

func TestAnExperimentMakesATableThatFits(t *testing.T) {
	small := []string{"experiment", "--conns", "1000", "--hold", "100ms", "--broadcasts", "1"}
	const said = "in a network namespace of its own, whose TCP hash table has 2,048 buckets; this one's has 256 for 2,000 sockets\n"
	if errs, code := inSmallTable(t, 256, small...); code != 0 || !strings.HasPrefix(errs, said) {
		t.Errorf("exit %d, %s", code, errs)
	}
	for buckets, args := range map[int][]string{2048: small, 256: append(small, "--netns", "no")} {
		if errs, code := inSmallTable(t, buckets, args...); code != 0 || strings.Contains(errs, "namespace") {
			t.Errorf("%d buckets, %q: exit %d, %s", buckets, args, code, errs)
		}
	}
}

func TestAnExperimentsExitCodeComesOutOfItsNamespace(t *testing.T) {
	errs, code := inSmallTable(t, 256, "experiment", "--conns", "200", "--hold", "0s", "--broadcasts", "0", "--report", "/proc/none")
	if code != exitFailed || !strings.Contains(errs, "in a network namespace") || strings.Count(errs, "/proc/none") != 1 {
		t.Errorf("exit %d, %s", code, errs)
	}
}
