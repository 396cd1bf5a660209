package result

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

func TestWhetherAFileCanBeWrittenIsKnownBefore(t *testing.T) {
	dir := t.TempDir()
	kept, fresh, pipe := filepath.Join(dir, "kept"), filepath.Join(dir, "fresh"), filepath.Join(dir, "pipe")
	if err := os.WriteFile(kept, []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"-", kept, fresh, pipe, "/dev/null"} {
		if err := Writable(path); err != nil {
			t.Errorf("%s: %v", path, err)
		}
	}
	for _, path := range []string{"", dir, filepath.Join(dir, "none", "file"), filepath.Join(kept, "file"), "/proc/file"} {
		if Writable(path) == nil {
			t.Errorf("%q can be written", path)
		}
	}
	if text, err := os.ReadFile(kept); err != nil || string(text) != "text" {
		t.Errorf("a file that was there has become %q: %v", text, err)
	}
	if _, err := os.Stat(fresh); !os.IsNotExist(err) {
		t.Errorf("a file is left: %v", err)
	}
}

func TestAFileThatIsNotThereIsNamed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "old.json")
	if _, err := ReadFile(path); !os.IsNotExist(err) {
		t.Error(err)
	}
	if err := os.WriteFile(path, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadFile(path); err == nil || err.Error() != path+": result: it is no result of lull load: its schema has to be "+Schema {
		t.Error(err)
	}
}

// Whatever is in a file, it is refused or can be shown.
func FuzzRead(f *testing.F) {
	for _, text := range []string{
		`{"schema":"lull.load","version":2,"conns":2,"open":1,"gone":1,"counts":{"asked":9,"strayed":9},"echo":{"flood":{}}}`,
		`{"schema":"lull.load","version":2,"series":[{"s":1,"open":1,"answer_p99_ms":3},{"s":2}],"phases":[{"name":"a","counts":{"sent":1}}]}`,
		`{"schema":"lull.load","version":2,"broadcasts":[{"expected":2,"latency_ms":{"count":1,"p50":null}}],"valid":true}`,
		`{"schema":"lull.load","version":2,"errors":[{"counter":"closed","text":"no","count":3}],"expected":[{"figure":"lost","op":"="}]}`,
		`{"schema":"lull.load","version":2,"histograms":"echo HISTFAAAABF42pNpmSzMwMDAwQABzFCaEQA"}`,
		`{"conns":1,"counts":{}}`,
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		r, err := Read(bytes.NewReader(text))
		if err != nil {
			return
		}
		compared := Compare(Side{"a", []*Result{r}}, Side{"b", []*Result{r}})
		for _, write := range []func(io.Writer) error{r.WriteText, r.WriteJSON, r.WriteCSV, compared.WriteText} {
			if err := write(io.Discard); err != nil {
				t.Error(err)
			}
		}
	})
}
