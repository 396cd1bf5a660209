package experiment

import (
	"context"
	"strings"
	"testing"
)

// All clients come back to the new server, over TCP and TLS, and a settled connection's
// Pings are answered meanwhile.
func TestStorms(t *testing.T) {
	rows, err := Storms(context.Background(), StormConfig{Conns: 300, TLSConns: 60, Say: t.Logf})
	if err != nil {
		t.Fatal(err)
	}
	if len(rows) != len(storms) {
		t.Fatalf("%d rows, want %d", len(rows), len(storms))
	}
	for _, r := range rows {
		if r.Back != r.Conns || r.Away.Count != int64(r.Conns) || r.Handshake <= 0 {
			t.Errorf("%+v", r)
		}
		if tickets := strings.Contains(r.Name, "with tickets"); tickets != (r.Resumed > r.Conns/2) {
			t.Errorf("%s: %d resumed", r.Name, r.Resumed)
		}
	}
	var out strings.Builder
	if err := WriteStorms(&out, rows); err != nil {
		t.Fatal(err)
	}
	if got := out.String(); strings.Count(got, "\n| ") != len(storms)+1 || !strings.Contains(got, "300 of 300") {
		t.Error(got)
	}
}
