package testkit

import (
	"sync"
	"sync/atomic"
)

// Repeat calls each function again and again, on a goroutine of its own, until
// stop is called. stop returns when all calls have returned.
func Repeat(functions ...func()) (stop func()) {
	done := make(chan struct{})
	var running sync.WaitGroup
	for _, f := range functions {
		running.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
					f()
				}
			}
		})
	}
	return func() {
		close(done)
		running.Wait()
	}
}

// Garbage makes garbage, so that the calling thread takes part in collections.
func Garbage() { garbage.Store(new([16 << 10]byte)) }

var garbage atomic.Pointer[[16 << 10]byte] // keeps the array on the heap
