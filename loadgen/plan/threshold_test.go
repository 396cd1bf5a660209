package plan

import (
	"reflect"
	"strings"
	"testing"
)

func TestThresholdsAreRead(t *testing.T) {
	for text, want := range map[string]Threshold{
		"p99(handshake)<50ms":    {"p99", "handshake", "<", 50},
		" p99.9(echo) <= 1.5s ":  {"p99.9", "echo", "<=", 1500},
		"max(broadcast)<800us":   {"max", "broadcast", "<", 0.8},
		"lost=0":                 {"lost", "", "=", 0},
		"open >= 1000":           {"open", "", ">=", 1000},
		"timed_out<3":            {"timed_out", "", "<", 3},
		"rate(connects)>1000/s":  {"rate", "connects", ">", 1000},
		"rate(deliveries) > 1e6": {"rate", "deliveries", ">", 1e6},
		"valid":                  {"valid", "", "=", 1},
		"valid=1":                {"valid", "", "=", 1},
	} {
		got, err := ParseThreshold(text)
		if err != nil || got != want {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
		if again, err := ParseThreshold(got.String()); err != nil || again != got {
			t.Errorf("%s is written %s: %v", text, got, err)
		}
	}
	all, err := ParseThresholds("p99(handshake)<50ms, lost=0")
	if err != nil || !reflect.DeepEqual(all, []Threshold{{"p99", "handshake", "<", 50}, {"lost", "", "=", 0}}) {
		t.Errorf("%v, %v", all, err)
	}
}

func TestWrongThresholdsSayWhatCanBeWritten(t *testing.T) {
	for text, want := range map[string]string{
		"":                       "as in p99(handshake)<50ms, lost=0",
		"lost":                   "it has to be a figure, one of < <= = >= >",
		"lost==0":                "number",
		"lost!0":                 "as in",
		"lost=":                  "as in",
		"losses=0":               "it can be lost, open, errors, connected",
		"p99(handshakes)<1ms":    "can be of handshake, tls, broadcast",
		"p99<1ms":                `there are no times ""`,
		"p100(echo)<1ms":         "p50, p99.9 and so on",
		"avg(echo)<1ms":          "p50, p99.9 and so on",
		"lost(echo)=0":           "p50, p99.9 and so on",
		"rate(bytes)>1":          "can be of connects, messages, deliveries",
		"rate>1":                 "can be of connects",
		"p99(echo)<50":           "has to be one like 50ms",
		"p99(echo)<-1ms":         "has to be one like 50ms",
		"lost=none":              "has to be one like 0 or 1000",
		"lost=NaN":               "has to be one like 0 or 1000",
		"lost=1e300":             "has to be one like 0 or 1000",
		"lost=0;open=1":          "number",
		strings.Repeat("x", 300): "as in",
		"lost=0,":                "as in",
		strings.Repeat("lost=0,", ThresholdsMax) + "lost=0": "at most",
	} {
		if _, err := ParseThresholds(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40s: %v", text, err)
		}
	}
}

func FuzzThreshold(f *testing.F) {
	for _, text := range []string{"p99.9(echo)<=1.5s", "lost=0", "valid", "rate(connects)>1e3/s"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		one, err := ParseThreshold(text)
		if err != nil {
			return
		}
		if again, err := ParseThreshold(one.String()); err != nil || again != one {
			t.Errorf("%q is written %q, and read as %v: %v", text, one, again, err)
		}
	})
}
