package admin

import "github.com/seed-134acfd0/lull/server"

// SeriesOf is the series that shows a counter, as it stands in a scrape.
func SeriesOf(c server.Counter) (series string, ok bool) {
	for i := range counted {
		row := &counted[i]
		switch {
		case row.counter != c:
		case row.label == "":
			return "lull_" + row.name, true
		default:
			return "lull_" + row.name + "{" + row.label + `="` + row.value + `"}`, true
		}
	}
	return "", false
}
