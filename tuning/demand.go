package tuning

import "time"

// Demand is what a machine should hold.
type Demand struct {
	Conns     int           // connections
	Server    bool          // the server is on this machine
	Generator bool          // the generator is on this machine
	TLS       bool          // lull does TLS at its ends: wss://
	Private   bool          // reactors have descriptor tables of their own
	Sources   int           // the generator's source addresses; 0 if there are as many as it takes
	Targets   int           // the server's addresses × ports
	Fanout    int           // bytes of a broadcast that every connection may have unread; 0 means none
	Ping      time.Duration // how long a connection may be silent before it is pinged; 0 if that does not matter
}

// ConnsMax is the largest Conns: no kernel lets a descriptor table grow beyond
// 2^30.
const ConnsMax = 1 << 30

// SourcesUnknown says that source addresses are needed and could not be counted.
const SourcesUnknown = -1

// ends is how many sockets a connection has on this machine: one or two.
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

// listeners is how many listening sockets the server has, at least one.
func (d Demand) listeners() int {
	if !d.Server {
		return 0
	}
	return d.targets()
}

// targets is how many pairs of address and port the server has, at least one.
func (d Demand) targets() int { return max(1, d.Targets) }
