package server

// What the tests of package server_test see beyond the public names.

// Reactor is the index of the connection's reactor.
func (c Conn) Reactor() int {
	r, _ := c.address()
	return r.index
}

// Slots returns how many slots the connection's reactor uses, below which
// index they lie and how many there can be. They are the reactor's own, so
// only a Handler's function may ask.
func (c Conn) Slots() (used, high, limit int) {
	r, _ := c.address()
	return r.slots.Used(), r.slots.High(), r.slots.Limit()
}
