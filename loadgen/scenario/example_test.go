package scenario

import (
	"path/filepath"
	"testing"
)

// exampleFiles are the examples in docs.
func exampleFiles(t *testing.T) []string {
	t.Helper()
	paths, err := filepath.Glob("../../docs/scenarios/*.yaml")
	if err != nil || len(paths) < 5 {
		t.Fatal(paths, err)
	}
	return paths
}

func TestTheExamplesAreValid(t *testing.T) {
	for _, path := range exampleFiles(t) {
		if _, err := Load(path); err != nil {
			t.Error(err)
		}
	}
}
