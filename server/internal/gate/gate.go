package gate

import "sync/atomic"

// statusMax is the largest HTTP status that is counted.
const statusMax = 599

// Gate bounds how many connections may be open, and how many requests a handler
// may be asked about at a time. It counts those that were turned away. There is
// one for all reactors together, and any goroutine may use it.
type Gate struct {
	// constant
	connsMax  int64
	askingMax int64 // bytes of request heads

	open     atomic.Int64
	asking   atomic.Int64
	rejected [statusMax + 1]atomic.Uint64
	refused  [reasons]atomic.Uint64
}

// New makes a Gate for so many open connections, and so many bytes of request
// heads that wait for the handler's decision.
func New(connsMax, askingMax int) *Gate {
	return &Gate{connsMax: int64(connsMax), askingMax: int64(askingMax)}
}

// Enter lets a connection in if there is room. Leave has to follow.
func (g *Gate) Enter() bool { return enter(&g.open, 1, g.connsMax) }

// Readmit counts a connection that has left and stays nevertheless, because its
// handler is not through with it. Leave has to follow.
func (g *Gate) Readmit() { g.open.Add(1) }

// Leave takes note that a connection is gone.
func (g *Gate) Leave() { g.open.Add(-1) }

// Open is how many connections are in.
func (g *Gate) Open() int64 { return g.open.Load() }

// Ask lets a request head of so many bytes wait for the handler's decision if
// there is room. Asked has to follow.
func (g *Gate) Ask(head int) bool { return enter(&g.asking, int64(head), g.askingMax) }

// Asked takes note that the handler has decided.
func (g *Gate) Asked(head int) { g.asking.Add(-int64(head)) }

func enter(count *atomic.Int64, n, most int64) bool {
	if count.Add(n) > most {
		count.Add(-n)
		return false
	}
	return true
}

// Reject counts a request that was answered with an HTTP error.
func (g *Gate) Reject(status int) {
	if status >= 0 && status <= statusMax {
		g.rejected[status].Add(1)
	}
}

// Rejected returns how many requests were answered with each HTTP status.
func (g *Gate) Rejected() map[int]uint64 {
	counts := map[int]uint64{}
	for status := range g.rejected {
		if n := g.rejected[status].Load(); n > 0 {
			counts[status] = n
		}
	}
	return counts
}

// Refuse counts a connection or request that was refused for this reason. That it
// was answered with an HTTP error, if it was, is for Reject to count.
func (g *Gate) Refuse(why Reason) { g.refused[why].Add(1) }

// Refused returns how many were refused for each reason, by Reason.String. Reasons
// that have not occurred are there too, so that a counter begins at zero.
func (g *Gate) Refused() map[string]uint64 {
	counts := map[string]uint64{}
	for why := Admitted + 1; why < reasons; why++ {
		counts[why.String()] = g.refused[why].Load()
	}
	return counts
}
