package pusher

import "sync/atomic"

// fault is what a client or a publisher is told who cannot have what it asks for. Each has a
// counter of its own.
type fault struct {
	index int
	name  string // of its counter
	code  int    // of the protocol for clients, a status of HTTP for subscribers and publishers
	text  string
	kind  string // of a subscription's fault, for clients
}

func (f *fault) Error() string { return f.text }

// faults are all of them, by index.
var faults []*fault

func newFault(name string, code int, text string) *fault {
	f := &fault{index: len(faults), name: name, code: code, text: text}
	faults = append(faults, f)
	return f
}

// Faults with which a connection is closed. The code tells the client whether it is to come
// back: not with 4000 to 4099, after a while with 4100 to 4199, at once with 4200 to 4299.
var (
	faultTLS        = newFault("tls_only", 4000, "the app accepts connections over TLS alone: use wss://")
	faultApp        = newFault("unknown_app", 4001, "there is no app with this key")
	faultDisabled   = newFault("app_disabled", 4003, "the app is disabled")
	faultQuota      = newFault("over_quota", 4004, "the app has as many connections as it may have")
	faultPath       = newFault("unknown_path", 4005, "the path must be /app/KEY")
	faultVersion    = newFault("bad_version", 4006, "protocol must be a number, and version as 8.4.0")
	faultProtocol   = newFault("unsupported_protocol", 4007, "the server speaks versions 5 to 7 of the protocol")
	faultNoProtocol = newFault("no_protocol", 4008, "the query must have the protocol's version: ?protocol=7")
	faultOrigin     = newFault("foreign_origin", 4009, "pages of this site may not connect to the app")
	faultTerminated = newFault("terminated", 4009, "the user's connections were terminated")
	faultGone       = newFault("app_gone", 4003, "the app was disabled or removed")
	faultCapacity   = newFault("over_capacity", 4100, "the server has no room for more connections: try again later")
)

// Faults of messages. The connection stays open.
var (
	faultBinary      = newFault("binary_message", 4300, "messages are text")
	faultJSON        = newFault("bad_json", 4300, "a message must be a JSON object")
	faultNoEvent     = newFault("no_event", 4300, "a message must have an event")
	faultEvent       = newFault("unknown_event", 4300, "clients may not send this event: their own begin with client-")
	faultData        = newFault("bad_data", 4300, "the event's data must be an object with the event's fields")
	faultTwice       = newFault("subscribed_twice", 4300, "the connection is subscribed to this channel already")
	faultNoResume    = newFault("no_resume", 4301, "the app keeps no events for clients that come back")
	faultNotIn       = newFault("not_subscribed", 4300, "the connection is not subscribed to this channel")
	faultSignin      = newFault("signin_forged", 4009, "the user's signature is wrong")
	faultSigninData  = newFault("signin_bad_user", 4009, "user_data must be JSON with an id of 1 to 128 bytes")
	faultSigninTwice = newFault("signin_twice", 4009, "the connection has signed in as another user")

	faultClientOff     = newFault("client_events_off", 4301, "the app has no client events")
	faultClientChannel = newFault("client_event_channel", 4301, "client events are for private and presence channels that are not encrypted")
	faultClientNotIn   = newFault("client_event_not_subscribed", 4301, "client events are for channels that the connection is subscribed to")
	faultClientName    = newFault("client_event_name", 4301, "an event's name has at most 200 bytes of UTF-8")
	faultClientData    = newFault("client_event_too_large", 4301, "the event's data are larger than the app allows")
	faultClientRate    = newFault("client_event_rate", 4301, "the connection sends more client events a second than the app allows")
	faultClientFull    = newFault("client_event_backpressure", 4301, "too much is on its way already: the event was not sent")
)

// Faults of subscriptions. The code is a status of HTTP.
var (
	faultChannel      = newSubscriptionFault("bad_channel", 400, "ChannelError", "a channel's name has 1 to 164 letters, digits and _ - = @ , . ;")
	faultNoAuth       = newSubscriptionFault("no_auth", 401, "AuthError", "this channel needs auth: KEY:SIGNATURE")
	faultAuthKey      = newSubscriptionFault("auth_of_another_key", 401, "AuthError", "auth must begin with the app's key")
	faultAuth         = newSubscriptionFault("auth_forged", 401, "AuthError", "the signature is wrong, or of another channel or connection")
	faultMember       = newSubscriptionFault("bad_member", 400, "ChannelError", "channel_data must be JSON with a user_id of 1 to 128 bytes")
	faultMemberLarge  = newSubscriptionFault("member_too_large", 413, "LimitReached", "the member's user_info is larger than the app allows")
	faultMembers      = newSubscriptionFault("too_many_members", 403, "LimitReached", "the channel has as many members as the app allows")
	faultOtherUser    = newSubscriptionFault("another_user", 401, "AuthError", "the connection has not signed in as this user")
	faultTooMany      = newSubscriptionFault("too_many_subscriptions", 403, "LimitReached", "the connection has as many subscriptions as it may have")
	faultChannelsFull = newSubscriptionFault("too_many_channels", 503, "LimitReached", "the server has as many channels as it may have: try again later")
)

func newSubscriptionFault(name string, status int, kind, text string) *fault {
	f := newFault(name, status, text)
	f.kind = kind
	return f
}

// faultCounts are how often each fault was told.
type faultCounts []atomic.Uint64

func (c faultCounts) add(f *fault) { c[f.index].Add(1) }
