package record

import (
	"crypto/tls"
	"errors"
)

// Alerts (RFC 8446 section 6).
const (
	closeNotify       tls.AlertError = 0
	unexpectedMessage tls.AlertError = 10
	badRecordMAC      tls.AlertError = 20
	recordOverflow    tls.AlertError = 22
	illegalParameter  tls.AlertError = 47
	decodeError       tls.AlertError = 50
	internalError     tls.AlertError = 80
	userCanceled      tls.AlertError = 90
)

// ErrClosed is the peer's close_notify: it will send no more.
var ErrClosed = errors.New("record: the peer has closed the connection")

// Error is an alert that ends a connection.
type Error struct {
	// Alert's text is that of crypto/tls.
	Alert tls.AlertError
	// Received: the peer sent it. Otherwise it is what the peer must be sent.
	Received bool
	// Reason is what the peer did, if the alert is ours.
	Reason string
}

func (e *Error) Error() string {
	if e.Received {
		return "record: the peer gave up: " + e.Alert.Error()
	}
	return "record: " + e.Reason
}

// What a peer may do wrong.
var (
	errType       = &Error{Alert: unexpectedMessage, Reason: "a record that is not encrypted"}
	errLong       = &Error{Alert: recordOverflow, Reason: "a record of more than 16 KiB"}
	errMAC        = &Error{Alert: badRecordMAC, Reason: "a record that does not open with the connection's key"}
	errExhausted  = &Error{Alert: internalError, Reason: "too many records without a key update"}
	errNoType     = &Error{Alert: unexpectedMessage, Reason: "a record without a content type"}
	errContent    = &Error{Alert: unexpectedMessage, Reason: "a record of an unknown content type"}
	errEmpty      = &Error{Alert: unexpectedMessage, Reason: "an empty handshake message or alert"}
	errAlert      = &Error{Alert: decodeError, Reason: "an alert that is not two bytes long"}
	errIdle       = &Error{Alert: unexpectedMessage, Reason: "too many records in a row without data"}
	errFragment   = &Error{Alert: unexpectedMessage, Reason: "a handshake message in several records"}
	errMessage    = &Error{Alert: unexpectedMessage, Reason: "a handshake message behind the handshake"}
	errUpdate     = &Error{Alert: illegalParameter, Reason: "a key update that neither asks nor answers"}
	errUpdateSize = &Error{Alert: decodeError, Reason: "a key update that is not one byte long"}
	errUpdateTail = &Error{Alert: unexpectedMessage, Reason: "a key update with something behind it"}
)
