package main

import (
	"errors"
	"time"

	"github.com/seed-134acfd0/lull/server/cluster"
	"github.com/seed-134acfd0/lull/server/rooms"
)

// roomsFlags say what clients see of rooms beside messages.
type roomsFlags struct {
	Presence     bool          `help:"With --mode=rooms, tell clients with the subprotocol lull.rooms.v1 who is in their room: those that have come with ?name=NAME."`
	MaxMembers   int           `help:"With --presence, maximum number of members of a room." default:"1000" range:"1..100000" placeholder:"N"`
	History      int           `help:"With --mode=rooms, how many messages of each room are kept for clients with the subprotocol lull.rooms.v1 that come back. All servers of a cluster keep some, or none does. 0, the default, means none." default:"0" range:"0..1000000" placeholder:"N" example:"100"`
	HistoryAge   time.Duration `help:"With --history, how long messages are kept." default:"5m" range:"1s..24h"`
	HistoryBytes int           `help:"With --history, maximum size of a room's messages that are kept, in bytes." default:"262144" range:"1..268435456" placeholder:"N"`
}

// check checks the flags.
func (f *roomsFlags) check(mode string) error {
	if mode != "rooms" && (f.Presence || f.History > 0) {
		return errors.New("--presence and --history: can only be used with --mode=rooms")
	}
	return nil
}

// options are what the flags say.
func (f *roomsFlags) options() rooms.Options {
	return rooms.Options{
		Presence: f.Presence, MaxMembers: f.MaxMembers,
		History: cluster.Limits{Messages: f.History, Age: f.HistoryAge, Bytes: f.HistoryBytes},
	}
}
