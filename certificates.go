package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// tlsFiles are the paths of the flags --tls-cert, --tls-key, --tls-client-ca and
// --tls-ticket-keys.
type tlsFiles struct {
	certs, keys []string // certs[i] belongs to keys[i]
	clientCA    string   // empty for none
	ticketKeys  string   // empty for none
}

// certificates are what the files have. They are read again on SIGHUP, and when the
// files change.
type certificates struct {
	tlsFiles
	log     *slog.Logger
	hangups chan os.Signal

	config atomic.Pointer[tls.Config] // for the next handshake
	files  changes
}

// certificatesEvery is how often the files' times are looked at.
const certificatesEvery = time.Second

// readCertificates reads the files, and from then on takes SIGHUP.
func readCertificates(files tlsFiles, log *slog.Logger) (*certificates, error) {
	c := &certificates{tlsFiles: files, log: log, hangups: make(chan os.Signal, 1)}
	if err := c.read(); err != nil {
		return nil, err
	}
	c.files.seen = c.files.taken
	signal.Notify(c.hangups, syscall.SIGHUP)
	return c, nil
}

// server is the server's configuration. Each handshake asks it for what was read
// last; open connections keep theirs.
func (c *certificates) server() *tls.Config {
	return &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return c.config.Load(), nil }}
}

// read reads all files. On an error what was read before stays.
func (c *certificates) read() error {
	c.files.taken = c.stampNow()
	config := &tls.Config{}
	for i, cert := range c.certs {
		pair, err := tls.LoadX509KeyPair(cert, c.keys[i])
		if err != nil {
			return fmt.Errorf("--tls-cert=%s and --tls-key=%s: %w", cert, c.keys[i], err)
		}
		switch now := time.Now(); {
		case now.After(pair.Leaf.NotAfter):
			c.log.Warn("a certificate has expired, and clients will refuse it", "file", cert, "expired", pair.Leaf.NotAfter)
		case now.Before(pair.Leaf.NotBefore):
			c.log.Warn("a certificate is not valid yet, and clients will refuse it", "file", cert, "valid_from", pair.Leaf.NotBefore)
		}
		config.Certificates = append(config.Certificates, pair)
	}
	if c.clientCA != "" {
		pool, err := authorities("--tls-client-ca", c.clientCA)
		if err != nil {
			return err
		}
		config.ClientCAs, config.ClientAuth = pool, tls.RequireAndVerifyClientCert
	}
	if c.ticketKeys != "" {
		keys, err := readTicketKeys(c.ticketKeys)
		if err != nil {
			return err
		}
		config.SetSessionTicketKeys(keys)
	}
	c.config.Store(config)
	return nil
}

// readTicketKeys reads keys of session tickets, one in each line.
func readTicketKeys(path string) (keys [][32]byte, err error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("--tls-ticket-keys=%s: %w", path, err)
	}
	for i, line := range strings.Split(strings.TrimSpace(string(text)), "\n") {
		var key [32]byte
		b, err := hex.DecodeString(strings.TrimSpace(line))
		if err != nil || copy(key[:], b) != len(key) || len(b) != len(key) { // not the error: it quotes the key
			return nil, fmt.Errorf("--tls-ticket-keys=%s: line %d must have 64 hexadecimal digits, as «openssl rand -hex 32» prints them", path, i+1)
		}
		keys = append(keys, key)
	}
	return keys, nil
}

// authorities reads the certificates of a flag's file.
func authorities(flag, path string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("%s=%s: %w", flag, path, err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s=%s: it has no certificate in PEM", flag, path)
	}
	return pool, nil
}

// watch reads the files again until ctx is done.
func (c *certificates) watch(ctx context.Context) {
	tick := time.NewTicker(certificatesEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.hangups:
			c.reload()
		case <-tick.C:
			if c.files.look(c.stampNow()) {
				c.reload()
			}
		}
	}
}

func (c *certificates) reload() {
	if err := c.read(); err != nil {
		c.log.Warn("certificates were not read again, and those from before stay", "error", err)
		return
	}
	c.log.Info("certificates were read again")
}

// stampNow changes when a file does.
func (c *certificates) stampNow() string {
	var b strings.Builder
	for _, paths := range [][]string{c.certs, c.keys, {c.clientCA, c.ticketKeys}} {
		for _, path := range paths {
			b.WriteString(stampOf(path))
		}
	}
	return b.String()
}

// check checks the flags, before any file is read.
func (f tlsFiles) check() error {
	switch {
	case len(f.certs) != len(f.keys):
		return fmt.Errorf("--tls-cert and --tls-key: there must be a key for each certificate, in the same order, not %d and %d", len(f.certs), len(f.keys))
	case f.clientCA != "" && len(f.certs) == 0:
		return errors.New("--tls-client-ca: needs --tls-cert and --tls-key")
	case f.ticketKeys != "" && len(f.certs) == 0:
		return errors.New("--tls-ticket-keys: needs --tls-cert and --tls-key")
	}
	return nil
}
