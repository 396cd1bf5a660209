package loadgen

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/seed-134acfd0/lull/frame"
)

// picky is a server that closes each connection on its first message.
func picky(t *testing.T) (url string) {
	return fake(t, func(p *peer) {
		p.open()
		if op, _, ok := p.next(); ok && op != frame.Close {
			p.send(frame.AppendClose(nil, frame.UnsupportedData, "bad json"))
			p.rest()
		}
	})
}

// A phase that still has an hour to go ends when the last connection has, and the result
// says why.
func TestARunEndsWhenNobodyIsLeft(t *testing.T) {
	const conns = 10
	leaving := fake(t, func(p *peer) {
		p.open(frame.AppendClose(nil, frame.UnsupportedData, "bad json"))
		p.rest()
	})
	for name, c := range map[string]Config{
		"idle":    {URLs: []string{leaving}, Hold: time.Hour},
		"echoing": {URLs: []string{picky(t)}, Active: conns, Echo: time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			c.Conns = conns
			res, err := Run(t.Context(), c)
			if err != nil {
				t.Fatal(err)
			}
			if want := fmt.Sprintf("nobody is left: %d × 1003 bad json", conns); res.Early != want || res.OK() {
				t.Errorf("early is %q, want %q; OK is %v", res.Early, want, res.OK())
			}
		})
	}
}

// A server that closes whoever publishes will pass nothing on. Nobody waits for that.
func TestARunEndsWhenTheServerRefusesWhatIsPublished(t *testing.T) {
	res, err := Run(t.Context(), Config{URLs: []string{picky(t)}, Conns: 10, Broadcasts: 5, Patience: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasSuffix(res.Early, "publish: 1 × 1003 bad json") || res.Open != 9 || len(res.Broadcasts) != 1 {
		t.Errorf("early is %q, %d open, %d broadcasts", res.Early, res.Open, len(res.Broadcasts))
	}
}
