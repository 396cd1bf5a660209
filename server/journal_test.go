package server

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
)

// written runs a journal to its end and returns its lines.
func written(add func(*journal)) (lines []string, lost uint64) {
	var out bytes.Buffer
	j := newJournal(slog.New(slog.NewTextHandler(&out, nil)))
	add(j)
	go j.run()
	j.close()
	return strings.Split(strings.TrimSpace(out.String()), "\n"), j.lost.Load()
}

func TestAJournalWritesLinesInOrder(t *testing.T) {
	lines, lost := written(func(j *journal) {
		j.add(slog.LevelWarn, "first", "n", 1)
		j.add(slog.LevelError, "second")
		j.add(slog.LevelInfo, "third")
	})
	for i, want := range []string{"level=WARN msg=first n=1", "level=ERROR msg=second", "level=INFO msg=third"} {
		if i >= len(lines) || !strings.HasSuffix(lines[i], want) {
			t.Errorf("line %d is not %q in %q", i, want, lines)
		}
	}
	if lost != 0 || len(lines) != 3 {
		t.Errorf("%d lines, %d lost", len(lines), lost)
	}
}

// Clients can make a server log. Lines that are alike are limited, so that other lines
// are not lost.
func TestAJournalSumsUpLinesThatAreAlike(t *testing.T) {
	lines, lost := written(func(j *journal) {
		for range 100 {
			j.add(slog.LevelWarn, "bad input")
		}
		j.add(slog.LevelWarn, "something else")
	})
	want := linesAlike + 2
	if len(lines) != want || lost != 100-linesAlike {
		t.Errorf("%d lines, %d lost, want %d and %d", len(lines), lost, want, 100-linesAlike)
	}
	if last := lines[len(lines)-1]; !strings.Contains(last, `message="bad input" lines=80`) {
		t.Errorf("the last line is %q", last)
	}
}

// A reactor does not wait for a log that nobody reads.
func TestAJournalDropsLinesWithoutRoom(t *testing.T) {
	const more = 44
	j := newJournal(slog.New(slog.DiscardHandler))
	for range linesWaiting + more {
		j.add(slog.LevelWarn, "bad input")
	}
	if n := j.lost.Load(); n != more {
		t.Errorf("%d lines are lost, want %d", n, more)
	}
}
