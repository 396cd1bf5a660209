package main

import (
	"fmt"
	"os"
	"strings"
)

// tokenLeast is the shortest token that is accepted. Nobody counts guesses, so it has
// to be long.
const tokenLeast = 16

// readToken reads a token from the file that a flag names, or else from a variable. It is
// empty if there is none.
func readToken(flag, file, variable string) (string, error) {
	token, where := os.Getenv(variable), variable
	if file != "" {
		text, err := os.ReadFile(file)
		if err != nil {
			return "", fmt.Errorf("%s: %w", flag, err)
		}
		where = flag + "=" + file
		if token = strings.TrimSpace(string(text)); token == "" {
			return "", fmt.Errorf("%s: the file is empty", where)
		}
	}
	odd := func(r rune) bool { return r <= ' ' || r > '~' }
	if token != "" && (len(token) < tokenLeast || strings.ContainsFunc(token, odd)) {
		return "", fmt.Errorf("%s: must be a token of at least %d letters, digits and signs, without spaces; \"openssl rand -hex 32\" makes one", where, tokenLeast)
	}
	return token, nil
}
