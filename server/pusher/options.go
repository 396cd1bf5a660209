package pusher

import (
	"cmp"
	"log/slog"
	"time"
)

// Options say which applications there are. The zero value of each but Apps is its default.
type Options struct {
	// Apps are the applications. Reload replaces them.
	Apps []App
	// ActivityTimeout is after how long a silence a client is to ping the server; 2 minutes by
	// default. It should be less than server.Options.IdleTimeout. Clients of pusher-js take
	// what is less, this or their own activityTimeout, which is 2 minutes if nobody sets it.
	ActivityTimeout time.Duration
	// CacheBytes is how much memory the last events of cache channels may take; 64 MiB by
	// default. What was not published to for longest goes first. CacheTime is how long one is
	// kept; 30 minutes by default.
	CacheBytes int
	CacheTime  time.Duration
	// ResumeBytes is how much memory the events may take that are kept for clients that come back
	// (App.Resume); 64 MiB by default. The channels that were not used for longest go first.
	ResumeBytes int
	// WebhookRetry is after how long a webhook's request is sent again that has failed, and then
	// after twice as long each time, 30 s at most; 1 s by default. WebhookTime is for how long; 5
	// minutes by default. Then its events are lost, and counted.
	WebhookRetry, WebhookTime time.Duration
	// Log receives what an operator should know; by default slog.Default().
	Log *slog.Logger
}

func (o Options) withDefaults() Options {
	o.ActivityTimeout = cmp.Or(o.ActivityTimeout, 2*time.Minute)
	o.CacheBytes = cmp.Or(o.CacheBytes, 64<<20)
	o.CacheTime = cmp.Or(o.CacheTime, 30*time.Minute)
	o.ResumeBytes = cmp.Or(o.ResumeBytes, 64<<20)
	o.WebhookRetry = cmp.Or(o.WebhookRetry, time.Second)
	o.WebhookTime = cmp.Or(o.WebhookTime, 5*time.Minute)
	if o.Log == nil {
		o.Log = slog.Default()
	}
	return o
}
