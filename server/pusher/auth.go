package pusher

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"strings"
)

// sign is how all signatures of the protocol are made: HMAC-SHA256 (RFC 2104), in hexadecimal.
func sign(secret string, parts ...string) string {
	mac := hmac.New(sha256.New, []byte(secret))
	for _, part := range parts {
		mac.Write([]byte(part))
	}
	return hex.EncodeToString(mac.Sum(nil))
}

// same compares a signature with one that somebody claims, in a time that tells nothing.
func same(signature, claimed string) bool { return hmac.Equal([]byte(signature), []byte(claimed)) }

// checkAuth checks KEY:SIGNATURE of the parts, with colons in between.
func checkAuth(is *config, auth string, parts ...string) *fault {
	key, claimed, ok := strings.Cut(auth, ":")
	switch {
	case auth == "" || !ok:
		return faultNoAuth
	case key != is.Key:
		return faultAuthKey
	case !same(sign(is.Secret, strings.Join(parts, ":")), claimed):
		return faultAuth
	}
	return nil
}
