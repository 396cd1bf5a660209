package main

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/seed-134acfd0/lull/loadgen/web"
)

func TestALoadHasAPageUnlessNobodyWantsIt(t *testing.T) {
	page, err := (&loadPage{Web: "127.0.0.1:0"}).open(web.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer page.Close()
	r, err := http.Get(page.URL() + "snapshot.json")
	if err != nil {
		t.Fatal(err)
	}
	if r.Body.Close(); r.StatusCode != http.StatusOK {
		t.Error(r.Status)
	}
	if page, err := new(loadPage).open(web.Options{}); page != nil || err != nil {
		t.Error(page, err)
	}
}

func TestALoadsPageCannotBeOpened(t *testing.T) {
	short := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(short, []byte("short"), 0o600); err != nil {
		t.Fatal(err)
	}
	taken, err := web.Listen("127.0.0.1:0", web.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	addr := strings.Trim(strings.TrimPrefix(taken.URL(), "http://"), "/")
	for says, p := range map[string]loadPage{
		"another program has this port, perhaps another run; choose another port, or 0 for a free one; --web= turns the page off": {Web: addr},
		"give the page a token": {Web: "0.0.0.0:0"},
		"at least 16 letters":   {Web: "127.0.0.1:0", WebTokenFile: short},
		"no such file":          {Web: "127.0.0.1:0", WebTokenFile: short + "s"},
	} {
		if page, err := p.open(web.Options{}); page != nil || err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%+v: %v", p, err)
		}
	}
}

// With auto a load goes on without a page if another program has the port. Whichever of
// the two loads here is first may have it, or none.
func TestLoadsGoOnWithoutAPage(t *testing.T) {
	for range 2 {
		page, err := (&loadPage{Web: webAuto}).open(web.Options{})
		if err != nil {
			t.Error(err)
		}
		if page != nil {
			defer page.Close()
		}
	}
}

func TestAddressesOfALoadsPageAreChecked(t *testing.T) {
	for addr, ok := range map[string]bool{"": true, "auto": true, "127.0.0.1:8092": true, "[::1]:0": true, "8091": false, "host": false} {
		if err := (&loadPage{Web: addr}).check(); (err == nil) != ok {
			t.Errorf("--web=%s: %v", addr, err)
		}
	}
}
