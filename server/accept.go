package server

import (
	"github.com/seed-134acfd0/lull/netpoll"
)

// Accept takes a turn for this reactor. The Acceptor calls it.
func (r *reactor) Accept(t netpoll.Turn) { _ = r.mail.Force(op{kind: opAccept, turn: t}, nil) }

// Load is how many connections this reactor has and can have. The Acceptor
// calls it.
func (r *reactor) Load() (used, limit int) { return int(r.public.used.Load()), r.server.slots }

// accept takes a turn: it accepts on this thread, into this thread's table.
func (r *reactor) accept(t netpoll.Turn) {
	r.turn = netpoll.TurnResult{Reactor: r.index, Listener: t.Listener, More: true}
	r.turning = true
	defer func() { r.public.used.Store(int64(r.slots.Used())) }() // before anybody is answered
	listener := r.server.listeners[t.Listener].FD
	for n := 0; n < t.Budget && !r.slots.Full(); n++ {
		fd, ok, err := netpoll.Accept(listener)
		if !ok {
			r.turn.More, r.turn.Err = err != nil, err
			return
		}
		c := r.slots.Take(fd)
		c.state = stateHead
		r.debt(c).open()
		c.seen = r.tick
		r.fresh = append(r.fresh, c)
		r.count[Accepted]++
	}
}

// greet reads from the connections that were accepted in this turn, and
// answers the acceptor. Most have sent their request by now and are answered
// before the poller ever hears of them.
func (r *reactor) greet() {
	for i := 0; i < len(r.fresh); i++ { // mail may bring more
		c := r.fresh[i]
		r.fresh[i] = nil
		if c.state != stateGone {
			r.readable(c)
			r.readMail()
		}
		if c.state != stateGone {
			r.poll(c)
		}
	}
	r.fresh = r.fresh[:0]
	if r.turning {
		r.turning = false
		r.server.acceptor.Answer(r.turn)
	}
}

// poll registers a connection with the poller.
func (r *reactor) poll(c *conn) {
	if err := r.poller.Add(int(c.FD), r.slots.Token(c), c.interest()); err != nil {
		r.turn.Err = err // so that accepting rests: it is a limit of the machine
		r.hangUp(c, err)
		return
	}
	c.flags |= flagPolled
}
