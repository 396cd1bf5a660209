package tuning

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write what is found to testdata/doctor")

const minutes5 = 5 * time.Minute

// patients are machines with a demand each, and what the diagnosis must contain.
var patients = []struct {
	machine string
	demand  Demand
	verdict Verdict
	stops   []Stop // the first of them
	states  map[string]State
}{
	{
		// MemTotal 16,463,508 KiB − used 745,352 = 15,718,156 KiB. Of these 524 MiB
		// are kept; a connection takes 4129.9 bytes and a message 1096:
		// (16,095,391,744 − 549,453,824) ÷ 5225.9 = 2,974,786.
		// 3,663,543 − 128 watches.
		"amazon", Demand{Conns: 1_000_000, Server: true, Private: true, Targets: 1, Fanout: 32, Ping: minutes5},
		Degraded,
		[]Stop{{"memory", 2_974_786}, {"fs.epoll.max_user_watches", 3_663_415}},
		map[string]State{
			"net.core.somaxconn": Raise, "net.ipv4.tcp_mem": Raise, "security groups": Unseen,
			"RLIMIT_NOFILE": OK, "TCP hash table": Raise, "transparent huge pages": OK,
		},
	},
	{
		// 15 addresses × 64,512 ports ÷ 1.02; 1,048,576 − 64 − 2 × 4 descriptors.
		"debian", Demand{Conns: 1_000_000, Generator: true, Sources: 15, Targets: 1, Fanout: 32},
		NotReached,
		[]Stop{{"source ports", 948_706}, {"RLIMIT_NOFILE", 1_048_504}, {"fs.nr_open", 1_048_504}},
		map[string]State{"source ports": Stops, "net.core.somaxconn": OK, "transparent huge pages": Raise, "net.ipv4.tcp_tw_reuse": Raise},
	},
	{
		// Two server ports pass a million. Memory: each end takes 4257.9 bytes and
		// the message 1096: less 64 for the port that two targets share, 5289.9.
		// But descriptors end first.
		"debian", Demand{Conns: 1_000_000, Generator: true, Sources: 15, Targets: 2, Fanout: 32},
		Degraded,
		[]Stop{{"RLIMIT_NOFILE", 1_048_504}, {"fs.nr_open", 1_048_504}, {"source ports", 1_897_412}},
		map[string]State{"source ports": OK},
	},
	{
		// The pod has 1536 MiB and uses 500, 200 of them for files: 1236 MiB are
		// left. 12 MiB are the process's; an unread message counts as a page:
		// 1,283,457,024 ÷ (4129.9 + 4096) = 156,026.
		"cgroup2", Demand{Conns: 300_000, Server: true, Private: true, Targets: 1, Fanout: 32, Ping: minutes5},
		NotReached,
		[]Stop{{"cgroup memory", 156_026}, {"memory", 2_974_786}},
		map[string]State{"cgroup memory": Stops, "net.ipv4.tcp_mem": Unseen, "security groups": Unseen},
	},
	{
		// Both ends take 8387.8 bytes and the message 1096, both processes 24 MiB:
		// (16,095,391,744 − 562,036,736) ÷ 9483.8 = 1,637,883.
		// (3,663,543 − 128) ÷ 2.
		"namespace", Demand{Conns: 100_000, Server: true, Generator: true, Private: true, Targets: 1, Fanout: 32, Ping: minutes5},
		Degraded,
		[]Stop{{"memory", 1_637_883}, {"fs.epoll.max_user_watches", 1_831_707}},
		map[string]State{"net.ipv4.tcp_mem": Unseen, "net.core.netdev_max_backlog": Unseen, "source ports": OK, "security groups": OK},
	},
	{
		// 262,144 − the 1200 that are tracked; 1,048,576 − 73 descriptors.
		"conntrack", Demand{Conns: 1_000_000, Server: true, Targets: 1, Fanout: 32, Ping: minutes5},
		NotReached,
		[]Stop{{"net.netfilter.nf_conntrack_max", 260_944}, {"RLIMIT_NOFILE", 1_048_503}},
		map[string]State{"net.netfilter.nf_conntrack_max": Stops, "net.netfilter.nf_conntrack_buckets": Raise, "fs.file-max": OK},
	},
	{
		"garbage", Demand{Conns: 1000, Server: true, Targets: 1},
		CannotTell, nil,
		map[string]State{"memory": Unseen, "RLIMIT_NOFILE": Unseen, "net.core.somaxconn": Unseen, "net.ipv4.tcp_mem": OK},
	},
}

