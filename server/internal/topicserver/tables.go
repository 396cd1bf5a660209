package main

import (
	"fmt"
	"math/rand/v2"
	"runtime"

	"github.com/seed-134acfd0/lull/server/internal/topics"
)

// tableFigures are what the tables alone take.
type tableFigures struct {
	Conns             int     `json:"conns"`
	Reactors          int     `json:"reactors"`
	Subscriptions     int     `json:"subscriptions"`
	Topics            int     `json:"topics"`
	SubscriptionBytes float64 `json:"subscription_bytes"` // as that of figures
}

// tables measures what subscriptions take, of connections that are nothing but slots and
// are spread over reactors by chance.
func tables(reactors, conns int) (f tableFigures, err error) {
	f = tableFigures{Conns: conns, Reactors: reactors, Subscriptions: each * conns, Topics: each * conns / perTopic}
	d, err := topics.NewDirectory(f.Topics, reactors, false)
	if err != nil {
		return f, err
	}
	of := make([]*topics.Subscriptions, reactors)
	for i := range of {
		if of[i], err = topics.NewSubscriptions(d, i, conns, each); err != nil {
			return f, err
		}
	}
	used := make([]uint32, reactors)
	rng := rand.New(rand.NewPCG(1, 1))
	before, err := anonymous()
	if err != nil {
		return f, err
	}
	for i := range conns {
		reactor := rng.IntN(reactors)
		slot := used[reactor]
		used[reactor]++
		for k := range each {
			name := fmt.Sprintf("room:%07d", (each*i+k)%f.Topics)
			b, err := d.Subscribe(name, reactor)
			if err != nil {
				return f, err
			}
			if !of[reactor].Reserve(slot) || !of[reactor].Join(slot, b.ID()) {
				return f, fmt.Errorf("connection %d cannot subscribe to %s", i, name)
			}
		}
	}
	after, err := anonymous()
	runtime.KeepAlive(of)
	f.SubscriptionBytes = (after - before) / float64(f.Subscriptions)
	return f, err
}
