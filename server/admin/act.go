package admin

import (
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/internal/page"
	"github.com/seed-134acfd0/lull/server"
)

// closeConnection closes a connection. It sends 1008, so that the client does not
// come back at once, as it would after 1001.
func (a *admin) closeConnection(w http.ResponseWriter, r *http.Request) {
	id, err := strconv.ParseUint(r.PathValue("id"), 16, 64)
	if err != nil {
		http.Error(w, "an ID is up to 16 hexadecimal digits", http.StatusBadRequest)
		return
	}
	if a.server.CloseID(id, frame.PolicyViolation, "closed by the operator") != nil {
		http.Error(w, "there is no such connection", http.StatusNotFound)
		return
	}
	page.Answer(w, http.StatusAccepted, struct {
		Closing string `json:"closing"`
	}{hex(id)})
}

// drain begins to drain the server, as its options say. GET /api/status shows how it
// gets on.
func (a *admin) drain(w http.ResponseWriter, _ *http.Request) {
	a.server.Drain()
	stats := a.server.Stats()
	page.Answer(w, http.StatusAccepted, draining{stats.Open, stats.DrainFor.Seconds()})
}

// draining is how far a drain has got.
type draining struct {
	Left    int64   `json:"connections_left"`
	Seconds float64 `json:"seconds_left"` // until all have been asked to leave
}

// broadcast sends the request's body to every connection, and answers when every
// connection has had its turn. The body may be as large as a client's message.
func (a *admin) broadcast(w http.ResponseWriter, r *http.Request) {
	data, err := io.ReadAll(http.MaxBytesReader(w, r.Body, a.server.Options().MaxMessage))
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		http.Error(w, large.Error(), http.StatusRequestEntityTooLarge)
		return
	case err != nil:
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	op := frame.Binary
	if strings.HasPrefix(strings.ToLower(r.Header.Get("Content-Type")), "text/") {
		if op = frame.Text; !utf8.Valid(data) {
			http.Error(w, "text must be UTF-8", http.StatusBadRequest)
			return
		}
	}
	receipts := make(chan server.Receipt, 1)
	switch err := a.server.BroadcastAs(server.Kind{}, op, data, func(t server.Receipt) { receipts <- t }); err {
	case nil:
	case server.ErrBackpressure:
		unavailable(w, "too many broadcasts are on their way")
		return
	default:
		unavailable(w, "the server has ended")
		return
	}
	select {
	case t := <-receipts:
		page.Answer(w, http.StatusOK, receipt{t.Sent, t.Queued, t.Dropped, t.Closed, t.Last})
	case <-r.Context().Done(): // the client has left
	case <-a.ctx.Done():
		unavailable(w, "the server is ending; some connections may not get the message")
	}
}

// receipt is a server.Receipt in JSON.
type receipt struct {
	Sent    int       `json:"sent"`
	Queued  int       `json:"queued"`
	Dropped int       `json:"dropped"`
	Closed  int       `json:"closed"`
	Last    time.Time `json:"last"`
}

func unavailable(w http.ResponseWriter, why string) {
	w.Header().Set("Retry-After", "1")
	http.Error(w, why, http.StatusServiceUnavailable)
}
