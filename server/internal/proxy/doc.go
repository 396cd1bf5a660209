// Package proxy finds out who a client is that comes through proxies.
//
//	Trust       the proxies whose word is taken
//	ParseHead   the PROXY protocol's head, before anything else on a connection
//	Client      a request's X-Forwarded-For or Forwarded headers
//
// Anybody can write what a proxy would write, so nothing of it counts unless it comes
// from an address that is trusted. The package knows bytes and addresses alone.
package proxy
