package result

import (
	"testing"

	"github.com/seed-134acfd0/lull/loadgen/plan"
)

func thresholds(t *testing.T, text string) []plan.Threshold {
	t.Helper()
	all, err := plan.ParseThresholds(text)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestThresholdsAreHeldAgainstWhatWasMeasured(t *testing.T) {
	r := example()
	for threshold, want := range map[string]string{
		"lost=0":                  "not met: lost=0: it is 1049",
		"open>=997":               "met: open>=997: it is 997",
		"errors<4":                "not met: errors<4: it is 4",
		"foreign<=6":              "met: foreign<=6: it is 6",
		"p50(handshake)<1ms":      "met: p50(handshake)<1ms: it is 0.501ms",
		"p99.9(handshake)<1ms":    "not met: p99.9(handshake)<1ms: it is 20.095ms",
		"max(flood)<1s":           "met: max(flood)<1000ms: it is 2.007ms",
		"rate(connects)>=499":     "met: rate(connects)>=499: it is 499.0/s",
		"rate(messages)>1000000":  "not met: rate(messages)>1000000: it is 1120.0/s",
		"rate(deliveries)>=49900": "met: rate(deliveries)>=49900: it is 49900.0/s",
		"valid":                   "not met: valid=1: it is 0",
		"unanswered=0":            "met: unanswered=0: it is 0",
	} {
		if got := r.Check(thresholds(t, threshold)); len(got) != 1 || got[0].String() != want {
			t.Errorf("%s: %v", threshold, got)
		}
	}
}

func TestAFigureThatWasNotMeasuredIsNotMet(t *testing.T) {
	r := newLoad(Run{}).Result(End{})
	for _, threshold := range []string{"p99(echo)<1h", "max(broadcast)>=0s", "rate(messages)>=0", "rate(connects)>=0", "rate(deliveries)>=0"} {
		c := r.Check(thresholds(t, threshold))[0]
		if c.Met || c.Measured != nil || c.String() != "not met: "+c.Threshold.String()+": it was not measured" {
			t.Errorf("%s: %v", threshold, c)
		}
	}
}
