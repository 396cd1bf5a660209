package testkit

import (
	"strings"
	"sync"
)

// Log is what a program or a part of one has written, while it goes on writing. Any
// goroutine may use it.
type Log struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *Log) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// Has reports whether it has a text.
func (l *Log) Has(text string) bool { return strings.Contains(l.String(), text) }
