package loadgen

import (
	"flag"
	"os"
	"testing"
)

// Tests in parallel wait for servers that are slow on purpose, or for time to pass, so many
// of them run at a time.
func TestMain(m *testing.M) {
	flag.Parse()
	_ = flag.Set("test.parallel", "8") // the flag exists
	os.Exit(m.Run())
}
