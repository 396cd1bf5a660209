// Package topics knows who subscribes to which topic.
//
//	Directory      a server's topics by name, and which reactors have subscribers
//	               of each; any goroutine
//	Subscriptions  a reactor's subscriptions, found from both sides, and the
//	               publications that not all subscribers have been sent
//
//	Directory:      name ─▶ topic ─▶ branch ─▶ branch        one for each reactor
//	                                   │
//	Subscriptions:                   ring ─▶ subscription ⇄ subscription ⇄ …
//	                                              │
//	                connection ─▶ subscription ─▶ subscription
//
// Everything lies in tables without pointers: 28 bytes a topic and 32 for each 28
// of its name, 16 bytes for each reactor that has subscribers, 18 bytes a subscription
// and 8 a connection. The package knows connections as slots; it neither sends nor
// closes.
package topics
