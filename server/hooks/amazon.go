package hooks

import (
	"net/http"
	"unicode/utf8"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/server"
)

// This is what clients of AWS's ApiGatewayManagementApi ask for.
// https://docs.aws.amazon.com/apigateway/latest/developerguide/apigateway-how-to-call-websocket-api-connections.html

// amazonKind is the header in which AWS names an error, and amazonKinds are the names.
const amazonKind = "X-Amzn-Errortype"

var amazonKinds = map[int]string{
	http.StatusForbidden:             "ForbiddenException",
	http.StatusGone:                  "GoneException",
	http.StatusRequestEntityTooLarge: "PayloadTooLargeException",
	http.StatusTooManyRequests:       "LimitExceededException",
}

// sendAny sends a body as text if it is UTF-8. These clients do not say what it is.
func (a *api) sendAny(c server.Conn, _ *http.Request, data []byte) (any, error) {
	op := frame.Binary
	if utf8.Valid(data) {
		op = frame.Text
	}
	return empty{http.StatusOK}, c.Send(op, data)
}

// identify tells who a connection is. Since when it is open and when it was heard last is
// not known.
func (a *api) identify(c server.Conn, _ *http.Request, _ []byte) (any, error) {
	remote := c.RemoteAddr()
	if !remote.IsValid() {
		return nil, errGone
	}
	type identity struct {
		SourceIP string `json:"sourceIp"`
	}
	return struct {
		Identity identity `json:"identity"`
	}{identity{remote.Addr().Unmap().String()}}, nil
}

// remove closes a connection.
func (a *api) remove(c server.Conn, _ *http.Request, _ []byte) (any, error) {
	return empty{http.StatusNoContent}, c.Close(frame.NormalClosure, "")
}
