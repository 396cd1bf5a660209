package testkit

import (
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Resident is the process's resident memory after a collection, in bytes.
func Resident(b *testing.B) int {
	b.Helper()
	for range 3 { // tables are unmapped some time after a collection
		debug.FreeOSMemory()
		time.Sleep(20 * time.Millisecond)
	}
	stat, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		b.Skip(err)
	}
	pages, err := strconv.Atoi(strings.Fields(string(stat))[1])
	if err != nil {
		b.Fatal(err)
	}
	return pages * os.Getpagesize()
}
