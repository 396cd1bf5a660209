package terminal

import (
	"fmt"
	"time"

	"github.com/dustin/go-humanize"
)

func count(n int) string { return humanize.Comma(int64(n)) }

// rate is a rate with as many digits as say something.
func rate(n float64) string {
	if n > 0 && n < 10 {
		return fmt.Sprintf("%.1f/s", n)
	}
	return count(int(n+0.5)) + "/s"
}

func volume(bytes float64) string { return humanize.Bytes(uint64(bytes)) + "/s" }

func percent(share float64) string { return fmt.Sprintf("%.0f %%", 100*share) }

// period is a time that passes while one looks: in seconds.
func period(d time.Duration) string {
	if d < time.Minute {
		return fmt.Sprintf("%.0f s", d.Seconds())
	}
	return d.Round(time.Second).String()
}

// latency is a time that was measured, in three digits.
func latency(d time.Duration) string {
	if d >= time.Minute {
		return period(d)
	}
	return humanize.SIWithDigits(d.Seconds(), 1, "s")
}
