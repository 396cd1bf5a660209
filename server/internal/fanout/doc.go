// Package fanout is how one message reaches many connections: all, or those that
// subscribe to a topic.
//
//	Publication   an encoded frame on its way to reactors, and its receipt
//	Log           the publications that not all of an audience have been sent
//	Round         the Log of all of a reactor's connections
//	Throttle      what all publications together may take, and who has to wait
//
// A Log knows connections only as positions up to which each has been sent, and a
// Round as slots. They neither send nor close.
package fanout
