package main

import (
	"context"
	"log/slog"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// watchdogLooks is how many times the server is checked within the time after
// which the service manager restarts it. A reactor that recovers in between
// causes no restart.
const watchdogLooks = 4

// notify tells the service manager, if there is one, that the server is ready,
// then that it is alive for as long as none of its reactors is stuck, and in
// the end, when ctx is done, that it is stopping.
func notify(ctx context.Context, stalled func() int, log *slog.Logger) {
	tell := func(state string) {
		if _, err := daemon.SdNotify(false, state); err != nil {
			log.Warn("cannot notify the service manager", "state", state, "error", err)
		}
	}
	tell(daemon.SdNotifyReady)
	defer tell(daemon.SdNotifyStopping)

	patience, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		log.Warn("the service manager's watchdog is off", "error", err)
	}
	var look <-chan time.Time // never, if there is no watchdog
	if patience > 0 {
		tick := time.NewTicker(patience / watchdogLooks)
		defer tick.Stop()
		look = tick.C
	}
	for {
		select {
		case <-look:
			if stalled() == 0 {
				tell(daemon.SdNotifyWatchdog)
			}
		case <-ctx.Done():
			return
		}
	}
}
