package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Stream is how much a stream of the broker's JetStream keeps of topics with a history.
type Stream struct {
	Messages int           // of each topic: the most that Options.History says of any
	Age      time.Duration // of a message at most; 0 is no limit
	Bytes    int64         // on disk, of all topics, 1 GiB by default; the oldest messages go first
}

// ErrStream says that the broker cannot keep messages (Options.Stream), and why.
var ErrStream = errors.New("cluster: messages cannot be kept in a stream")

const (
	streamBytes = 1 << 30         // Stream.Bytes' default
	streamWait  = 5 * time.Second // for JetStream to answer
)

// config is what the stream is to be. What is not named here is left as it is found.
func (n *Node) config() jetstream.StreamConfig {
	s := n.options.Stream
	return jetstream.StreamConfig{
		Name: n.subjects.stream, Subjects: []string{n.subjects.kept + "*", n.subjects.gaps}, Storage: jetstream.FileStorage,
		MaxMsgsPerSubject: int64(s.Messages), MaxAge: s.Age, MaxBytes: s.Bytes, MaxMsgs: -1, MaxMsgSize: -1,
		Retention: jetstream.LimitsPolicy, Discard: jetstream.DiscardOld, AllowDirect: true,
	}
}

// openStream makes the stream unless it is there. With limit it gives one that is there the limits that it is to
// have.
func (n *Node) openStream(ctx context.Context, l *link, limit bool) error {
	ctx, cancel := context.WithTimeout(ctx, streamWait)
	defer cancel()
	err := n.tryOpenStream(ctx, l.streams, limit)
	if errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) { // another node has just made it, with other limits
		err = n.tryOpenStream(ctx, l.streams, limit)
	}
	if err == nil {
		return nil
	}
	if errors.Is(err, nats.ErrNoResponders) {
		err = jetstream.ErrJetStreamNotEnabled
	}
	if refused := l.nats.LastError(); refused != nil && errors.Is(err, context.DeadlineExceeded) {
		err = refused // a request that is not permitted is not answered
	}
	return fmt.Errorf("%w: NATS at %s: %w", ErrStream, n.options.where(), err)
}

func (n *Node) tryOpenStream(ctx context.Context, streams jetstream.JetStream, limit bool) error {
	want := n.config()
	is, err := streams.Stream(ctx, want.Name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		if is, err = streams.CreateStream(ctx, want); err == nil && !is.CachedInfo().Config.AllowDirect {
			err = errors.New("JetStream of NATS 2.9 or newer is needed")
		}
		return err
	}
	if err != nil {
		return err
	}
	have := is.CachedInfo().Config
	change := have
	change.MaxMsgsPerSubject, change.MaxAge, change.MaxBytes = want.MaxMsgsPerSubject, want.MaxAge, want.MaxBytes
	change.MaxMsgs, change.MaxMsgSize, change.Discard, change.AllowDirect = want.MaxMsgs, want.MaxMsgSize, want.Discard, want.AllowDirect
	switch {
	case !slices.Equal(have.Subjects, want.Subjects) || have.Retention != want.Retention || have.Sealed || have.NoAck:
		return fmt.Errorf("the stream %s is there, and is another one: remove it, or give the cluster another name", want.Name)
	case !limit, have.MaxMsgsPerSubject == want.MaxMsgsPerSubject && have.MaxAge == want.MaxAge && have.MaxBytes == want.MaxBytes && have.MaxMsgs == want.MaxMsgs &&
		have.MaxMsgSize == want.MaxMsgSize && have.Discard == want.Discard && have.AllowDirect:
		return nil
	}
	change.Duplicates = 0 // or it may be longer than MaxAge
	_, err = streams.UpdateStream(ctx, change)
	return err
}

// attendStream keeps the stream there, and reads from it what is asked for, while a link lasts.
func (n *Node) attendStream(ctx context.Context, l *link) {
	reader, err := newReader(n, l)
	if err != nil {
		return // the link has ended
	}
	tick := time.NewTicker(n.options.pace.beat)
	defer tick.Stop()
	for {
		reader.readAll(ctx)
		select {
		case <-ctx.Done():
			return
		case <-n.reads:
			continue
		case <-tick.C:
		}
		_ = n.compareStores() // which is said behind the mark
		if n.store.due(n.now()) {
			n.mark(ctx, l)
		}
	}
}

// compareStores doubts the stream while a living node does not use it, and returns that as an
// error.
func (n *Node) compareStores() (why error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, p := range n.peers.byID {
		if p.alive && !p.stores {
			why = fmt.Errorf("node %s has no stream", p.name)
			n.store.doubt()
		}
	}
	return why
}

// mark has the stream say that something may be missing up to now.
func (n *Node) mark(ctx context.Context, l *link) {
	doubts := n.store.marking()
	err := n.openStream(ctx, l, false) // it may have been removed
	if err == nil {
		bounded, cancel := context.WithTimeout(ctx, streamWait)
		defer cancel()
		_, err = l.streams.Publish(bounded, n.subjects.gaps, head{kindGap, n.id, uint64(today())}.append(nil), jetstream.WithRetryAttempts(0))
	}
	if ctx.Err() != nil {
		return
	}
	if err == nil {
		n.counts.marks.Add(1)
		err = n.compareStores()
	}
	switch news := n.store.marked(doubts, err); {
	case news && err != nil:
		n.options.Log.Warn("the stream does not keep all messages: if all nodes were restarted now, some would be missing", "error", err)
	case news:
		n.options.Log.Info("the stream keeps all messages again")
	}
}
