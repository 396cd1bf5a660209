package server

// These functions give package server_test access to internals.

// Reactor is the index of the connection's reactor.
func (c Conn) Reactor() int {
	r, _ := c.address()
	return r.index
}

// Slots returns how many slots the connection's reactor uses, the index below which
// they lie, and how many there can be. Only the reactor's goroutine may call it, so
// only a Handler's function in mode Inline.
func (c Conn) Slots() (used, high, limit int) {
	r, _ := c.address()
	return r.slots.Used(), r.slots.High(), r.slots.Limit()
}

// ErrOverRate is the cause of an end by Options.CloseOverRate.
var ErrOverRate = errRate
