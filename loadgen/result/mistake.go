package result

import (
	"slices"
	"strings"

	"github.com/seed-134acfd0/lull/loadgen/measure"
)

// chatLeast is the fewest messages by which a chat is recognised from messages whose
// senders are not known. A greeting to everybody is as many as one message in a chat.
const chatLeast = 10

// mistake says what kind of server this seems to be, if it is another than the load is
// for; otherwise it is empty.
func (r *Result) mistake() string {
	asked := r.count(measure.Asked) + r.count(measure.Flooded)
	answered := r.count(measure.Echoes) + r.count(measure.Answered)
	delivered, wanted := r.deliveries()
	sent := r.count(measure.Sent)
	switch {
	case r.Conns > 0 && r.count(measure.Rejected) == r.Conns:
		return r.refusal()
	case r.count(measure.Closed) > 0 && asked+sent > 0 && answered+delivered == 0:
		return "The server closed the connections that sent something, so it wants other messages.\n" +
			"--message says what to send, and --answer what comes back; or a scenario does."
	case asked > 0 && 2*answered >= asked && r.overheard(asked):
		return "These look like a chat's answers: each came to everybody, and not only to the connection that had asked.\n" +
			"An echo was expected, and these rates are none of it. --broadcasts measures a chat."
	case asked > 0 && answered == 0 && 2*r.count(measure.Mismatched) >= asked:
		return "The server answers with other messages than it was sent, so it is no echo. --answer any, contains:TEXT or match:REGEXP expects such answers."
	case sent > 0 && delivered == 0 && wanted > 0:
		return "Nobody received what was published: the server does not send a message to everybody. --active measures an echo."
	case sent > 0 && delivered == sent && wanted >= 2*sent:
		return "These look like an echo's answers: each message came back to the connection that had sent it, and to no other.\n" +
			"A broadcast was expected. --active measures an echo."
	}
	return ""
}

// refusals are what to do about responses that servers and proxies often give.
var refusals = []struct {
	statuses []string
	text     string
}{
	{[]string{"401", "403"}, "The server wants to know who connects, or from which site: see --cookie, --header 'Authorization: …' and --header 'Origin: …'."},
	{[]string{"404"}, "There is nothing at the URL's path. WebSockets are often at /ws or /socket."},
	{[]string{"200", "301", "302", "307", "308"}, "A web server answers, and no WebSocket: see whether scheme, port and path are right."},
	{[]string{"400", "426"}, "The server sees no WebSocket handshake. A proxy in front of it may have to be told to pass on the headers Upgrade and Connection."},
	{[]string{"502", "503", "504"}, "A proxy answers, or a server that is full: what is behind the proxy does not answer it."},
	{[]string{"429"}, "The server lets an address open so many connections only. It has to allow more, or the load needs more addresses (--sources)."},
}

// refusal says what may be done if the server lets nobody in.
func (r *Result) refusal() string {
	for _, e := range r.Errors {
		_, response, _ := strings.Cut(e.Text, "answered \"HTTP/1.1 ")
		for _, known := range refusals {
			if slices.ContainsFunc(known.statuses, func(status string) bool { return strings.HasPrefix(response, status) }) {
				return known.text
			}
		}
	}
	return ""
}

// deliveries are what was received of what was published, and what should have been.
func (r *Result) deliveries() (received, expected int) {
	for _, b := range r.Broadcasts {
		received += b.Received
		expected += b.Expected
	}
	return received, expected
}

// overheard reports whether connections received about as many messages of others as
// everybody would in a chat.
func (r *Result) overheard(asked int) bool {
	if strayed := r.count(measure.Strayed); 2*strayed >= asked {
		return true // these are known to be others'
	}
	unknown, others := r.count(measure.Foreign)+r.count(measure.Mismatched), (r.Open-1)/2
	switch {
	case asked < chatLeast:
		return false
	case unknown >= asked*max(1, others):
		return true
	}
	return others > 1 && unknown+r.count(measure.Repeated) >= asked*others // where all send the same
}
