package scenario

import (
	"net/url"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/seed-134acfd0/lull/loadgen/plan"
)

// settings are how users connect and behave. They stand in a group, or above all groups.
type settings struct {
	plan.Group
	query, headers, cookies []pair
	basicAuth               *plan.Text
}

var connecting = []key[settings]{
	is("url", list(text(""), "1 to "+plan.Thousands(plan.URLsMax)+" URLs, ws:// or wss://"), func(s *settings) *[]*plan.Text { return &s.URLs }, "that of all groups; one must be there",
		"Where users connect. Of several URLs, each user takes the one with its number. Templates may be in its path and query.").as("urls"),
	is("query", pairs("names and texts"), func(s *settings) *[]pair { return &s.query }, "none",
		"Parameters for the URL's query, filled in for each connection. What is not in a template is escaped.").as("urls"),
	is("rooms", whole(1, plan.UsersMax), func(s *settings) *int { return &s.Rooms }, "none",
		"How many rooms users are in, each in one, by turns. `{{.Room}}`, in the URL for instance, is its number. What a publish phase sends, it sends in each room, for those in it."),
	is("timeout", lasting(plan.TimeMin, plan.TimeMax), func(s *settings) *time.Duration { return &s.Timeout }, "--timeout, 30s",
		"How long the handshakes of TCP, TLS and WebSocket may take together."),
}

var behaving = []key[settings]{
	is("headers", pairs("up to "+strconv.Itoa(plan.HeadersMax)+" names and texts"), func(s *settings) *[]pair { return &s.headers }, "none",
		"Headers of the request, filled in for each connection. A header with a list of texts is sent several times."),
	is("cookies", pairs("names and texts"), func(s *settings) *[]pair { return &s.cookies }, "none",
		"Cookies of the request, all in one header, filled in for each connection.").as("headers"),
	is("basic-auth", userPassword(), func(s *settings) **plan.Text { return &s.basicAuth }, "none",
		"User and password, filled in for each connection, for the header Authorization (RFC 7617).").as("headers"),
	is("subprotocols", list(text(""), "up to "+strconv.Itoa(plan.ProtocolsMax)+" names"), func(s *settings) *[]*plan.Text { return &s.Subprotocols }, "none",
		"Subprotocols that users offer."),
	is("compress", yes(), func(s *settings) *bool { return &s.Compress }, "false",
		"Offer to compress messages (permessage-deflate)."),
	is("reconnect", yes(), func(s *settings) *bool { return &s.Reconnect }, "false",
		"Connect again when the server has ended the connection."),
	is("half-open", yes(), func(s *settings) *bool { return &s.HalfOpen }, "false",
		"Open a TCP connection and send no request. Such users take only url, query and timeout from above the groups."),
	is("ping", lasting(plan.TimeMin, plan.TimeMax), func(s *settings) *time.Duration { return &s.Ping }, "never",
		"Send a Ping this often."),
	is("mute", yes(), func(s *settings) *bool { return &s.Mute }, "false",
		"Never answer the server's Pings."),
	is("read-rate", size(1, plan.ReadRateMax), func(s *settings) *int { return &s.ReadRate }, "all there is",
		"Read at most so many bytes a second."),
	is("fragment", size(1, plan.TextMax), func(s *settings) *int { return &s.Fragment }, "a frame a message",
		"Send messages in frames of at most so many bytes."),
}

// userPassword is a template with a colon, or a line of a file that has one.
func userPassword() value[*plan.Text] {
	v := text("user:password")
	return value[*plan.Text]{v.schema, v.limits, func(d *decoder, n *yaml.Node) (*plan.Text, error) {
		t, err := v.read(d, n)
		if err == nil && !strings.Contains(t.String(), ":") && len(t.Files()) == 0 {
			err = mistake(n, "must be user:password")
		}
		return t, err
	}}
}

// group makes what users connect with out of the settings.
func (s *settings) group(n *yaml.Node) (plan.Group, error) {
	g := s.Group
	if err := s.addQuery(&g); err != nil {
		return g, mistake(n, "query: %s", err)
	}
	for _, h := range s.headers {
		g.Headers = append(g.Headers, plan.Header{Name: h.name, Value: h.text})
	}
	if s.cookies != nil {
		var all []string
		for _, c := range s.cookies {
			all = append(all, c.name+"="+c.text.String())
		}
		value, err := plan.ParseText(strings.Join(all, "; "))
		if err != nil {
			return g, mistake(n, "cookies: %s", err)
		}
		g.Headers = append(g.Headers, plan.Header{Name: "Cookie", Value: value})
	}
	if s.basicAuth != nil {
		value, err := plan.ParseText("Basic {{base64 " + strconv.Quote(s.basicAuth.String()) + "}}")
		if err != nil {
			return g, mistake(n, "basic-auth: %s", err)
		}
		g.Headers = append(g.Headers, plan.Header{Name: "Authorization", Value: value})
	}
	return g, nil
}

// addQuery adds the parameters to each URL.
func (s *settings) addQuery(g *plan.Group) error {
	if s.query == nil {
		return nil
	}
	var parameters []string
	for _, p := range s.query {
		escaped, err := p.text.Escape(url.QueryEscape)
		if err != nil {
			return err
		}
		parameters = append(parameters, url.QueryEscape(p.name)+"="+escaped.String())
	}
	g.URLs = make([]*plan.Text, len(s.URLs))
	for i, u := range s.URLs {
		separator := "?"
		if strings.Contains(u.String(), "?") {
			separator = "&"
		}
		var err error
		if g.URLs[i], err = plan.ParseText(u.String() + separator + strings.Join(parameters, "&")); err != nil {
			return err
		}
	}
	return nil
}
