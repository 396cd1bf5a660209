package admin

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
