// Package pusher makes a server speak the protocol of Pusher Channels, version 7, so that its
// clients (pusher-js, Laravel Echo and others) and its publishers' libraries need nothing but
// another host:
//
//	p, err := pusher.New(pusher.Options{Apps: []pusher.App{{ID: "1", Key: "key", Secret: "secret"}}})
//	…
//	s, err := server.Listen(addresses, p.Handler(), server.Options{Mode: server.Inline, HTTP: p.API(), Origins: []string{"any"}})
//	…
//	p.Bind(s, nil)
//	defer p.Close(ctx)
//
// # Names
//
// A channel is a topic of the server, of the name "APP/CHANNEL". All connections that have signed in
// as a user subscribe to the topic "user:APP/USER".
//
// # Order
//
// What is published to a channel, who comes to it and who leaves it are in one order, that of
// the channel's lock. So a presence channel's subscriber gets its members first, and then each
// change, and a cache channel's subscriber the last event, and then the next one.
//
//	client → Message → subscribe ─┐
//	                              ├─ channel's lock → server's topic → clients
//	publisher → API → publish ────┘
//
// # Memory
//
//	what                                     bytes, off the heap but for the last two
//	a connection                             24, and its user's ID
//	a subscription                           12
//	a member of a presence channel           12, its ID and data in cells of 32 for 28 bytes, and an entry in a map
//	a channel                                about 250
//
// https://pusher.com/docs/channels/library_auth_reference/pusher-websockets-protocol/
package pusher
