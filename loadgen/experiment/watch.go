package experiment

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// metrics is what a server says of itself in Prometheus' text format: values by
// name and labels, as they are written there.
type metrics map[string]float64

// scraper names the address it comes from. The kernel's choice of a port fails
// when a generator uses every port, from whatever addresses.
var scraper = http.Client{Transport: &http.Transport{
	DialContext: (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)}}).DialContext,
}}

// scrape reads a server's metrics.
func scrape(ctx context.Context, url string) (metrics, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"metrics", nil)
	if err != nil {
		return nil, fmt.Errorf("experiment: scrape: %w", err)
	}
	response, err := scraper.Do(request)
	if err != nil {
		return nil, fmt.Errorf("experiment: scrape: %w", err)
	}
	defer response.Body.Close()
	m := metrics{}
	lines := bufio.NewScanner(response.Body)
	for lines.Scan() {
		line := lines.Text()
		i := strings.LastIndexByte(line, ' ')
		if strings.HasPrefix(line, "#") || i < 0 {
			continue
		}
		if m[line[:i]], err = strconv.ParseFloat(line[i+1:], 64); err != nil {
			return nil, fmt.Errorf("experiment: scrape: %q is no metric", line)
		}
	}
	return m, lines.Err()
}

// sum adds up a metric's values, whatever their labels.
func (m metrics) sum(name string) (sum float64) {
	for key, value := range m {
		if key == name || strings.HasPrefix(key, name+"{") {
			sum += value
		}
	}
	return sum
}

// watcher looks at a server's metrics during a load.
type watcher struct {
	first map[string]time.Duration // when a value first was more than at the beginning
	most  metrics
	last  metrics

	stop  context.CancelFunc
	ended chan error
}

// watchEvery is how often it looks. A look takes the machine some milliseconds.
const watchEvery = 100 * time.Millisecond

func watchMetrics(url string) *watcher {
	ctx, stop := context.WithCancel(context.Background())
	w := &watcher{first: map[string]time.Duration{}, most: metrics{}, stop: stop, ended: make(chan error, 1)}
	go func() { w.ended <- w.run(ctx, url) }()
	return w
}

func (w *watcher) run(ctx context.Context, url string) error {
	beginning, err := scrape(ctx, url)
	if err != nil {
		return err
	}
	begun := time.Now()
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for ctx.Err() == nil {
		m, err := scrape(ctx, url)
		if err != nil {
			break // it ends, or the server has: its load tells
		}
		now := time.Since(begun)
		for key, value := range m {
			if _, seen := w.first[key]; !seen && value > beginning[key] {
				w.first[key] = now
			}
			w.most[key] = max(w.most[key], value)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
	w.last, err = scrape(context.Background(), url)
	return err
}

// end looks once more and stops.
func (w *watcher) end() error {
	w.stop()
	return <-w.ended
}

// between is the time from when one metric first rose until another did, in
// seconds; 0 if either never did.
func (w *watcher) between(one, other string) float64 {
	from, rose := w.first[one]
	to, roseToo := w.first[other]
	if !rose || !roseToo {
		return 0
	}
	return (to - from).Seconds()
}
