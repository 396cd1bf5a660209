package experiment

import (
	"io"
	"strings"
	"testing"
)

// Tables say what was measured, and nothing where nothing was.
func TestTablesOfTheHooksExperiments(t *testing.T) {
	var side DaphneSide
	side.Name, side.Sleeping, side.PerConn, side.Handshake = "lull, gunicorn", 4.9, 1234, 567
	side.Clicking.Sent, side.Clicking.Lost = 120_000, 3
	side.Clicking.Memory = []Grown{{Front: 30 * mebi}, {Behind: mebi}, {32 * mebi, 100 * mebi}}
	for name, table := range map[string]struct {
		write func(io.Writer) error
		none  func(io.Writer) error
		parts []string
	}{
		"daphne": {
			func(w io.Writer) error { return WriteDaphne(w, []DaphneSide{side}, 2000) },
			func(w io.Writer) error { return WriteDaphne(w, nil, 2000) },
			[]string{"lull, gunicorn", "4.90/s", "120,000", "30 MiB, 0 + 1 MiB, 32 + 100 MiB", "2,000 idle", "1234 B", "567 µs"},
		},
		"outage": {
			func(w io.Writer) error {
				return WriteOutages(w, []Outage{{Retries: 5, Sent: 1000, Answered: 998, Unanswered: 2, Counted: 2, Refused: "503", Before: 30 * mebi}})
			},
			func(w io.Writer) error { return WriteOutages(w, nil) },
			[]string{"--hook-retries 5", "1,000", "998", "2, 2", "0 of 500", "503", "30.0, 0.0, 0.0 MiB"},
		},
		"users": {
			func(w io.Writer) error {
				return WriteUsers(w, []Users{{Kind: "hooks", Open: 100_000, Memory: Memory{ServerSlope: &Slope{Bytes: 117, Error: 1}, ServerPerConn: 300}, Most: 400}, {Open: 10}})
			},
			func(w io.Writer) error { return WriteUsers(w, nil) },
			[]string{"a user and a topic", "100,000", "117.0 B ±1.0", "300.0 B", "400.0 B", "not measured"},
		},
	} {
		var text, nothing strings.Builder
		if err := table.write(&text); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		for _, part := range table.parts {
			if !strings.Contains(text.String(), part) {
				t.Errorf("%s: %q is not in\n%s", name, part, &text)
			}
		}
		if err := table.none(&nothing); err != nil || nothing.Len() > 0 {
			t.Errorf("%s: without results it is %q, %v", name, &nothing, err)
		}
	}
}
