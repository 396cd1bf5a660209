package web

import (
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/seed-134acfd0/lull/loadgen/measure"
)

const (
	// viewersMax is how many may watch at once.
	viewersMax = 32
	// newsEvery is the time from one piece of news to the next.
	newsEvery = 500 * time.Millisecond
	// viewerPatience is how long a viewer may take for a piece of news.
	viewerPatience = 20 * time.Second
)

// viewer is how far somebody who watches has got. There is no queue: who takes the news
// slowly gets fewer of them, and all points that came in between.
type viewer struct {
	welcomed bool
	phases   int           // that have begun
	at       float32       // of the last point
	every    time.Duration // that a point covers
	ended    bool
}

// events sends a viewer the run until now, and news until it ends (HTML's server-sent
// events).
func (p *Page) events(w http.ResponseWriter, r *http.Request) {
	if !p.enter() {
		w.Header().Set("Retry-After", "10")
		http.Error(w, fmt.Sprintf("%d are watching already", viewersMax), http.StatusServiceUnavailable)
		return
	}
	defer p.leave()
	stream := http.NewResponseController(w)
	_ = stream.SetReadDeadline(time.Time{}) // the request has been read; this server can do it
	w.Header().Set("Content-Type", "text/event-stream")
	every := time.NewTicker(newsEvery)
	defer every.Stop()
	var v viewer
	for !v.ended {
		_ = stream.SetWriteDeadline(time.Now().Add(viewerPatience))
		for _, e := range p.news(&v) {
			text, err := json.Marshal(e.data)
			if err == nil {
				_, err = fmt.Fprintf(w, "event: %s\ndata: %s\n\n", e.name, text)
			}
			if err != nil {
				return
			}
		}
		if stream.Flush() != nil || v.ended {
			return
		}
		select {
		case <-every.C:
		case <-p.ended:
		case <-r.Context().Done():
			return
		}
	}
}

// enter takes a viewer's place, if there is one.
func (p *Page) enter() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.viewers == viewersMax {
		return false
	}
	p.viewers++
	return true
}

func (p *Page) leave() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.viewers--
}

// event is an event of the stream.
type event struct {
	name string
	data any // becomes JSON
}

// The data of events.
type (
	// welcome comes first.
	welcome struct {
		Title    string            `json:"title"`
		Control  bool              `json:"control"` // whether there are buttons
		Columns  []string          `json:"columns"` // of points
		Counters map[string]string `json:"counters"`
		Kinds    map[string]string `json:"kinds"`
	}
	// phases come when one begins.
	phases struct {
		Begun  []begin  `json:"begun"`
		Coming []string `json:"coming"`
	}
	// points come when there are new ones.
	points struct {
		Anew   bool    `json:"anew"` // they replace all that came before
		Points []point `json:"points"`
	}
)

// news is what a viewer does not know yet. It has nothing that changes later.
func (p *Page) news(v *viewer) (news []event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	add := func(name string, data any) { news = append(news, event{name, data}) }
	v.ended = p.hasEnded()
	if !v.welcomed {
		v.welcomed = true
		add("welcome", welcome{p.options.Title, p.options.Control != nil, columns, counterHelp, kindHelp})
		v.phases = -1
	}
	if len(p.begins) != v.phases {
		v.phases = len(p.begins)
		add("phases", p.phases())
	}
	anew := p.line.history.Every() != v.every
	if anew {
		v.at, v.every = -1, p.line.history.Every()
	}
	if fresh := p.line.since(v.at); len(fresh) > 0 || anew {
		add("points", points{anew, fresh})
		if len(fresh) > 0 {
			v.at = fresh[len(fresh)-1][columnAt]
		}
	}
	add("status", p.status())
	return news
}

// What counters and kinds of times mean, by name.
var counterHelp, kindHelp = func() (counters, kinds map[string]string) {
	counters, kinds = map[string]string{}, map[string]string{}
	for c := range measure.Counters {
		counters[c.String()] = c.Help()
	}
	for k := range measure.Kinds {
		kinds[k.String()] = k.Help()
	}
	return counters, kinds
}()
