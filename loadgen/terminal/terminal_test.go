package terminal

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mattn/go-runewidth"
	"github.com/vbauerster/cupwriter"
	"github.com/vbauerster/mpb/v8"

	"github.com/seed-134acfd0/lull/internal/testkit"
	"github.com/seed-134acfd0/lull/loadgen/measure"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden compares text with a file in testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s is not what go test ./loadgen/terminal -update makes of it:\n%s", path, got)
	}
}

// times are some times of a kind.
func times(k measure.Kind, all ...time.Duration) (h measure.Histograms) {
	for _, d := range all {
		h.Record(k, d)
	}
	return h
}

// ramping is a run of which a part of the connections is open.
func ramping(s measure.Sink) {
	s.Phase("ramp")
	for i := range 21 {
		now := measure.Snapshot{
			At: time.Duration(i) * 100 * time.Millisecond, Phase: "ramp", PhaseCount: 3,
			Users: 100_000, Open: 1000 * i, Opening: 120, CPU: 0.42, Busy: 0.915,
		}
		now.Counts[measure.Connected] = uint64(1000 * i)
		if i == 10 || i == 20 {
			now.Times = times(measure.Handshake, 800*time.Microsecond, 1200*time.Microsecond, 30*time.Millisecond, 2*time.Minute)
			now.Times.Record(measure.Lag, 350*time.Microsecond)
		}
		s.Snapshot(&now)
	}
}

// holding is a run in its second phase, with all that can go wrong.
func holding(s measure.Sink) {
	ramping(s)
	s.Phase("a day's work, which has a long name")
	now := measure.Snapshot{
		At: 4 * time.Second, Phase: "a day's work, which has a long name", PhaseIndex: 1, PhaseCount: 3, Expected: 6 * time.Second,
		Users: 100_000, Open: 99_988, CPU: 0.08, Busy: 1,
		Times:   times(measure.Echo, 2*time.Millisecond, 2*time.Second),
		Limited: []string{"ramp: the generator used 91 % of all processors"},
		Errors: []measure.Found{
			{Error: measure.Error{Counter: "rejected", Phase: "ramp", Text: "503 Service\r\n\x1b[2JUnavailable 混雑"}, Count: 1234},
			{Error: measure.Error{Counter: "dropped", Phase: "hold", Text: "read tcp 127.0.0.1:1->127.0.0.1:2: connection reset by peer"}, Count: 2},
			{Error: measure.Error{Counter: "dropped", Phase: "hold", Text: "EOF"}, Count: 1},
			{Error: measure.Error{Counter: "dropped", Phase: "hold", Text: "the fourth, which is not shown"}, Count: 1},
		},
	}
	now.Counts[measure.Connected], now.Counts[measure.Rejected], now.Counts[measure.Dropped] = 100_000, 1234, 12
	now.Counts[measure.Asked], now.Counts[measure.Echoes] = 5000, 4990
	now.Counts[measure.BytesOut], now.Counts[measure.BytesIn] = 300_000, 9_000_000
	s.Snapshot(&now)
}

// paused is a run that somebody has paused in a phase without an end.
func paused(s measure.Sink) {
	ramping(s)
	now := measure.Snapshot{At: 90 * time.Second, Phase: "ramp", PhaseCount: 3, Users: 100_000, Open: 20_000, Paused: true}
	now.Counts[measure.Connected] = 20_000
	s.Snapshot(&now)
}

func TestRowsFitOntoScreensOfAllWidths(t *testing.T) {
	states := map[string]func(measure.Sink){"starting": func(measure.Sink) {}, "ramp": ramping, "hold": holding, "paused": paused}
	for name, state := range states {
		var s view
		state(&s)
		for columns := -1; columns < 300; columns++ {
			rows := s.rows(columns)
			if len(rows) == 0 || len(rows) > rowsShown {
				t.Errorf("%s in %d columns: %d rows", name, columns, len(rows))
			}
			for _, row := range rows {
				if runewidth.StringWidth(row) > max(1, columns) {
					t.Errorf("%s in %d columns: %q", name, columns, row)
				}
			}
		}
		for _, columns := range []int{100, 40} {
			golden(t, fmt.Sprintf("%s-%d.txt", name, columns), strings.Join(s.rows(columns), "\n")+"\n")
		}
	}
}

// What a server says must not act on the terminal.
func TestTextsOfErrorsCannotMoveTheCursor(t *testing.T) {
	var s view
	holding(&s)
	for _, row := range s.rows(100) {
		if strings.ContainsAny(row, "\x1b\r\n") {
			t.Errorf("%q", row)
		}
	}
}

// fakeTerminal is a screen that knows the two sequences that are used.
type fakeTerminal struct {
	*cupwriter.Writer
	columns int

	mu   sync.Mutex
	rows []string
	row  int
	odd  string // a sequence that it does not know
}

