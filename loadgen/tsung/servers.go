package tsung

import (
	"math"
	"net"
	"strconv"
	"strings"
)

// urlsMax is how long the list of URLs may be that users take in turn. A server is in it as
// often as its weight says.
const urlsMax = 100

// servers returns the URLs of the servers, without paths.
func (t *translation) servers(e *element) (urls []string) {
	servers := e.all("server")
	if len(servers) == 0 || len(servers) > urlsMax {
		t.fail(e, "<servers> needs 1 to %d <server host=… port=… type=…>", urlsMax)
		return nil
	}
	if len(servers) > 1 {
		t.note(servers[1], "users take the servers in turn by their weights, and not at random")
	}
	weights := make([]float64, len(servers))
	for i, s := range servers {
		weights[i] = t.number(s, "weight", 1)
	}
	for i, n := range turns(weights) {
		url := t.server(servers[i])
		for range n {
			urls = append(urls, url)
		}
	}
	if len(urls) == 0 {
		t.fail(servers[0], "no server has a weight")
	}
	return urls
}

// server is the URL of a server.
func (t *translation) server(e *element) string {
	scheme := "ws"
	switch kind := e.attr("type"); kind {
	case "tcp", "tcp6":
	case "ssl", "ssl6":
		scheme = "wss"
	case "websocket", "ws", "websocket_ssl", "wss":
		if kind == "websocket_ssl" || kind == "wss" {
			scheme = "wss"
		}
		t.note(e, "type %s opens a WebSocket connection, through which a ts_websocket session would open a second one: here it opens one", kind)
	default:
		t.fail(e, "type has to be tcp, ssl or websocket, not %.40q", kind)
	}
	port := t.whole(e, "port", 0, 1<<16-1)
	host := strings.Trim(e.attr("host"), "[]")
	if host == "" || port == 0 {
		t.fail(e, "a server needs a host and a port")
	}
	return scheme + "://" + net.JoinHostPort(host, strconv.Itoa(port))
}

// turns is how often each is taken in a round, so that it has its share by weight:
// exactly if the weights are small whole numbers, else about.
func turns(weights []float64) []int {
	round := func(scale float64) (n []int, sum int, exact bool) {
		n, exact = make([]int, len(weights)), true
		for i, w := range weights {
			n[i] = int(math.Round(w * scale))
			if n[i] == 0 && w > 0 {
				n[i] = 1
			}
			sum += n[i]
			exact = exact && float64(n[i]) == w*scale
		}
		return n, sum, exact
	}
	total := 0.0
	for _, w := range weights {
		total += w
	}
	if total == 0 {
		return make([]int, len(weights))
	}
	for length := 1; length < urlsMax; length++ {
		if n, sum, exact := round(float64(length) / total); exact && sum == length {
			return n
		}
	}
	n, _, _ := round(urlsMax / total)
	return n
}
