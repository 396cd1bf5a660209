// Package rooms is the handler of a server whose paths name rooms: a message goes to everybody
// with the same path, /room/NAME. Any WebSocket client can use it.
//
//	r := rooms.New(rooms.Options{Presence: true, History: cluster.Limits{Messages: 100}})
//	node, err := cluster.Join(ctx, r.Cluster(cluster.Options{URL: "nats://10.0.0.9:4222"}))
//	…
//	s, err := server.Listen(addresses, r.Handler(node), server.Options{TopicChanged: r.TopicChanged})
//	…
//	r.Bind(s)
//	node.Bind(s)
//
// Without presence and history there need be no node.
//
// # The subprotocol
//
// A client that offers the subprotocol lull.rooms.v1 sees more of a room. What it sends is as
// anybody else's: each message is for the room. What it gets are texts in JSON, each of a type:
//
//	{"type":"missed","messages":[{"text":"…"},{"binary":"…"}],"complete":true,"at":"…"}
//	{"type":"members","members":[{"name":"…","data":"…"}]}
//	{"type":"message","text":"…","at":"…"}    or "binary", in base64
//	{"type":"enter","name":"…","data":"…"}
//	{"type":"change","name":"…","data":"…"}
//	{"type":"leave","name":"…"}
//	{"type":"lost","messages":3}              as many or, where there is no number, perhaps some
//
// Parameters of the path's query say who it is and what it has had:
//
//	name    it is a member of the room by this name; without one it only looks on
//	data    up to 1 KiB of UTF-8, which others see
//	after   the last "at" that it has got: what came after that is in "missed"
//
// "missed" is the first text, if the server keeps a history: one text for all that was missed,
// so that a client that loses its connection anywhere has had it, and its new position, or has
// not. "complete" is false if there was, or may have been, more. "ahead" is true if the client has had messages that
// have not come to this server: should they come, it gets them again. A text without "at"
// leaves the position as it is.
//
// "members" comes once the client hears of all changes; and again, with all, should too many
// changes have waited to be told. Somebody with several connections is one member.
//
// # How it works
//
// These clients subscribe to a topic of their own for each room, its twin: "lull.rooms.v1/" and
// the room's name. What is delivered in the room is published there once more, in JSON
// ([cluster.Options], Delivered). So a message is encoded once, and other clients notice nothing. The node follows
// a room as long as somebody subscribes to it or to its twin.
package rooms
