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
	rejectTimeout = &Reject{Status: http.StatusRequestTimeout, Reason: "the request head did not arrive in time"}
)

func unavailable(reason string) *Reject {
	return &Reject{Status: http.StatusServiceUnavailable, Reason: reason, Header: http.Header{"Retry-After": {"5"}}}
}

// handshake answers a request once its head is there. It returns the bytes
// that are left: the incomplete head, or the frames behind it.
func (r *reactor) handshake(c *conn, in []byte) (rest []byte) {
	n, err := frame.HeadLen(in)
	if n == 0 && err == nil {
		return in
	}
	var response []byte
	if err == nil {
		response, err = r.upgrade(c, in[:n])
	}
	if err != nil {
		r.refuse(c, err)
		return nil
	}
	if r.writeOrOwe(c, response); c.state == stateGone {
		r.server.open.Add(-1)
		return nil
	}
	c.state = stateOpen
	c.heard = r.log.end()
	r.count[Opened]++
	if r.server.handler.Open != nil {
		defer r.guard(c)
		r.server.handler.Open(r.conn(c))
	}
	return in[n:]
}

// upgrade finds the answer to a complete head. A connection that is accepted
// counts as open from here on.
func (r *reactor) upgrade(c *conn, head []byte) (response []byte, err error) {
	if r.server.open.Add(1) > int64(r.server.options.MaxConns) {
		err = rejectFull
	} else {
		r.asking = c
		response, err = r.upgrader.Upgrade(head)
		r.asking = nil
	}
	if err != nil {
		r.server.open.Add(-1)
	}
	return response, err
}

// decide asks the handler about a well-formed request.
func (r *reactor) decide(fr *frame.Request) (err error) {
	if r.server.handler.Upgrade == nil {
		return nil
	}
	c := r.asking
	defer func() {
		if p := recover(); p != nil {
			r.panicked(p)
			err = ErrPanic
		}
	}()
	request := &Request{Request: fr, fd: int(c.FD)}
	err = r.server.handler.Upgrade(request)
	c.tag = request.Tag
	return err
}

// refuse sends an HTTP error as the connection's last word.
func (r *reactor) refuse(c *conn, err error) {
	var reject *frame.Reject
	errors.As(err, &reject) // package frame refuses with nothing else
	r.count[Refused]++
	r.warn(c, "handshake refused", "status", reject.Status, "reason", reject)
	r.writeOrOwe(c, reject.Response())
	r.linger(c)
}
