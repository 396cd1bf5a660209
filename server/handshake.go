package server

import (
	"errors"
	"net/http"

	"github.com/seed-134acfd0/lull/frame"
)

// What a server refuses for reasons of its own.
var (
	rejectFull    = unavailable("the server is full")
	rejectLeaving = unavailable("the server is shutting down")
	rejectSlow    = unavailable("the server did not decide in time")
	rejectTimeout = &Reject{Status: http.StatusRequestTimeout, Reason: "the request head did not arrive in time"}
)

func unavailable(reason string) *Reject {
	return &Reject{Status: http.StatusServiceUnavailable, Reason: reason, Header: http.Header{"Retry-After": {"5"}}}
}

// handshake answers a request once its head is there, or has a worker ask for
// the answer. It returns the bytes that are left: the incomplete head, or the
// frames behind it.
func (r *reactor) handshake(c *conn, in []byte) (rest []byte) {
	n, err := frame.HeadLen(in)
	switch {
	case err != nil:
		r.refuse(c, err)
		return nil
	case n == 0:
		return in
	// A connection that is accepted counts as open from here on.
	case r.server.open.Add(1) > int64(r.server.options.MaxConns):
		r.server.open.Add(-1)
		r.refuse(c, rejectFull)
		return nil
	case r.server.pool != nil && r.server.handler.Upgrade != nil:
		r.ask(c, in[:n])
		return in[n:]
	}
	r.asking = c
	response, err := r.upgrader.Upgrade(in[:n])
	r.asking = nil
	if err != nil {
		r.server.open.Add(-1)
		r.refuse(c, err)
		return nil
	}
	r.opened(c, response)
	return in[n:]
}

// opened sends the response that opens a connection.
func (r *reactor) opened(c *conn, response []byte) {
	if r.say(c, 0, response); c.state == stateGone {
		r.server.open.Add(-1)
		return
	}
	c.state = stateOpen
	c.seen = r.tick
	c.heard = r.log.end()
	r.count[Opened]++
	switch {
	case r.server.handler.Open == nil:
	case r.server.pool != nil:
		r.inbox(c).add(call{kind: callOpen}, nil)
	default:
		defer r.guard(c)
		r.server.handler.Open(r.conn(c))
	}
}

// decide asks the handler about a well-formed request.
func (r *reactor) decide(fr *frame.Request) error {
	c := r.asking
	if c.whenSlow = r.server.options.WhenSlow; r.server.handler.Upgrade == nil {
		return nil
	}
	request := &Request{Request: fr, fd: int(c.FD)}
	err := r.server.decide(request)
	c.tag, c.whenSlow = request.Tag, request.whenSlow(r.server)
	return err
}

// decide calls the handler's Upgrade, on a reactor or a worker. A panic refuses
// the request.
func (s *Server) decide(request *Request) (err error) {
	defer func() {
		if p := recover(); p != nil {
			s.panicked(p)
			err = ErrPanic
		}
	}()
	return s.handler.Upgrade(request)
}

// refuse sends an HTTP error as the connection's last word.
func (r *reactor) refuse(c *conn, err error) {
	var reject *frame.Reject
	errors.As(err, &reject) // package frame refuses with nothing else
	r.count[Refused]++
	if i := reject.Status; i >= 0 && i < len(r.server.refused) {
		r.server.refused[i].Add(1)
	}
	r.warn(c, "handshake refused", "status", reject.Status, "reason", reject)
	r.say(c, 0, reject.Response())
	r.linger(c)
}
