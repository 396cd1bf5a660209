// Package conformance holds what RFC 6455 and RFC 7692 ask of a server, as tables
// of cases, and tests that run them against the lull program: in the shape of the
// Autobahn test suite, whose numbers they have, and with abuses of the opening
// handshake beside it. docs/conformance.md lists the cases. Only tests are here, and
// they import nothing that the program uses to speak WebSocket.
package conformance
