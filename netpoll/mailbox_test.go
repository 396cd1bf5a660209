package netpoll

import (
	"bytes"
	"errors"
	"fmt"
	"sync"
	"testing"
)

func newMailbox(t *testing.T, limit Limit) (*Mailbox[int], *Poller) {
	t.Helper()
	p, w := newPoller(t)
	return NewMailbox[int](w, limit), p
}

// read opens a mailbox, returns the letters' values and bytes, and empties it.
func read(m *Mailbox[int]) (values []int, data []string) {
	letters, all := m.Open()
	defer m.Empty()
	begin := 0
	for _, l := range letters {
		values = append(values, l.Value)
		data = append(data, string(all[begin:l.End]))
		begin = l.End
	}
	return values, data
}

func TestLettersKeepOrderAndBytes(t *testing.T) {
	m, _ := newMailbox(t, Limit{10, 100})
	for _, post := range []struct{ head, body string }{{"a", "bc"}, {"", ""}, {"", "def"}} {
		if err := m.Post(len(post.body), []byte(post.head), []byte(post.body)); err != nil {
			t.Fatal(err)
		}
	}
	if !m.Called() {
		t.Error("not called after a post")
	}
	values, data := read(m)
	if fmt.Sprint(values) != "[2 0 3]" || fmt.Sprintf("%q", data) != `["abc" "" "def"]` {
		t.Errorf("got %v, %q", values, data)
	}
	if m.Called() {
		t.Error("called after Open")
	}
	if values, _ := read(m); len(values) != 0 {
		t.Errorf("read again: %v", values)
	}
}

func TestPostCopiesItsBytes(t *testing.T) {
	m, _ := newMailbox(t, Limit{10, 100})
	body := []byte("abc")
	_ = m.Post(1, nil, body)
	copy(body, "xyz")
	if _, data := read(m); data[0] != "abc" {
		t.Errorf("got %q", data[0])
	}
}

func TestPostStopsAtTheLimit(t *testing.T) {
	m, _ := newMailbox(t, Limit{Letters: 2, Bytes: 10})
	steps := []struct {
		size int
		want error
	}{
		{25, nil}, // fits an empty mailbox whatever its size
		{1, ErrFull},
		{0, ErrFull}, // there are too many bytes already
	}
	for i, s := range steps {
		if err := m.Post(i, nil, make([]byte, s.size)); !errors.Is(err, s.want) {
			t.Errorf("post %d of %d bytes: %v, want %v", i, s.size, err, s.want)
		}
	}
	read(m)
	for i, want := range []error{nil, nil, ErrFull} {
		if err := m.Post(i, nil, nil); !errors.Is(err, want) {
			t.Errorf("letter %d: %v, want %v", i, err, want)
		}
	}
	if err := m.Force(9, []byte("more")); err != nil {
		t.Errorf("Force: %v", err)
	}
	if values, data := read(m); len(values) != 3 || data[2] != "more" {
		t.Errorf("got %v %q", values, data)
	}
}

func TestShutRefusesLettersAndKeepsTheLast(t *testing.T) {
	m, _ := newMailbox(t, Limit{10, 100})
	_ = m.Post(1, nil, nil)
	m.Shut()
	if err := m.Post(2, nil, nil); !errors.Is(err, ErrShut) {
		t.Errorf("Post: %v", err)
	}
	if err := m.Force(3, nil); !errors.Is(err, ErrShut) {
		t.Errorf("Force: %v", err)
	}
	if values, _ := read(m); fmt.Sprint(values) != "[1]" {
		t.Errorf("got %v", values)
	}
}

func TestAMailboxGivesTheMemoryOfABurstBack(t *testing.T) {
	m, _ := newMailbox(t, Limit{1 << 20, 1 << 30})
	for i := range 2 * lettersKept {
		_ = m.Post(i, nil, make([]byte, bytesKept/lettersKept))
	}
	read(m)
	for name, b := range map[string]*batch[int]{"in": &m.in, "out": &m.out} {
		if cap(b.letters) > lettersKept || cap(b.bytes) > bytesKept {
			t.Errorf("%s keeps %d letters, %d bytes", name, cap(b.letters), cap(b.bytes))
		}
	}
}

func TestPostingDoesNotAllocate(t *testing.T) {
	m, _ := newMailbox(t, Limit{1 << 20, 1 << 30})
	head, body := []byte{1, 2}, bytes.Repeat([]byte{3}, 32)
	n := testing.AllocsPerRun(1000, func() {
		_ = m.Post(1, head, body)
		m.Open()
		m.Empty()
	})
	if n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// Every letter arrives once and in its sender's order. The reader sleeps whenever
// there is none, and is always woken for the next.
func TestManySendersOneSleepyReader(t *testing.T) {
	const senders, each = 8, 2000
	m, p := newMailbox(t, Limit{1 << 20, 1 << 30})
	var all sync.WaitGroup
	for s := range senders {
		all.Go(func() {
			for i := range each {
				value := s*each + i
				if err := m.Post(value, nil, []byte{byte(value)}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	next := [senders]int{}
	for got := 0; got < senders*each; {
		mustWait(t, p, forever)
		values, data := read(m)
		for i, v := range values {
			if s := v / each; v%each != next[s] || data[i] != string([]byte{byte(v)}) {
				t.Fatalf("sender %d: letter %d with %q, want %d", s, v%each, data[i], next[s])
			}
			next[v/each]++
		}
		got += len(values)
	}
	all.Wait()
}
