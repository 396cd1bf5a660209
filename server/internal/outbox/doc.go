// Package outbox holds what a peer has still to be sent.
//
//	Gauge   how much that is, for one connection; senders on any goroutine add
//	Box     the frames that its socket did not take, oldest first
//	Policy  what happens to a message for which there is no room
//
// Frames go in, Sent says how many bytes the socket took, and the frames that
// are left come out again. The package makes no system calls, reads no clock
// and starts no goroutines.
package outbox
