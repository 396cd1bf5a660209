// Package deflate compresses and inflates messages as permessage-deflate does
// (RFC 7692) where neither side keeps its window from one message to the next.
// So no connection has anything here: what compressing takes, about a megabyte,
// and inflating, about 40 KiB, is shared by all.
//
// The compression is the work of github.com/klauspost/compress/flate.
package deflate
