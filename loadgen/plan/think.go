package plan

import (
	"math/rand/v2"
	"time"
)

// exponentialMax is the longest time that an exponential distribution gives, in means.
// One of 5e8 is longer, and is cut to it.
const exponentialMax = 20

// Draw is a time of the distribution. It is never negative, and its mean is that of the
// distribution but for Normal with a deviation that is large beside the mean: what is
// below zero becomes zero.
func (t Think) Draw(r *rand.Rand) time.Duration {
	switch t.Shape {
	case Uniform:
		return t.From + time.Duration(r.Int64N(int64(t.To-t.From)+1))
	case Exponential:
		return time.Duration(float64(t.Mean) * min(r.ExpFloat64(), exponentialMax))
	case Normal:
		return max(0, t.Mean+time.Duration(float64(t.Dev)*r.NormFloat64()))
	}
	return t.Mean
}

func (t Think) check(f *finder) error {
	switch t.Shape {
	case Constant:
		return f.lasts("mean", t.Mean, 1, TimeMax)
	case Uniform:
		if t.From < 0 || t.To < t.From || t.To > TimeMax || t.To == 0 {
			return f.fault("uniform", "is %s to %s: the shorter time must come first, and the longer one be at most %s", t.From, t.To, TimeMax)
		}
		return nil
	case Exponential:
		return f.lasts("mean", t.Mean, 1, TimeMax)
	case Normal:
		if err := f.lasts("mean", t.Mean, 0, TimeMax); err != nil {
			return err
		}
		return f.lasts("dev", t.Dev, 0, TimeMax)
	}
	return f.fault("shape", "is %.40q: it must be uniform, exponential, normal, or nothing for a constant time", t.Shape)
}
