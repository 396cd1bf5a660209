package tsung

import (
	"strings"

	"github.com/seed-134acfd0/lull/loadgen/plan"
)

// request translates what is sent.
func (s *script) request(e *element) ([]plan.Step, end) {
	for _, c := range e.children {
		switch c.name {
		case "websocket":
			if steps, how := s.websocket(c, e.attr("subst") == "true"); steps != nil || how != goesOn {
				return steps, how
			}
		case "match", "dyn_variable":
			s.note(c, "<%s> is left out: answers are not looked into", c.name)
		default:
			s.note(c, "<%s> is left out: it is no WebSocket request", c.name)
		}
	}
	return nil, goesOn
}

func (s *script) websocket(e *element, substitutes bool) ([]plan.Step, end) {
	kind := e.attr("type")
	if !s.connected && kind != "connect" {
		s.fail(e, "a session's first request has to be of type connect")
	}
	switch kind {
	case "connect":
		if s.connected {
			s.note(e, "a user connects once: it stays connected here, and its session ends")
			return nil, stays
		}
		s.connect(e, substitutes)
		return nil, goesOn
	case "message":
		return []plan.Step{{Do: plan.Send, Line: e.line, Message: s.message(e, substitutes)}}, goesOn
	case "close":
		return nil, leaves
	}
	s.fail(e, "type has to be connect, message or close, not %.40q", kind)
	return nil, goesOn
}

// connect sets how the group's users connect.
func (s *script) connect(e *element, substitutes bool) {
	s.connected = true
	path := s.template(e, "/"+strings.TrimPrefix(e.attr("path", "/"), "/"), substitutes)
	for _, server := range s.urls {
		url, err := plan.ParseText(server + path.String())
		if err != nil {
			s.fail(e, "%v", err)
		}
		s.group.URLs = append(s.group.URLs, url)
	}
	if origin := e.attr("origin"); origin != "" {
		s.addHeader(e, "Origin", origin, false)
	}
	for _, header := range e.all("http_header") {
		s.addHeader(header, header.attr("name"), header.attr("value"), substitutes)
	}
	for name := range strings.SplitSeq(e.attr("subprotocols"), ",") {
		if name = strings.TrimSpace(name); name != "" {
			s.group.Subprotocols = append(s.group.Subprotocols, s.template(e, name, false))
		}
	}
}

func (s *script) addHeader(e *element, name, value string, substitutes bool) {
	s.group.Headers = append(s.group.Headers, plan.Header{Name: name, Value: s.template(e, value, substitutes)})
}

// message translates a message. tsung strips blanks from its ends, and no other white space.
func (s *script) message(e *element, substitutes bool) plan.Message {
	m := plan.Message{Text: s.template(e, strings.Trim(e.text.String(), " "), substitutes)}
	switch frame := e.attr("frame", "binary"); frame {
	case "text", "binary":
		m.Binary = frame == "binary"
	default:
		s.fail(e, "frame has to be text or binary, not %.40q", frame)
	}
	switch ack := e.attr("ack", "parse"); ack {
	case "parse", "local":
		m.Answer = plan.Answer{Kind: plan.AnswerAny, Within: s.options.idle}
	case "no_ack":
	case "global":
		s.note(e, "the user does not wait until all users have come here")
	default:
		s.fail(e, "ack has to be parse, local, no_ack or global, not %.40q", ack)
	}
	return m
}