func TestMachinesAreDiagnosed(t *testing.T) {
	for _, p := range patients {
		g := mustRead(t, fixture(t, p.machine)).Diagnose(p.demand)
		if g.Verdict != p.verdict {
			t.Errorf("%s: %s, verdict %d", p.machine, g.Line, g.Verdict)
		}
		stops := stopsOf(mustRead(t, fixture(t, p.machine)).Check(p.demand))
		for i, want := range p.stops {
			if i >= len(stops) || stops[i] != want {
				t.Errorf("%s: stopped by %+v, want %+v", p.machine, stops, p.stops)
				break
			}
		}
		seen := 0
		for _, r := range g.Limits {
			want, known := p.states[r.Name]
			if known {
				seen++
			}
			if known && r.State != want {
				t.Errorf("%s: %s: %s, want %s", p.machine, r.Name, r.State, want)
			}
		}
		if seen != len(p.states) {
			t.Errorf("%s: %d of %v are there", p.machine, seen, p.states)
		}
	}
}

// The texts and the JSON change only on purpose.
func TestDiagnosesAreAsRecorded(t *testing.T) {
	seen := map[string]int{}
	for _, p := range patients {
		name := p.machine + "-" + p.demand.role()
		if seen[name]++; seen[name] > 1 {
			continue
		}
		g := mustRead(t, fixture(t, p.machine)).Diagnose(p.demand)
		var text, encoded bytes.Buffer
		if err := g.WriteText(&text, false); err != nil {
			t.Fatal(err)
		}
		e := json.NewEncoder(&encoded)
		e.SetIndent("", "  ")
		if err := e.Encode(g); err != nil {
			t.Fatal(err)
		}
		golden(t, name+".txt", text.Bytes())
		golden(t, name+".json", encoded.Bytes())
	}
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata/doctor", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s has changed; go test ./tuning -update writes the new text, git diff shows the change:\n%s", path, got)
	}
}

// Programs rely on these fields.
func TestJSONHasItsSchema(t *testing.T) {
	g := mustRead(t, fixture(t, "conntrack")).Diagnose(Demand{Conns: 1000, Server: true, Private: true})
	b, err := json.Marshal(g)
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"schema", "version", "role", "target", "facts", "limits", "warnings", "counters", "tops_out_at", "because", "next", "line", "exit"} {
		if _, found := got[key]; !found {
			t.Errorf("there is no %q", key)
		}
	}
	if len(got) != 13 || got["schema"] != "lull.doctor" || got["version"] != 1.0 {
		t.Errorf("%s", b)
	}
	for _, limit := range got["limits"].([]any) {
		for _, key := range []string{"name", "state", "have", "unlimited", "need", "tops_out_at", "scope", "where", "formula", "symptom", "fix", "source"} {
			if _, found := limit.(map[string]any)[key]; !found {
				t.Errorf("%v has no %q", limit, key)
			}
		}
	}
}

// A limit takes one line, or more if it is too low. Colours are used only on request.
func TestTextSaysWhatToDo(t *testing.T) {
	g := mustRead(t, fixture(t, "amazon")).Diagnose(Demand{Conns: 1_000_000, Server: true, Private: true, Fanout: 32})
	var plain, coloured bytes.Buffer
	if err := g.WriteText(&plain, false); err != nil {
		t.Fatal(err)
	}
	if err := g.WriteText(&coloured, true); err != nil {
		t.Fatal(err)
	}
	for _, words := range []string{"sysctl -w net.core.somaxconn=65535", "sysctl -w net.ipv4.tcp_mem='190473 1000000 1000000'", g.Line} {
		if !strings.Contains(plain.String(), words) {
			t.Errorf("%q is not in\n%s", words, &plain)
		}
	}
	if strings.Contains(plain.String(), "\x1b") || strings.Contains(plain.String(), "{}") || !strings.Contains(coloured.String(), "\x1b[33mraise") {
		t.Errorf("%q\n%q", plain.String(), coloured.String())
	}
	if strings.HasSuffix(g.Line, ".") || !strings.HasSuffix(plain.String(), "\n"+g.Line+"\n") {
		t.Errorf("the last line is not %q", g.Line)
	}
}

