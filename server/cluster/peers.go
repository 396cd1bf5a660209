package cluster

import (
	"encoding/json"
	"strconv"
	"time"
)

// hello is what a node tells of itself every second, to nodes of all versions, in JSON.
type hello struct {
	Protocol int    `json:"protocol"`
	ID       string `json:"id"` // random, 16 hexadecimal digits
	Name     string `json:"name"`
	Age      int64  `json:"age_ms"` // since it began
	// Joining asks all nodes to answer; the sender has published nothing yet. Back asks them
	// too: the sender has its broker again.
	Joining bool `json:"joining,omitempty"`
	Back    bool `json:"back,omitempty"`
	Leaving bool `json:"leaving,omitempty"` // its last word
	// Personal must be the same on all nodes, or they would look for topics in different places.
	Personal []string `json:"personal"`
	// History must be the same, too: what nodes publish that keep nothing has no positions.
	History  bool   `json:"history,omitempty"`
	Stream   bool   `json:"stream,omitempty"`   // what it publishes is stored
	Presence []byte `json:"presence,omitempty"` // of package presence
}

// readHello returns the hello and its ID.
func readHello(b []byte) (h hello, id uint64, ok bool) {
	if len(b) > helloMax || json.Unmarshal(b, &h) != nil || !isName(h.Name, true) || len(h.ID) != 16 || h.Age < 0 {
		return h, 0, false
	}
	id, err := strconv.ParseUint(h.ID, 16, 64)
	return h, id, err == nil
}

// peer is another node.
//
//	unknown → joins → alive ⇄ dead → unknown
type peer struct {
	id     uint64
	name   string
	heard  time.Duration // its last hello
	alive  bool
	met    bool          // it was alive once
	begun  time.Duration // when it began, at the latest, by this node's clock
	stores bool          // what it publishes is stored
	born   bool          // it was heard joining: it has said nothing before begun
}

// peers are the other nodes. It reads no clock.
type peers struct {
	byID  map[uint64]*peer
	death time.Duration
}

func newPeers(death time.Duration) *peers { return &peers{byID: map[uint64]*peer{}, death: death} }

// makeRoom sees to it that there is room for a node. If need be it forgets the dead one that
// has been silent for longest. It returns false if all are alive.
func (ps *peers) makeRoom(id uint64) (forgotten *peer, ok bool) {
	if ps.byID[id] != nil || len(ps.byID) < nodesMax {
		return nil, true
	}
	for _, p := range ps.byID {
		if !p.alive && (forgotten == nil || p.heard < forgotten.heard) {
			forgotten = p
		}
	}
	if forgotten == nil {
		return nil, false
	}
	delete(ps.byID, forgotten.id)
	return forgotten, true
}

// hear takes a hello, for which there is room. came is true if the node is alive now and was not before.
func (ps *peers) hear(id uint64, h *hello, now time.Duration) (p *peer, came bool) {
	if p = ps.byID[id]; p == nil {
		p = &peer{id: id, name: h.Name, begun: now - time.Duration(h.Age)*time.Millisecond}
		if h.Joining {
			p.begun, p.born = now, true
		}
		ps.byID[id] = p
	}
	p.heard, p.stores = now, h.Stream
	if !p.alive && !h.Joining {
		p.alive, came = true, true
	}
	return p, came
}

// leave makes a node dead that says so.
func (ps *peers) leave(id uint64) *peer {
	p := ps.byID[id]
	if p == nil || !p.alive {
		return nil
	}
	p.alive = false
	return p
}

// namesakes are the living nodes of a name but one. A node that has come with their name was
// not contradicted: they are gone, and it is their successor.
func (ps *peers) namesakes(name string, but uint64) (ids []uint64) {
	for id, p := range ps.byID {
		if p.alive && p.name == name && id != but {
			ids = append(ids, id)
		}
	}
	return ids
}

// silent returns the living nodes that were silent for too long, and those that were silent
// for so long that nothing needs to be known of them any more, which it forgets.
func (ps *peers) silent(now time.Duration) (dead, forgotten []*peer) {
	for id, p := range ps.byID {
		switch silence := now - p.heard; {
		case p.alive && silence > ps.death:
			dead = append(dead, p)
		case !p.alive && silence > seriesLife:
			delete(ps.byID, id)
			forgotten = append(forgotten, p)
		}
	}
	return dead, forgotten
}

// living are the IDs of the living nodes.
func (ps *peers) living() map[uint64]bool {
	ids := map[uint64]bool{}
	for id, p := range ps.byID {
		if p.alive {
			ids[id] = true
		}
	}
	return ids
}

func (ps *peers) isAlive(id uint64) bool {
	p := ps.byID[id]
	return p != nil && p.alive
}

// name is a node's name, or its ID.
func (ps *peers) name(id uint64) string {
	if p := ps.byID[id]; p != nil {
		return p.name
	}
	return hex(id)
}

// startSlack is how late a hello may be for its age to tell when its node began.
const startSlack = 5 * time.Second

// began reports whether a node began after a time, so that all that it has said was said
// since.
func (ps *peers) began(id uint64, after time.Duration) bool {
	p := ps.byID[id]
	return p != nil && (p.born && p.begun >= after || p.begun-startSlack > after)
}
