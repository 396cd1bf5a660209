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

	HistoryStream      bool   `help:"With --history and --nats, keep the messages in a stream of NATS' JetStream, too, so that they are there when all servers were restarted. All servers of a cluster have it, or none has."`
	HistoryStore       string `help:"With --history, for a server without others: keep the messages in this directory, too, so that they are there when the server was restarted." placeholder:"DIR" predictor:"file" example:"/var/lib/lull"`
	HistoryStreamBytes int64  `help:"With --history-stream or --history-store, maximum size of all messages on disk, in bytes. The oldest go first." default:"1073741824" range:"1048576..1099511627776" placeholder:"N"`
}

// check checks the flags.
func (f *roomsFlags) check(mode string, c *clusterFlags) error {
	stored := f.HistoryStream || f.HistoryStore != ""
	switch {
	case mode != "rooms" && (f.Presence || f.History > 0):
		return errors.New("--presence and --history: can only be used with --mode=rooms")
	case stored && f.History == 0:
		return errors.New("--history-stream and --history-store: need --history, how many messages of each room are kept")
	case stored && c.Cluster != "":
		return errors.New("--history-stream and --history-store: cannot be used with --cluster, whose servers have nothing that outlives them: use --history-stream and --nats")
	case f.HistoryStream && c.NATS == "":
		return errors.New("--history-stream: needs --nats, a NATS server with JetStream; a server without others keeps messages with --history-store")
	case f.HistoryStore != "" && c.NATS != "":
		return errors.New("--history-store: cannot be used with --nats: use --history-stream")
	}
	return nil
}

// stream is what is kept on disk, nil if nothing is.
func (f *roomsFlags) stream() *cluster.Stream {
	if !f.HistoryStream && f.HistoryStore == "" {
		return nil
	}
	return &cluster.Stream{Messages: f.History, Age: f.HistoryAge, Bytes: f.HistoryStreamBytes}
}

// options are what the flags say.
func (f *roomsFlags) options() rooms.Options {
	return rooms.Options{
		Presence: f.Presence, MaxMembers: f.MaxMembers,
		History: cluster.Limits{Messages: f.History, Age: f.HistoryAge, Bytes: f.HistoryBytes},
	}
}
