package testkit

import (
	"crypto/tls"
	"crypto/x509"
	"sync"
	"time"

	"github.com/seed-134acfd0/lull/internal/selfsigned"
)

// Certificate is for localhost and 127.0.0.1, and signed by itself. The pool trusts it.
var Certificate = sync.OnceValues(func() (tls.Certificate, *x509.CertPool) {
	c, err := selfsigned.New(time.Now().Add(24*time.Hour), "localhost", "127.0.0.1")
	if err != nil {
		panic(err)
	}
	return c, selfsigned.Pool(c)
})
