package loadgen

import (
	"time"

	"github.com/seed-134acfd0/lull/netpoll"
)

// order is what the coordinator wants from a worker.
type order struct {
	kind   orderKind
	groups groupSet
	count  int           // how many connections
	rate   float64       // a second; 0 is no limit
	end    time.Duration // orderChurn, orderDrain: when to begin no more
	lasts  time.Duration // orderTalk: how long users send, from when they begin
	number uint32        // orderPublish, orderExpect: the first message's
	meant  time.Duration // orderPublish: when that was meant to be sent
	paused time.Duration // orderResume: how long the pause was

	message *message      // orderPublish, orderTalk
	window  int           // orderTalk: how many messages of a user may be unanswered; 0 is no limit
	report  chan<- report // orderReport
	token   netpoll.Token // orderTLS: the connection
}

type orderKind uint8

const (
	orderRamp    orderKind = iota // open connections of users that have none yet
	orderHalt                     // open no more of them
	orderPublish                  // send messages from some open connection
	orderExpect                   // the number of the next published message
	orderTalk                     // users send messages and wait for answers
	orderDeafen
	orderUndeafen // the deaf are read again
	orderCure     // and are like others from now on
	orderChurn    // end connections, and open each anew
	orderStorm    // cut connections off, and open them again
	orderDrain    // end connections
	orderRate     // the rate of what goes on
	orderPause    // begin nothing
	orderResume   // go on
	orderReport
	orderTLS // a TLS handshake, not the coordinator, wants something
	orderClose
	orderEnd
)

// groupSet is a set of groups, by their indexes. plan.GroupsMax is its size.
type groupSet uint64

func (s groupSet) has(group uint8) bool { return s>>group&1 != 0 }
