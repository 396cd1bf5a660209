package tuning

import "time"

// Demand is what is wanted of a machine.
type Demand struct {
	Conns     int           // connections
	Server    bool          // the server's end of each lives here
	Generator bool          // the generator's end does
	Private   bool          // reactors have descriptor tables of their own
	Sources   int           // the generator's source addresses; 0 if there are as many as it takes
	Targets   int           // the server's addresses × ports
	Fanout    int           // bytes of a message that goes to all and may wait unread; 0 if there is none
	Ping      time.Duration // how long a connection may be silent before it is pinged; 0 is never
}

// ConnsMax is the largest demand that is taken seriously: above 2^30 no kernel
// lets a descriptor table grow.
const ConnsMax = 1 << 30

// SourcesUnknown says that source addresses are needed and could not be counted.
const SourcesUnknown = -1

// ends is how many sockets of each connection live on the machine.
func (d Demand) ends() float64 {
	n := 0.0
	if d.Server {
		n++
	}
	if d.Generator {
		n++
	}
	return n
}

// targets is how many of the server's address and port pairs there are, one at
// the least.
func (d Demand) targets() int { return max(1, d.Targets) }
