package web

import (
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"

	"github.com/seed-134acfd0/lull/internal/page"
)

// Control is what a run does for whoever watches it. The page calls its methods on
// goroutines of its own, several at once. They return at once, and may be called after
// the run's end, when they do nothing. What came of them is seen in snapshots.
type Control interface {
	// Pause makes the run begin nothing new until it is called with false.
	Pause(bool)
	// Stop ends the run early, as an interrupt does.
	Stop()
	// SetRate changes how much the phase that is going on does a second: connections,
	// messages, whatever it is that it does. 0 is as fast as it goes.
	SetRate(perSecond float64)
}

// The most that an order may have.
const (
	rateMax  = 10_000_000 // a second
	orderMax = 1 << 10    // bytes
)

// control adds the paths for orders to mux.
func (p *Page) control(mux *http.ServeMux) {
	order(p, mux, "pause", func(c Control, o struct {
		Paused *bool `json:"paused"`
	}) error {
		if o.Paused == nil {
			return errors.New(`say {"paused": true} or {"paused": false}`)
		}
		c.Pause(*o.Paused)
		return nil
	})
	order(p, mux, "rate", func(c Control, o struct {
		PerSecond *float64 `json:"per_second"`
	}) error {
		if o.PerSecond == nil || *o.PerSecond < 0 || *o.PerSecond > rateMax {
			return fmt.Errorf(`say {"per_second": N}, with N from 0 (as fast as it goes) to %d`, rateMax)
		}
		c.SetRate(*o.PerSecond)
		return nil
	})
	order(p, mux, "stop", func(c Control, _ struct{}) error {
		c.Stop()
		return nil
	})
}

// order adds the path of one order. do returns an error if the order is wrong.
//
// A form of another site cannot send JSON, so it cannot give orders even through a
// browser that says nothing of where a request comes from.
func order[O any](p *Page, mux *http.ServeMux, name string, do func(Control, O) error) {
	mux.HandleFunc("POST /api/"+name, func(w http.ResponseWriter, r *http.Request) {
		var o O
		kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
		body := json.NewDecoder(http.MaxBytesReader(w, r.Body, orderMax))
		body.DisallowUnknownFields()
		switch {
		case p.options.Control == nil:
			http.Error(w, "this run takes no orders", http.StatusConflict)
			return
		case p.hasEnded():
			http.Error(w, "the run has ended", http.StatusConflict)
			return
		case kind != "application/json":
			http.Error(w, "an order is JSON: Content-Type: application/json", http.StatusUnsupportedMediaType)
			return
		}
		if err := body.Decode(&o); err != nil {
			http.Error(w, "an order is a JSON object: "+err.Error(), http.StatusBadRequest)
			return
		}
		if err := do(p.options.Control, o); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		page.Answer(w, http.StatusAccepted, struct {
			Order string `json:"order"`
		}{name})
	})
}
