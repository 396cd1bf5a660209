package measure

import (
	"cmp"
	"slices"
	"strings"
)

// errorsMost is how many different errors are kept. More are counted by their
// counters alone, so a server that answers everybody differently fills no memory.
const errorsMost = 64

// errorText is the longest text of an error that is kept, in bytes.
const errorText = 300

// Errors counts errors by kind, phase and text. The zero value is empty. It belongs
// to one goroutine at a time.
type Errors struct{ counts map[Error]int }

// Error is one kind of error.
type Error struct {
	Counter string `json:"counter"` // the name of what it is counted as
	Phase   string `json:"phase"`   // in which it came
	Text    string `json:"text"`
}

// String is the text, with what it was counted as and when it came.
func (e Error) String() string {
	text := e.Text
	if e.Counter != "" {
		text = e.Counter + ": " + text
	}
	if e.Phase != "" {
		text += " (" + e.Phase + ")"
	}
	return text
}

// Found is an error and how often it came.
type Found struct {
	Error
	Count int `json:"count"`
}

// Add counts an error n times.
func (e *Errors) Add(err Error, n int) {
	if len(err.Text) > errorText {
		err.Text = strings.ToValidUTF8(err.Text[:errorText], "") + "…"
	}
	if _, known := e.counts[err]; !known && len(e.counts) == errorsMost {
		return
	}
	if e.counts == nil {
		e.counts = map[Error]int{}
	}
	e.counts[err] += n
}

// Merge adds what other has.
func (e *Errors) Merge(other []Found) {
	for _, f := range other {
		e.Add(f.Error, f.Count)
	}
}

// List returns the errors, the most frequent first.
func (e *Errors) List() []Found {
	list := make([]Found, 0, len(e.counts))
	for err, n := range e.counts {
		list = append(list, Found{err, n})
	}
	slices.SortFunc(list, func(a, b Found) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Counter, b.Counter), cmp.Compare(a.Phase, b.Phase), cmp.Compare(a.Text, b.Text))
	})
	return list
}
