package loadgen

import (
	"testing"

	"github.com/prometheus/procfs"
)

func TestBusyIsTheTimeOfAllProcessors(t *testing.T) {
	fs, err := procfs.NewDefaultFS()
	if err != nil {
		t.Fatal(err)
	}
	now := func() float64 {
		stat, err := fs.Stat()
		if err != nil {
			t.Fatal(err)
		}
		c := stat.CPUTotal
		return c.User + c.Nice + c.System + c.IRQ + c.SoftIRQ + c.Steal
	}
	const rounding = 0.001
	before, got := now(), busy()
	if after := now(); got < before-rounding || got > after+rounding {
		t.Errorf("busy is %v s, between %v and %v", got, before, after)
	}
}
