// Package fanout is how one message reaches every connection.
//
//	Publication   an encoded frame on its way to all reactors, and its receipt
//	Log           the publications that not all of a reactor's connections have
//	Throttle      what all publications together may take, and who has to wait
//
// A Log knows connections only as slots, and as positions up to which each has
// been sent. It neither sends nor closes.
package fanout
