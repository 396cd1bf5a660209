package main

import (
	"fmt"
	"os"
)

// changes are those of files that somebody may be writing when they are looked at: half of a
// list is a list, too, and a certificate and its key are two files.
type changes struct {
	taken string // the stamp of what was read last
	seen  string // that of the last look
}

// look reports whether the files are to be read: they are others than were read, and the same
// as at the last look.
func (c *changes) look(stamp string) bool {
	settled := stamp == c.seen
	c.seen = stamp
	if !settled || stamp == c.taken {
		return false
	}
	c.taken = stamp
	return true
}

// stampOf changes when a file does.
func stampOf(path string) string {
	info, err := os.Stat(path)
	if err != nil {
		return "none\n"
	}
	return fmt.Sprintln(info.ModTime().UnixNano(), info.Size())
}
