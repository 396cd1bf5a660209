package experiment

import (
	"context"
	"strings"
	"testing"
	"time"
)

// Clients whose node is killed come to the other one, and get all that was said, once.
func TestClientsResumeAtAnotherNode(t *testing.T) {
	config := ResumeConfig{Conns: 150, Before: 500 * time.Millisecond, Spread: 500 * time.Millisecond, After: 100 * time.Millisecond, Say: t.Logf}
	row, err := resumptions[0].run(context.Background(), config)
	if err != nil {
		t.Fatal(err)
	}
	if row.Back != row.Conns || row.Said == 0 || row.Missing+row.Twice+row.Told != 0 || row.Delivered != int64(row.Said)*int64(row.Conns+row.Rooms)/int64(row.Rooms) {
		t.Errorf("%+v", row)
	}
	var out strings.Builder
	if err := WriteResumes(&out, []Resume{row}); err != nil {
		t.Fatal(err)
	}
	if got := out.String(); !strings.Contains(got, "| the node was killed | 150 of 150 |") {
		t.Error(got)
	}
}
