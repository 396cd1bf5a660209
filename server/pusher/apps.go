package pusher

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"golang.org/x/time/rate"
)

// app is an application as long as the process lives. What is known of it changes with
// Pusher.Reload.
type app struct {
	index       uint16
	id          string
	config      atomic.Pointer[config] // nil once it was removed
	connections atomic.Int64
	pace        *rate.Limiter // of what is published by the API
	senders     atomic.Pointer[[]*sender]
}

// apps are all applications.
type apps struct {
	mu    sync.RWMutex
	byKey map[string]*app // guarded by mu
	byID  map[string]*app // guarded by mu, with those that were removed
	all   []*app          // guarded by mu, by index
}

// set replaces the applications. It changes nothing if there is an error.
func (a *apps) set(list []App) error {
	configs := make([]*config, len(list))
	ids, keys := map[string]bool{}, map[string]bool{}
	for i := range list {
		c, err := newConfig(list[i])
		switch {
		case err != nil:
			return fmt.Errorf("app %q: %w", list[i].ID, err)
		case ids[c.ID]:
			return fmt.Errorf("app %q: there are two of this id", c.ID)
		case keys[c.Key]:
			return fmt.Errorf("app %q: there are two of its key", c.ID)
		}
		configs[i], ids[c.ID], keys[c.Key] = c, true, true
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	added := 0
	for _, c := range configs {
		if a.byID[c.ID] == nil {
			added++
		}
	}
	if len(a.all)+added > appsMost {
		return errors.New("there were too many apps since the start")
	}
	byKey := map[string]*app{}
	for _, c := range configs {
		one := a.byID[c.ID]
		if one == nil {
			one = &app{index: uint16(len(a.all)), id: c.ID, pace: rate.NewLimiter(rate.Inf, 0)}
			a.all = append(a.all, one)
			a.byID[c.ID] = one
		}
		one.pace.SetLimit(rate.Inf)
		if n := c.Limits.Events; n > 0 {
			one.pace.SetBurst(max(n, c.Limits.EventChannels*c.Limits.Batch))
			one.pace.SetLimit(rate.Limit(n))
		}
		one.config.Store(c)
		byKey[c.Key] = one
	}
	for id, one := range a.byID {
		if !ids[id] {
			one.config.Store(nil)
		}
	}
	a.byKey = byKey
	return nil
}

func (a *apps) ofKey(key string) *app {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.byKey[key]
}

func (a *apps) ofID(id string) *app {
	a.mu.RLock()
	defer a.mu.RUnlock()
	if one := a.byID[id]; one != nil && one.config.Load() != nil {
		return one
	}
	return nil
}

// of returns the app of the connection of a Tag.
func (a *apps) of(tag uint64) *app {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.all[uint16(tag>>tagApp)]
}

// list returns all that are there.
func (a *apps) list() (all []*app) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	for _, one := range a.all {
		if one.config.Load() != nil {
			all = append(all, one)
		}
	}
	return all
}