type full struct{}

func (full) Write([]byte) (int, error) { return 0, os.ErrClosed }

func TestTextThatCannotBeWrittenIsAnError(t *testing.T) {
	if err := mustRead(t, fixture(t, "amazon")).Diagnose(million).WriteText(full{}, false); err != os.ErrClosed {
		t.Errorf("got %v", err)
	}
}

// The worst finding decides.
func TestVerdicts(t *testing.T) {
	hard, soft := &Limit{}, &Limit{Soft: true}
	rows := []struct {
		findings []Finding
		want     Verdict
	}{
		{nil, Fine},
		{[]Finding{{Limit: hard, Have: 2, Need: 2}, {Limit: soft, Have: 2, Need: 1}}, Fine},
		{[]Finding{{Limit: soft, Have: Unknown, Need: 1}}, Fine},
		{[]Finding{{Limit: hard, Have: Unknown, Need: 0}}, Fine},
		{[]Finding{{Limit: soft, Have: 1, Need: 2}}, Degraded},
		{[]Finding{{Limit: soft, Have: 1, Need: 2}, {Limit: hard, Have: Unknown, Need: 1}}, CannotTell},
		{[]Finding{{Limit: hard, Have: Unknown, Need: 1}, {Limit: hard, Have: 1, Need: 2}}, NotReached},
	}
	for _, r := range rows {
		if got := verdictOf(r.findings); got != r.want {
			t.Errorf("%+v: %d, want %d", r.findings, got, r.want)
		}
	}
}

func TestLines(t *testing.T) {
	memory, ports, more := Stop{"memory", 1234}, Stop{"source ports", 5678}, Stop{"more", 9999}
	rows := []struct {
		stops  []Stop
		unseen []string
		want   string
	}{
		{nil, nil, "nothing that can be seen stops this machine"},
		{nil, []string{"a", "b"}, "nothing that can be seen stops this machine; not seen: a, b"},
		{[]Stop{memory}, nil, "this machine tops out at 1,234 connections because of memory"},
		{[]Stop{memory, ports, more}, nil, "this machine tops out at 1,234 connections because of memory; next is source ports at 5,678"},
	}
	for _, r := range rows {
		if got := lineOf(r.stops, r.unseen); got != r.want {
			t.Errorf("%q, want %q", got, r.want)
		}
	}
}

// After everything in Settings is raised, no limit is too low that a setting could
// raise.
func TestSettingsAreEnough(t *testing.T) {
	for _, p := range patients {
		m := mustRead(t, fixture(t, p.machine))
		for _, s := range m.Settings(p.demand) {
			if _, err := m.sysctl(s.Name); err != nil || s.Want == "" || s.Why == "" {
				continue
			}
			now, _ := m.sysctl(s.Name)
			raised, err := s.raise(now)
			if p.machine == "garbage" {
				continue // the value is no number
			}
			if err != nil {
				t.Errorf("%s: %s: %v", p.machine, s.Name, err)
			}
			write(t, m, map[string]string{s.Name: raised})
		}
		for _, f := range m.Check(p.demand) {
			if f.Limit.Sysctl != "" && !f.OK() {
				t.Errorf("%s: %s is still %s: have %d, need %d", p.machine, f.Limit.Name, f.State(), f.Have, f.Need)
			}
		}
	}
}

func TestDangerousSettingsMustBeNamed(t *testing.T) {
	named := map[string]string{}
	for _, s := range mustRead(t, fixture(t, "conntrack")).Settings(Demand{Conns: 1_000_000, Server: true, Fanout: 32}) {
		if s.Named {
			named[s.Name] = s.Want
		}
	}
	// 1.2 N, and pages: a million are less than 40 % of the memory.
	want := map[string]string{"net.ipv4.tcp_mem": "190473 1000000 1000000", "net.netfilter.nf_conntrack_max": "1200000", "net.netfilter.nf_conntrack_buckets": "1200000"}
	if len(named) != len(want) {
		t.Errorf("%v, want %v", named, want)
	}
	for name, value := range want {
		if named[name] != value {
			t.Errorf("%s: %q, want %q", name, named[name], value)
		}
	}
}
