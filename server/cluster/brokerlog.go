package cluster

import (
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"
)

// brokerLog is what an embedded broker has to say: that it cannot reach others, and that it or
// another one is not let in. A broker tries again every second, so each of these is said once
// a minute. Any goroutine may use it.
type brokerLog struct {
	log *slog.Logger

	mu   sync.Mutex
	said map[string]time.Time // guarded by mu; when something was said last
}

func newBrokerLog(log *slog.Logger) *brokerLog {
	if log == nil {
		log = slog.Default()
	}
	return &brokerLog{log: log, said: map[string]time.Time{}}
}

// brokerLogEvery is how often one thing is said.
const brokerLogEvery = time.Minute

// brokerTroubles are what a broker says when something is wrong, and what that means.
var brokerTroubles = []struct{ says, means string }{
	{"Authorization Violation", "another server's broker does not let this one in: all servers of a cluster must have the same secret"},
	{"authentication error", "this server's broker does not let another one in: all servers of a cluster must have the same secret"},
	{"trying to connect to route", "another server's broker cannot be reached, trying on"},
	{"", "the embedded broker"},
}

// Errorf is for NATS, as are the others.
func (b *brokerLog) Errorf(format string, v ...any) { b.say(fmt.Sprintf(format, v...)) }

func (b *brokerLog) Warnf(format string, v ...any) { b.Errorf(format, v...) }

func (b *brokerLog) Fatalf(format string, v ...any) { b.Errorf(format, v...) }

func (*brokerLog) Noticef(string, ...any) {}

func (*brokerLog) Debugf(string, ...any) {}

func (*brokerLog) Tracef(string, ...any) {}

func (b *brokerLog) say(text string) {
	means := ""
	for _, t := range brokerTroubles {
		if strings.Contains(text, t.says) {
			means = t.means
			break
		}
	}
	now := time.Now()
	b.mu.Lock()
	last, said := b.said[means]
	again := !said || now.Sub(last) >= brokerLogEvery
	if again {
		b.said[means] = now
	}
	b.mu.Unlock()
	if again {
		b.log.Warn(means, "error", text)
	}
}
