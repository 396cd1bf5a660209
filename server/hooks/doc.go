// Package hooks lets an ordinary HTTP application serve WebSocket connections: it is told
// by requests that a connection wants to open, has sent a message, has ended, and it sends,
// publishes and closes through an HTTP API.
//
//	h, err := hooks.New(hooks.Options{Backends: []hooks.Backend{{URL: "http://127.0.0.1:8000/lull"}}})
//	s, err := server.Listen(addresses, h.Handler(), server.Options{Workers: h.Workers()})
//	http.Handle("/api/", h.API(s, token))
//	err = s.Run(ctx)
//	err = h.Close(ctx)
//
// A backend has as many calls at once as it has workers (Options.Concurrency), one at a time
// for each connection, in order. Beyond that, messages wait in their connections' inboxes, and
// where an inbox is full its socket is not read: TCP makes the client wait. Nobody is closed
// and nothing is lost. docs/hooks.md describes what is said in both directions.
//
// A connection has nothing on the heap. The name of its user lies in a table without
// pointers, to which the connection's Tag leads. In a cluster the user is a topic too
// ("user:NAME"), to which other nodes publish.
package hooks
