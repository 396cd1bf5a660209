// Package record is TLS 1.3 (RFC 8446) at about a hundred bytes a connection.
//
// A Handshake is crypto/tls's own, on a goroutine of its own, over a transport
// in memory. What remains of it is a State: two secrets and two counters, in a
// table of the caller's. A Layer goes on from there: it opens and seals the
// records of any number of connections, and keeps ciphers set up for those
// that were active lately.
//
// The package has no descriptors and no clocks: bytes and state in, bytes out.
// Server and client are the same code.
package record
