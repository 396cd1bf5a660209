package hooks

import (
	"crypto/sha256"
	"net/http"
	"sync"
	"time"
)

// repeats knows the requests of the last minutes that had an Idempotency-Key, and what they
// were answered, so that a request that is made again is not done again
// (draft-ietf-httpapi-idempotency-key-header). Any goroutine may use it.
type repeats struct {
	mu    sync.Mutex
	byKey map[string]*repeat // guarded by mu
	order []*repeat          // in the order of coming; guarded by mu
}

// repeat is a request that may be made again.
type repeat struct {
	key     string
	request [sha256.Size]byte // what it asks for
	at      time.Time
	done    bool // guarded by repeats.mu, as all below
	status  int
	body    []byte
}

// Bounds of repeats.
const (
	repeatsMost = 16 << 10
	repeatTime  = 5 * time.Minute
	keyMost     = 255 // bytes
)

// do calls first, unless the request was made before: then it returns what was answered then.
func (t *repeats) do(key string, r *http.Request, data []byte, first func() (int, []byte)) (status int, body []byte, repeated bool, err error) {
	if len(key) > keyMost {
		return 0, nil, false, errKey
	}
	request := sha256.Sum256([]byte(r.Method + "\n" + r.URL.RequestURI() + "\n" + r.Header.Get("Content-Type") + "\n" + string(data)))
	t.mu.Lock()
	t.forget(time.Now())
	before := t.byKey[key]
	if before != nil {
		defer t.mu.Unlock()
		switch {
		case before.request != request:
			return 0, nil, false, errKeyReused
		case !before.done:
			return 0, nil, false, errKeyBusy
		}
		return before.status, before.body, true, nil
	}
	now := &repeat{key: key, request: request, at: time.Now()}
	if t.byKey == nil {
		t.byKey = map[string]*repeat{}
	}
	t.byKey[key] = now
	t.order = append(t.order, now)
	t.mu.Unlock()
	status, body = first()
	t.mu.Lock()
	defer t.mu.Unlock()
	now.done, now.status, now.body = true, status, body
	if status >= http.StatusInternalServerError || status == http.StatusTooManyRequests { // it may be tried again
		if t.byKey[key] == now {
			delete(t.byKey, key)
		}
	}
	return status, body, false, nil
}

// forget forgets requests that are old, and the oldest where there are too many. It needs mu.
func (t *repeats) forget(now time.Time) {
	for len(t.order) > 0 && (len(t.order) >= repeatsMost || now.Sub(t.order[0].at) > repeatTime) {
		if old := t.order[0]; t.byKey[old.key] == old {
			delete(t.byKey, old.key)
		}
		t.order[0] = nil
		t.order = t.order[1:]
	}
}