func newFakeTerminal(columns int) *fakeTerminal {
	f := &fakeTerminal{columns: columns, rows: []string{""}}
	f.Writer = cupwriter.New(writer(f.show), true)
	return f
}

func (f *fakeTerminal) IsTerminal() bool               { return true }
func (f *fakeTerminal) GetTermSize() (int, int, error) { return f.columns, 24, nil }

type writer func([]byte)

func (w writer) Write(b []byte) (int, error) { w(b); return len(b), nil }

var sequence = regexp.MustCompile("^\x1b\\[([0-9]+)A|^\x1b\\[J|^\n|^[^\x1b\n]+|^\x1b")

func (f *fakeTerminal) show(b []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for text := string(b); text != ""; {
		m := sequence.FindStringSubmatch(text)
		text = text[len(m[0]):]
		switch {
		case m[1] != "": // up
			up, _ := strconv.Atoi(m[1])
			f.row = max(0, f.row-up)
		case m[0] == "\x1b[J": // erase below
			f.rows = append(f.rows[:f.row], "")
		case m[0] == "\n":
			if f.row++; f.row == len(f.rows) {
				f.rows = append(f.rows, "")
			}
		case m[0] == "\x1b":
			f.odd = text
		default:
			f.rows[f.row] += m[0]
		}
	}
}

// screen is what it shows.
func (f *fakeTerminal) screen() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return strings.Join(f.rows, "\n")
}

func TestTheDisplayIsDrawnInPlaceAndClearedAtTheEnd(t *testing.T) {
	f := newFakeTerminal(60)
	draw := make(chan any)
	l := newLive(f, mpb.WithManualRefresh(draw))
	f.show([]byte("$ lull load\n"))
	for _, state := range []func(measure.Sink){ramping, holding, paused} {
		var s view
		state(&s)
		want := "$ lull load\n" + strings.Join(s.rows(60), "\n") + "\n"
		l.mu.Lock()
		l.view = view{}
		l.mu.Unlock()
		state(l)
		testkit.Eventually(t, "the rows are shown", func() bool {
			draw <- time.Now()
			return f.screen() == want
		})
	}
	go func() { // the screen asks for a last picture itself
		for range draw {
		}
	}()
	l.Close()
	close(draw)
	if got := f.screen(); got != "$ lull load\n" {
		t.Errorf("left on the screen: %q", got)
	}
	if f.odd != "" {
		t.Errorf("the terminal does not know %q", f.odd)
	}
}

// Somebody holds the terminal with Ctrl-S.
func TestATerminalThatTakesNothingDoesNotHoldTheRun(t *testing.T) {
	held, release := io.Pipe()
	f := newFakeTerminal(60)
	f.Writer = cupwriter.New(release, true)
	draw := make(chan any)
	l := newLive(f, mpb.WithManualRefresh(draw))
	draw <- time.Now()
	draw <- time.Now() // the picture before is on its way, and nobody takes it
	ramping(l)
	go io.Copy(io.Discard, held)
	l.Close()
}

func TestATerminalThatHasGoneEndsTheDisplay(t *testing.T) {
	gone, screen := io.Pipe()
	gone.Close()
	f := newFakeTerminal(60)
	f.Writer = cupwriter.New(screen, true)
	l := newLive(f, mpb.WithAutoRefresh())
	ramping(l)
	l.Close()
}

func TestWithoutATerminalThereAreLines(t *testing.T) {
	var out bytes.Buffer
	plain := slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}))
	pipe, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer pipe.Close()
	d := New(pipe, plain)
	holding(d)
	for i := range 120 { // twelve more seconds
		d.Snapshot(&measure.Snapshot{At: 4*time.Second + time.Duration(i)*100*time.Millisecond, Phase: "hold", PhaseIndex: 1, PhaseCount: 3, Users: 100_000, Open: i, Paused: true})
	}
	d.Close()
	golden(t, "lines.txt", out.String())
}

func TestFiguresHaveAsManyDigitsAsSaySomething(t *testing.T) {
	var got []string
	for _, d := range []time.Duration{0, 850 * time.Microsecond, 1234 * time.Microsecond, 2500 * time.Millisecond, 59 * time.Second, 90 * time.Second, 25 * time.Hour} {
		got = append(got, latency(d))
	}
	for _, n := range []float64{0, 0.25, 9.9, 12.4, 1234567.8} {
		got = append(got, rate(n))
	}
	want := []string{"0 s", "850 µs", "1.2 ms", "2.5 s", "59 s", "1m30s", "25h0m0s", "0/s", "0.2/s", "9.9/s", "12/s", "1,234,568/s"}
	if !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}
