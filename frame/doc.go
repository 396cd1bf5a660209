// Package frame turns bytes into WebSocket frames and frames into bytes
// (RFC 6455), and answers both sides of the opening handshake.
//
// It holds no descriptor, reads no clock and starts no goroutine: bytes go in,
// events or bytes come out, and whatever must be remembered between two reads
// of a connection is a value ([Stream], or [State] without its buffers) that
// belongs to the caller.
//
// The order in which a connection uses it:
//
//	HeadLen   has the whole request arrived?
//	Upgrader  the request's answer: 101, or an HTTP error
//	Parser    messages and control frames in
//	Append…   frames out
//
// A client uses AppendRequest and CheckResponse in place of Upgrader, or those of
// an [Offer].
//
// Of permessage-deflate (RFC 7692) this package has what heads and frame
// headers say, for callers that ask for it; compressing is another's work.
//
// The frame header's layout, masking and the handshake's rules are the work of
// github.com/gobwas/ws; this package makes them resumable, bounds them and
// closes the gaps that library leaves to its callers.
package frame
