package main

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"github.com/alecthomas/kong"
)

// Exit codes.
const (
	exitFailed = 1  // the command failed, connections failed or messages were lost
	exitUsage  = 64 // as in sysexits.h
)

// exitCode is the error of a command that has already printed what is wrong.
type exitCode int

func (c exitCode) Error() string { return fmt.Sprintf("exit code %d", int(c)) }

// errNotOK is the exitCode of most commands.
const errNotOK = exitCode(exitFailed)

// exit prints an error and ends the process with a code, or with the error's
// own code if it has one.
func exit(parser *kong.Kong, err error, code int) {
	var own exitCode
	switch {
	case errors.As(err, &own):
		code = int(own)
	case errors.Is(err, syscall.EPIPE): // as in "lull doctor | head -1": the reader wants no more
	case code == exitUsage:
		parser.Errorf("%s", err)
		fmt.Fprintln(os.Stderr, `Try "lull --help" or "lull COMMAND --help".`)
	default:
		parser.Errorf("%s", err)
	}
	os.Exit(code)
}
