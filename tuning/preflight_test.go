package tuning

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestPreflightRefusesWhatWillNotBeReached(t *testing.T) {
	m := mustRead(t, fixture(t, "debian"))
	d := Demand{Conns: 1_000_000, Generator: true, Sources: 15, Targets: 1}
	warnings, refusal := m.preflight(d)
	if refusal == nil {
		t.Fatal("not refused")
	}
	for _, words := range []string{"tuning: 1,000,000 connections", "tops out at 948,706 connections because of source ports", "EADDRNOTAVAIL", "--sources"} {
		if !strings.Contains(refusal.Error(), words) {
			t.Errorf("%q does not say %q", refusal, words)
		}
	}
	if len(warnings) != 3 || !strings.Contains(warnings[0], "TCP hash table is 131,072 and should be 1,000,000") ||
		!strings.Contains(warnings[1], "tcp_tw_reuse is 0 and should be 1") || !strings.Contains(warnings[2], "transparent huge pages") {
		t.Errorf("%q", warnings)
	}
	d.Conns = 948_706
	if _, refusal := m.preflight(d); refusal != nil {
		t.Errorf("%v", refusal)
	}
}

// A limit that cannot be read is no reason to refuse.
func TestPreflightRefusesNothingThatCannotBeSeen(t *testing.T) {
	if warnings, refusal := mustRead(t, fixture(t, "garbage")).preflight(Demand{Conns: 1_000_000, Server: true}); refusal != nil || len(warnings) > 0 {
		t.Errorf("%v, %q", refusal, warnings)
	}
}

// keepDescriptors returns RLIMIT_NOFILE, and puts it back at the test's end.
func keepDescriptors(t *testing.T) (limit unix.Rlimit) {
	t.Helper()
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
			t.Error(err)
		}
	})
	return limit
}

func TestPreflightRaisesItsOwnLimit(t *testing.T) {
	before := keepDescriptors(t)
	low := before
	low.Cur = 512
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &low); err != nil {
		t.Fatal(err)
	}
	if _, refusal := Preflight(Demand{Conns: 1, Server: true, Private: true}); refusal != nil {
		t.Error(refusal)
	}
	var after unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &after); err != nil || after.Cur != before.Max {
		t.Errorf("%+v, %v; it was %+v", after, err, before)
	}
}

func TestPreflightOfThisMachine(t *testing.T) {
	_, refusal := Preflight(Demand{Conns: 1_000_000_000, Server: true, Private: true})
	if refusal == nil || !strings.Contains(refusal.Error(), "this machine tops out at") {
		t.Errorf("a billion: %v", refusal)
	}
}

func TestFewConnectionsAreNotWarned(t *testing.T) {
	m := mustRead(t, fixture(t, "amazon"))
	for conns, want := range map[int]bool{warnFrom - 1: false, warnFrom: true} {
		if warnings, _ := m.preflight(Demand{Conns: conns, Server: true, Private: true}); len(warnings) > 0 != want {
			t.Errorf("%d connections: %q", conns, warnings)
		}
	}
}
