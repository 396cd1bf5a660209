package experiment

import (
	"strings"
	"testing"
)

func TestWhatWrkPrintsIsRead(t *testing.T) {
	const printed = "Running 1s test @ http://127.0.0.1:8000/\n  1 threads and 64 connections\nRequests/sec:  53670.93\nTransfer/sec:      8.50MB\n"
	if rate, err := wrkRate([]byte(printed)); err != nil || rate != 53670.93 {
		t.Errorf("it is %v, %v", rate, err)
	}
	for _, bad := range []string{"", "unable to connect", strings.Replace(printed, "Requests/sec", "  Non-2xx or 3xx responses: 7\nRequests/sec", 1)} {
		if rate, err := wrkRate([]byte(bad)); err == nil {
			t.Errorf("%q is %v", bad, rate)
		}
	}
}

func TestTheHooksTableHasMedians(t *testing.T) {
	var table strings.Builder
	h := Hooks{Conns: 64, Straight: []float64{100, 300, 200}, WrkCPU: []float64{7, 9, 8}, Cost: []float64{14, 16, 15}, Ways: []HooksWays{
		{"somehow", []float64{50, 60, 70}, []float64{0.5, 0.2, 0.35}, []float64{1, 3, 2}, []float64{4, 6, 5}, []float64{9, 11, 10}},
	}}
	err := h.WriteText(&table)
	for _, part := range []string{"64 connections, 3 rounds", "200", "8.0 µs", "15.0 µs", "somehow", "60", "0.35", "2.0 µs", "5.0 µs", "10.0 µs"} {
		if err != nil || !strings.Contains(table.String(), part) {
			t.Errorf("%q is not in %s, %v", part, &table, err)
		}
	}
}
