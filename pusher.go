package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/seed-134acfd0/lull/server/pusher"
)

// pusherMode are the flags of --mode=pusher: which apps there are.
type pusherMode struct {
	PusherApps            string        `help:"With --mode=pusher, YAML file with the apps (docs/pusher.md). It is read again when it changes." placeholder:"FILE" predictor:"file" example:"apps.yaml"`
	PusherApp             string        `help:"With --mode=pusher, one app for a first try, with client events, as ID:KEY:SECRET. Everybody who can list processes can read it." placeholder:"ID:KEY:SECRET" example:"1:app-key:app-secret"`
	PusherActivityTimeout time.Duration `help:"After how long a silence clients are to ping the server. 0, the default, means half of --idle-timeout, and 2m without one. Clients of pusher-js ping after 2m at the latest, unless their own activityTimeout says otherwise." default:"0s" range:"0s..8760h"`
}

// check checks the flags.
func (m *pusherMode) check(mode string) error {
	switch {
	case mode != "pusher" && (m.PusherApps != "" || m.PusherApp != ""):
		return errors.New("--pusher-apps and --pusher-app: can only be used with --mode=pusher")
	case mode != "pusher":
		return nil
	case (m.PusherApps == "") == (m.PusherApp == ""):
		return errors.New("--mode=pusher: needs its apps, --pusher-apps=FILE, or one, --pusher-app=ID:KEY:SECRET")
	}
	_, err := m.apps(nil)
	return err
}

// apps are the apps. Pages of origins may connect to that of --pusher-app; by default those of any.
func (m *pusherMode) apps(origins []string) ([]pusher.App, error) {
	if m.PusherApps != "" {
		apps, err := pusher.ReadApps(m.PusherApps)
		if err != nil {
			return nil, fmt.Errorf("--pusher-apps: %w", err)
		}
		return apps, nil
	}
	parts := strings.SplitN(m.PusherApp, ":", 3)
	if len(parts) != 3 {
		return nil, errors.New("--pusher-app: must be ID:KEY:SECRET; for example --pusher-app=1:app-key:app-secret")
	}
	return []pusher.App{{ID: parts[0], Key: parts[1], Secret: parts[2], ClientEvents: true, Origins: origins}}, nil
}

// begin makes the handler of a server with an idle timeout.
func (m *pusherMode) begin(origins []string, idle time.Duration, log *slog.Logger) (*pusher.Pusher, error) {
	apps, err := m.apps(origins)
	if err != nil {
		return nil, err
	}
	o := pusher.Options{Apps: apps, ActivityTimeout: m.PusherActivityTimeout, Log: log}
	if o.ActivityTimeout == 0 && idle > 0 {
		o.ActivityTimeout = max(time.Second, idle/2)
	}
	expectHandshakes()
	return pusher.New(o)
}

// appsEvery is how often the file of apps is looked at.
const appsEvery = time.Second

// watch reads the file of apps again when it has changed, until ctx is done.
func (m *pusherMode) watch(ctx context.Context, p *pusher.Pusher, log *slog.Logger) {
	if m.PusherApps == "" {
		return
	}
	tick := time.NewTicker(appsEvery)
	defer tick.Stop()
	stamp := stampOf(m.PusherApps)
	for file := (changes{stamp, stamp}); ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if !file.look(stampOf(m.PusherApps)) {
			continue
		}
		apps, err := m.apps(nil)
		if err == nil {
			err = p.Reload(apps)
		}
		if err != nil {
			log.Warn("the apps were not read again, and those from before stay", "error", err)
			continue
		}
		log.Info("the apps were read again", "apps", len(apps))
	}
}

// pusherPages serves the API of publishers, and beside it pages, unless they are nil.
func pusherPages(api, pages http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/apps/", api)
	if pages != nil {
		mux.Handle("/", pages)
	}
	return mux
}

// finish tells webhooks what they were not told yet.
func (m *pusherMode) finish(p *pusher.Pusher, grace time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), cmp.Or(grace, time.Millisecond))
	defer cancel()
	p.Close(ctx)
}
