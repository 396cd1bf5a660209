package main

import (
	"fmt"

	"github.com/seed-134acfd0/lull/loadgen/web"
)

// loadPage is where a load is shown while it goes on.
type loadPage struct {
	Web          string `help:"Address of a page that shows the load while it goes on, with buttons to pause and to stop it: host:port. Port 0 picks a free port, an empty value turns the page off. auto means 127.0.0.1:8091, or no page if another program has that port. An address that other machines can reach needs a token." default:"auto"`
	WebTokenFile string `help:"File with the token that the page asks for. Or the token is in the variable LULL_WEB_TOKEN." placeholder:"FILE" predictor:"file"`
}

// webAuto is the value of --web that makes a load go on without its page.
const webAuto = "auto"

// check checks the flags.
func (p *loadPage) check() error {
	if p.Web == "" || p.Web == webAuto {
		return nil
	}
	return checkAddress("--web", p.Web, web.Address)
}

// open opens the page, and says where it is. It returns a nil page if there is none:
// because nobody wants it, or because with auto its address cannot be used.
func (p *loadPage) open(o web.Options) (page *web.Page, err error) {
	if p.Web == "" {
		return nil, nil
	}
	if o.Token, err = readToken("--web-token-file", p.WebTokenFile, "LULL_WEB_TOKEN"); err != nil {
		return nil, err
	}
	addr := p.Web
	if addr == webAuto {
		addr = web.Address
	}
	page, err = web.Listen(addr, o)
	switch {
	case err == nil:
		say("watch the load on %s", page.URL())
		return page, nil
	case p.Web == webAuto:
		say("the load goes on without a page: %v", err)
		return nil, nil
	}
	return nil, fmt.Errorf("--web=%s: %w; --web= turns the page off", p.Web, err)
}
