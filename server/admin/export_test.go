package admin

import (
	"context"

	"github.com/seed-134acfd0/lull/server"
)

// NotReady says why a server with these figures is not ready.
func NotReady(ctx context.Context, s *server.Server, now *server.Stats) string {
	return (&admin{ctx: ctx, source: newSource(s)}).notReady(now)
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
