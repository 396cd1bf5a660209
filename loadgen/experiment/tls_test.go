package experiment

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// An experiment over TLS leaves nothing lost, and no files.
func TestAnExperimentOverTLS(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	const conns = 200
	r, _, err := experiment(t, Config{Conns: conns, Hold: 100 * time.Millisecond, Broadcasts: 2, Size: 40, TLS: true}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if !r.Load.OK() || r.Load.URLs[0][:6] != "wss://" {
		t.Errorf("%+v", r.Load)
	}
	if left, _ := filepath.Glob(os.TempDir() + "/*"); len(left) > 0 {
		t.Errorf("%v are left", left)
	}
}

func TestTheCertificateIsPrivate(t *testing.T) {
	c, err := newCertificate()
	if err != nil {
		t.Fatal(err)
	}
	defer c.remove()
	for path, want := range map[string]os.FileMode{c.dir: 0o700, c.key: 0o600} {
		info, err := os.Stat(path)
		if err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v", path, info.Mode(), err)
		}
	}
}

// The scenario tls measures handshakes and echoes of two servers.
func TestBenchOverTLS(t *testing.T) {
	s := overTLS()
	s.load.Conns, s.load.Active, s.load.Echo = 50, 10, 100*time.Millisecond
	before := scenarios
	t.Cleanup(func() { scenarios = before })
	scenarios = []scenario{s}
	rows, err := Bench(t.Context(), BenchConfig{Peer: os.Args[0], Rounds: 1, Scenarios: []string{s.name}, Say: t.Logf})
	if err != nil || len(rows) != len(s.figures) {
		t.Fatal(rows, err)
	}
	for _, r := range rows {
		if len(r.Lull) != 1 || len(r.Floor) != 1 || len(r.Ratios) != 1 {
			t.Errorf("%+v", r)
		}
	}
}
