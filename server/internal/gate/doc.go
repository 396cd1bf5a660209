// Package gate decides who may come in.
//
//	Gate      how many connections may be open, and how many request heads wait
//	Origins   which web pages may connect
//	Limiter   how much an address, its prefix, and all together may have
//	Rate      how fast one connection may send
//	Reason    why somebody was refused, for counters and for the answer
//
// Facts go in and a verdict comes out. The package knows no sockets, starts no
// goroutines and reads no clock: whoever asks says what time it is, as the time
// since some fixed moment.
package gate
