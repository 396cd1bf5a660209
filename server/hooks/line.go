package hooks

// line is messages that wait for a turn, in the order of coming.
type line struct {
	first, last *message
	len         int
}

func (l *line) add(m *message) {
	if l.first == nil {
		l.first = m
	} else {
		l.last.next = m
	}
	l.last = m
	l.len++
}

// take takes up to n messages, those that have waited for longest.
func (l *line) take(n int) []*message {
	taken := make([]*message, min(n, l.len))
	for i := range taken {
		m := l.first
		taken[i] = m
		l.first, m.next = m.next, nil
	}
	l.len -= len(taken)
	return taken
}
