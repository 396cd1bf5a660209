package gate

import (
	"math"
	"testing"
	"time"
	"unsafe"
)

var nan = math.NaN()

func TestRate(t *testing.T) {
	type step struct {
		at              time.Duration
		messages, bytes int
		want            time.Duration
	}
	ms := time.Millisecond
	for name, test := range map[string]struct {
		limit RateLimit
		steps []step
	}{
		"no limit":                      {RateLimit{}, []step{{0, 1e9, 1e9, 0}, {0, 1e9, 1e9, 0}}},
		"a burst, and then the pace":    {RateLimit{Messages: Pace{10, 3}}, []step{{0, 3, 0, 0}, {0, 1, 0, 100 * ms}, {100 * ms, 1, 0, 100 * ms}, {200 * ms, 0, 0, 0}}},
		"a rest fills the bucket":       {RateLimit{Messages: Pace{10, 3}}, []step{{0, 3, 0, 0}, {time.Hour, 3, 0, 0}, {time.Hour, 1, 0, 100 * ms}}},
		"a second's worth, if not said": {RateLimit{Messages: Pace{10, 0}}, []step{{0, 10, 0, 0}, {0, 1, 0, 100 * ms}}},
		"less than one a second":        {RateLimit{Messages: Pace{0.5, 0}}, []step{{0, 1, 0, 0}, {0, 1, 0, 2 * time.Second}}},
		"bytes":                         {RateLimit{Bytes: Pace{1000, 1000}}, []step{{0, 1, 1500, 500 * ms}, {500 * ms, 0, 0, 0}}},
		"the stricter one counts":       {RateLimit{Pace{10, 1}, Pace{1000, 1000}}, []step{{0, 2, 1050, 100 * ms}, {0, 0, 150, 200 * ms}}},
		"an hour at most":               {RateLimit{Bytes: Pace{1, 1}}, []step{{0, 0, math.MaxInt, time.Hour}, {time.Hour, 0, 0, 0}}},
		"one in an hour at least":       {RateLimit{Messages: Pace{1e-300, 1}}, []step{{0, 2, 0, time.Hour}}},
		"faster than a nanosecond":      {RateLimit{Messages: Pace{1e300, 0}}, []step{{0, 1e9, 0, 0}}},
		"a clock that went back":        {RateLimit{Messages: Pace{10, 1}}, []step{{time.Second, 1, 0, 0}, {900 * ms, 0, 0, 100 * ms}, {time.Second, 0, 0, 0}}},
	} {
		var r Rate
		for i, s := range test.steps {
			if got := r.Took(test.limit, s.messages, s.bytes, s.at); got != s.want {
				t.Errorf("%s, step %d: wait %v, want %v", name, i, got, s.want)
			}
		}
		if err := test.limit.Check(); err != nil || test.limit.Limited() != (name != "no limit") {
			t.Error(name, err)
		}
	}
	if unsafe.Sizeof(Rate{}) != 16 {
		t.Error("a Rate takes", unsafe.Sizeof(Rate{}))
	}
	for _, l := range []RateLimit{{Messages: Pace{-1, 0}}, {Bytes: Pace{0, -1}}, {Bytes: Pace{math.Inf(1), 0}}, {Messages: Pace{nan, 1}}} {
		if l.Check() == nil {
			t.Errorf("%v is accepted", l)
		}
	}
}

func TestEveryReasonHasItsWords(t *testing.T) {
	g := New(1, 1)
	for why := Admitted; why < reasons; why++ {
		if why.String() == "" || why != Admitted && why.Text() == "" {
			t.Errorf("reason %d has no words", why)
		}
		g.Refuse(why)
	}
	g.Refuse(AddressRate)
	counts := g.Refused()
	if len(counts) != int(reasons)-1 || counts["address_rate"] != 2 || counts["origin"] != 1 {
		t.Errorf("counted %v", counts)
	}
	if (Verdict{Reason: ForeignOrigin}).RetryAfter() != 0 || ForeignOrigin.Status() != 403 {
		t.Error("a page of another origin need not come back")
	}
}

func BenchmarkRate(b *testing.B) {
	var r Rate
	l := RateLimit{Pace{100, 10}, Pace{1e6, 1e6}}
	now := time.Duration(0)
	for b.Loop() {
		now += time.Millisecond
		r.Took(l, 1, 100, now)
	}
}
