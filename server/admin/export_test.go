package admin

import (
	"time"

	"github.com/seed-134acfd0/lull/server"
)

// LargestTopics finds them by a function, by a clock.
func LargestTopics(of func(n int) []server.Topic, now func() time.Time) (recent func() []server.Topic) {
	return (&largestTopics{of: of, now: now}).recent
}

// SeriesOf returns the series that shows a counter, as it is written in a scrape.
func SeriesOf(counter string) (series string, ok bool) {
	for i := range counted {
		row := &counted[i]
		switch {
		case row.counter != counter:
		case row.label == "":
			return "lull_" + row.name, true
		default:
			return "lull_" + row.name + "{" + row.label + `="` + row.value + `"}`, true
		}
	}
	return "", false
}
