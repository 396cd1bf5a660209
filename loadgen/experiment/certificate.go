package experiment

import (
	"crypto/rand"
	"crypto/tls"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/seed-134acfd0/lull/internal/selfsigned"
)

// certificate is made for a run, in a directory that only its owner can read.
type certificate struct {
	dir, cert, key string
	trust          *tls.Config // the client's
}

// certificateFor is how long it is valid. No run takes longer.
const certificateFor = 30 * 24 * time.Hour

// newCertificate makes a certificate for 127.0.0.1, with an ECDSA key (P-256).
func newCertificate() (*certificate, error) {
	made, err := selfsigned.New(time.Now().Add(certificateFor), "127.0.0.1")
	if err != nil {
		return nil, fmt.Errorf("experiment: %w", err)
	}
	c := &certificate{trust: &tls.Config{RootCAs: selfsigned.Pool(made)}}
	if c.dir, err = os.MkdirTemp("", "lull-experiment-"); err != nil {
		return nil, fmt.Errorf("experiment: %w", err)
	}
	if c.cert, c.key, err = selfsigned.Write(c.dir, made); err != nil {
		c.remove()
		return nil, fmt.Errorf("experiment: %w", err)
	}
	return c, nil
}

// ticketKeys makes a file with a key for session tickets.
func (c *certificate) ticketKeys() (path string, err error) {
	var key [32]byte
	_, _ = rand.Read(key[:]) // never fails
	path = filepath.Join(c.dir, "tickets")
	if err := os.WriteFile(path, fmt.Appendf(nil, "%x\n", key), 0o600); err != nil {
		return "", fmt.Errorf("experiment: %w", err)
	}
	return path, nil
}

// remove removes the files. A server has read them when it listens.
func (c *certificate) remove() { _ = os.RemoveAll(c.dir) }
