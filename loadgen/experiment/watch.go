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

// metrics are a server's metrics. A key is a name with its labels, as it is written
// in Prometheus' text format.
type metrics map[string]float64

// scraper binds its sockets to an address. Otherwise the kernel finds no free port
// while a generator uses all of them, even from other addresses.
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
			return nil, fmt.Errorf("experiment: scrape: the line %q is no metric", line)
		}
	}
	return m, lines.Err()
}

// sum adds up a metric's values over all labels.
func (m metrics) sum(name string) (sum float64) {
	for key, value := range m {
		if key == name || strings.HasPrefix(key, name+"{") {
			sum += value
		}
	}
	return sum
}

// watcher reads a server's metrics again and again during a load.
type watcher struct {
	first map[string]time.Duration // when a value was first seen above its value at the beginning
	most  metrics                  // the highest values
	last  metrics                  // the values at the end

	stop  context.CancelFunc
	ended chan error
}

// watchEvery is how often it reads them. That takes some milliseconds each time.
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
			break // the watcher was stopped, or the server has ended, which the load reports
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

// end stops the watcher, which reads the metrics once more.
func (w *watcher) end() error {
	w.stop()
	return <-w.ended
}

// between is the time from the first rise of one metric to the first rise of
// another, in seconds. It is 0 if one of them never rose.
func (w *watcher) between(one, other string) float64 {
	from, rose := w.first[one]
	to, roseToo := w.first[other]
	if !rose || !roseToo {
		return 0
	}
	return (to - from).Seconds()
}
