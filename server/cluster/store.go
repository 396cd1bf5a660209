package cluster

import (
	"encoding/json"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

// store is what a node knows of the stream (Options.Stream). Messages are given to it without
// waiting for an answer, but for one a second, which shows whether it takes them.
//
//	     a message was not answered in time, was refused, or was not sent;
//	     the broker was away; another node has no stream
//	sure ─────────────────────────────────────────────────────────────────► unsure
//	  ▲                                                                        │
//	  └─── the stream has taken the mark "up to now something may be missing" ◄┘
//
// Any goroutine may call its methods.
type store struct {
	answers string // the subject of answers, before a question's number

	mu      sync.Mutex
	unsure  bool
	doubts  uint64 // times that there was a reason for it
	said    string // what the log has heard of it
	number  uint64 // of the last question
	waiting bool   // it was not answered yet
	asked   time.Duration
}

const (
	storeEvery = time.Second     // a message is to be answered
	storeWait  = 5 * time.Second // for the answer
)

// question is where a message that is given to the stream now is to be answered; empty is
// nowhere.
func (s *store) question(now time.Duration) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.waiting || s.number > 0 && now-s.asked < storeEvery {
		return ""
	}
	s.number++
	s.waiting, s.asked = true, now
	return s.answers + strconv.FormatUint(s.number, 10)
}

// answered takes an answer.
func (s *store) answered(m *nats.Msg) {
	var answer struct {
		Seq   uint64
		Error json.RawMessage
	}
	err := json.Unmarshal(m.Data, &answer)
	taken := m.Header.Get("Status") == "" && err == nil && answer.Seq > 0 && answer.Error == nil
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.waiting || strings.TrimPrefix(m.Subject, s.answers) != strconv.FormatUint(s.number, 10) {
		return // it comes too late
	}
	s.waiting = false
	if !taken {
		s.doubted()
	}
}

// doubt notes that something may not have been stored.
func (s *store) doubt() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.doubted()
}

// doubted is doubt. s.mu is held.
func (s *store) doubted() {
	s.doubts++
	s.unsure = true
}

// again notes that there is another link. Questions on the last one are not answered any more.
func (s *store) again() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiting = false
	s.doubted()
}

// due reports whether a mark is to be made.
func (s *store) due(now time.Duration) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.waiting && now-s.asked > storeWait {
		s.waiting = false
		s.doubted()
	}
	return s.unsure
}

// marking is how many doubts there have been before a mark.
func (s *store) marking() (doubts uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.doubts
}

// marked notes what has come of a mark, and reports whether that is news to the log.
func (s *store) marked(doubts uint64, err error) (news bool) {
	said := ""
	if err != nil {
		said = err.Error()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	news, s.said = said != s.said, said
	if err == nil && s.doubts == doubts {
		s.unsure = false
	}
	return news
}

// isUnsure reports whether something may be missing, and the stream does not say so yet.
func (s *store) isUnsure() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.unsure
}
