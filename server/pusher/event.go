package pusher

import (
	"bytes"
	"encoding/json"
)

// Events of the protocol.
const (
	eventEstablished  = "pusher:connection_established"
	eventError        = "pusher:error"
	eventPing         = "pusher:ping"
	eventPong         = "pusher:pong"
	eventSubscribe    = "pusher:subscribe"
	eventUnsubscribe  = "pusher:unsubscribe"
	eventSubscribed   = "pusher_internal:subscription_succeeded"
	eventRefused      = "pusher:subscription_error"
	eventAdded        = "pusher_internal:member_added"
	eventRemoved      = "pusher_internal:member_removed"
	eventCount        = "pusher_internal:subscription_count"
	eventCacheMiss    = "pusher:cache_miss"
	eventResume       = "pusher:resume"
	eventResumed      = "pusher:resume_success"
	eventResumeFailed = "pusher:resume_failed"
	eventSignin       = "pusher:signin"
	eventSignedIn     = "pusher:signin_success"
	clientEventPrefix = "client-"
)

// incoming is what a client sends.
type incoming struct {
	Event   string          `json:"event"`
	Channel string          `json:"channel"`
	Data    json.RawMessage `json:"data"`
}

// outgoing is what a client is sent. Data of the server's own events are JSON within a string.
type outgoing struct {
	Event   string          `json:"event"`
	Channel string          `json:"channel,omitempty"`
	Data    json.RawMessage `json:"data,omitempty"`
	UserID  string          `json:"user_id,omitempty"`
	position
}

// encode spells v as JSON, without the escapes that HTML would need.
func encode(v any) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		panic(err) // there is nothing in these types that has no JSON
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}

// event is an event whose data are JSON within a string.
func event(name, channel string, data any) []byte {
	return encode(outgoing{Event: name, Channel: channel, Data: encode(string(encode(data)))})
}

// readData reads an event's data, which some clients send as JSON within a string.
func readData(data json.RawMessage, into any) error {
	if len(data) > 0 && data[0] == '"' {
		var text string
		if err := json.Unmarshal(data, &text); err != nil {
			return err
		}
		data = json.RawMessage(text)
	}
	return json.Unmarshal(data, into)
}

// textID is an ID that is a string or a number in JSON.
type textID string

func (id *textID) UnmarshalJSON(b []byte) error {
	var n json.Number
	if len(b) > 0 && b[0] != '"' {
		err := json.Unmarshal(b, &n)
		*id = textID(n)
		return err
	}
	return json.Unmarshal(b, (*string)(id))
}
