package server

import (
	"fmt"
	"log/slog"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/seed-134acfd0/lull/netpoll"
)

func TestTheZeroOptionsAreTheDefaults(t *testing.T) {
	o, err := Options{}.withDefaults(1)
	if err != nil {
		t.Fatal(err)
	}
	table, err := netpoll.DescriptorLimit()
	if err != nil {
		t.Fatal(err)
	}
	procs := netpoll.Processors()
	want := Options{
		Reactors: procs, Tables: netpoll.Private, MaxConns: netpoll.Room(netpoll.Private, table, procs, 1), Backlog: 65535,
		Mode: Workers, Workers: 16 * procs, MaxInboxMessages: 64, MaxInbox: 16 << 10, MaxInboxTotal: 64 << 20, InboxPolicy: InboxPause,
		MaxMessage: 64 << 10, MaxOutbox: 64 << 10, MaxOutboxMessages: 1024, MaxOutboxTotal: memory() / 8, OutboxPolicy: OutboxClose, MaxPartial: 256 << 20, MaxBroadcast: 8 << 20, MaxTopics: 1 << 20, MaxSubscriptions: 100,
		HandshakeTimeout: 10 * time.Second, MessageTimeout: time.Minute, WriteTimeout: time.Minute, CallTimeout: 10 * time.Second, IdleTimeout: 10 * time.Minute, CloseTimeout: 5 * time.Second, Grace: 10 * time.Second, DrainReturn: 30 * time.Second, StallAfter: 200 * time.Millisecond,
		MaxHTTP: 1000, CompressFrom: 256, Log: slog.Default(),
	}
	if !reflect.DeepEqual(o, want) {
		t.Errorf("defaults are\n%+v, want\n%+v", o, want)
	}
}

func TestOptionsThatAreSetAreKept(t *testing.T) {
	want := Options{
		Reactors: 3, Tables: netpoll.Shared, MaxConns: 77, Backlog: 5,
		Mode: Workers, Workers: 8, MaxInboxMessages: 9, MaxInbox: 10, MaxInboxTotal: 11, InboxPolicy: InboxClose,
		MaxMessage: 1, MaxOutbox: 2, MaxOutboxMessages: 12, MaxOutboxTotal: 13, OutboxPolicy: OutboxLatest, MaxPartial: 3, MaxBroadcast: 4, MaxTopics: 20, MaxSubscriptions: 21,
		HandshakeTimeout: -1, MessageTimeout: 10, WriteTimeout: 11, CallTimeout: 12, IdleTimeout: 6, CloseTimeout: -7, Grace: 8, DrainDelay: 17, DrainTime: 18, DrainReturn: -19, StallAfter: 9,
		PingAfter: 16, MaxHTTP: 14, CompressFrom: 15, Log: slog.New(slog.DiscardHandler),
	}
	if o, err := want.withDefaults(1); !reflect.DeepEqual(o, want) || err != nil {
		t.Errorf("%+v became %+v, %v", want, o, err)
	}
}

func TestInvalidOptionsAreRefused(t *testing.T) {
	rows := []struct {
		name  string
		o     Options
		words string // of the error
	}{
		{"negative drain", Options{DrainTime: -1}, "negative"},
		{"negative delay", Options{DrainDelay: -1}, "negative"},
		{"negative reactors", Options{Reactors: -1}, "negative"},
		{"negative connections", Options{MaxConns: -1}, "negative"},
		{"negative messages", Options{MaxMessage: -1}, "negative"},
		{"negative outboxes", Options{MaxOutbox: -1}, "negative"},
		{"negative outbox messages", Options{MaxOutboxMessages: -1}, "negative"},
		{"too many outbox messages", Options{MaxOutboxMessages: 1 << 30}, "at most"},
		{"negative debts", Options{MaxOutboxTotal: -1}, "negative"},
		{"no such policy", Options{OutboxPolicy: 9}, "no such"},
		{"no such mode", Options{Mode: 9}, "no such"},
		{"negative incomplete messages", Options{MaxPartial: -1}, "negative"},
		{"negative workers", Options{Workers: -1}, "negative"},
		{"negative queues", Options{MaxInboxMessages: -1}, "negative"},
		{"queues of negative bytes", Options{MaxInbox: -1}, "negative"},
		{"negative queues in all", Options{MaxInboxTotal: -1}, "negative"},
		{"negative broadcasts", Options{MaxBroadcast: -1}, "negative"},
		{"too many topics", Options{MaxTopics: 1 << 24}, "MaxTopics can be at most 16777215"},
		{"too many broadcasts", Options{MaxBroadcast: 1<<31 + 1}, "MaxBroadcast 2147483648"},
		{"too many reactors", Options{Mode: Inline, Reactors: reactorsMax + 1}, "1025 reactors with shared descriptor tables have no room"},
		{"too many reactors for their tables", Options{Tables: netpoll.Private, Reactors: 1 << 30}, "no room"},
		{"more connections than descriptors", Options{Reactors: 1, MaxConns: 1 << 31}, "use private tables and more reactors"},
		{"more connections than private descriptors", Options{Tables: netpoll.Private, Reactors: 2, MaxConns: 1 << 31}, "RLIMIT_NOFILE allows 2 reactors with private descriptor tables"},
		{"more connections than any number of reactors has", Options{Tables: netpoll.Private, MaxConns: 1 << 40}, "RLIMIT_NOFILE allows 1024 reactors"},
	}
	for _, row := range rows {
		if o, err := row.o.withDefaults(1); err == nil || !strings.Contains(err.Error(), row.words) || !strings.HasPrefix(err.Error(), "server: ") {
			t.Errorf("%s: %+v, %v, want %q", row.name, o, err, row.words)
		}
		if s, err := Listen([]string{"127.0.0.1:0"}, Handler{}, row.o); s != nil || err == nil {
			t.Errorf("%s: Listen returned %v, %v", row.name, s, err)
		}
	}
}

func TestIDsHoldSlotReactorAndGeneration(t *testing.T) {
	s := &Server{reactors: make([]*reactor, reactorsMax)}
	for i := range s.reactors {
		s.reactors[i] = &reactor{conns: conns{server: s, index: i}}
	}
	for _, token := range []netpoll.Token{{Slot: 0, Gen: 1}, {Slot: slotsMax - 1, Gen: 1<<32 - 1}, {Slot: 12345, Gen: 1 << 31}} {
		for _, index := range []int{0, 1, reactorsMax - 1} {
			c := Conn{server: s, id: uint64(token.Gen)<<32 | uint64(index)<<22 | uint64(token.Slot)}
			if r, got := c.reactor(), tokenOf(c.id); r != s.reactors[index] || got != token {
				t.Errorf("%v of reactor %d became %v of %d", token, index, got, r.index)
			}
		}
	}
}

func TestTheErrorsOfOptionsNameTheirNumbers(t *testing.T) {
	table, err := netpoll.DescriptorLimit()
	if err != nil {
		t.Fatal(err)
	}
	_, err = Options{Mode: Inline, Reactors: 2, MaxConns: table}.withDefaults(1)
	want := fmt.Sprintf("2 reactors with shared descriptor tables %d connections, not %d", netpoll.Room(netpoll.Shared, table, 2, 1), table)
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want %q", err, want)
	}
}

func TestSerialHasOneWorker(t *testing.T) {
	if o, err := (Options{Mode: Serial, Workers: 7}).withDefaults(1); o.Workers != 1 || err != nil {
		t.Errorf("%d workers, %v", o.Workers, err)
	}
}

func TestModesHaveNames(t *testing.T) {
	for _, want := range []Mode{Workers, Inline, Serial} {
		text, _ := want.MarshalText()
		var got Mode
		if err := got.UnmarshalText(text); got != want || err != nil {
			t.Errorf("%q became %v, %v", text, got, err)
		}
	}
	for _, want := range []InboxPolicy{InboxPause, InboxDrop, InboxClose} {
		text, _ := want.MarshalText()
		var got InboxPolicy
		if err := got.UnmarshalText(text); got != want || err != nil {
			t.Errorf("%q became %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "fibers"} {
		var m Mode
		var w InboxPolicy
		if m.UnmarshalText([]byte(text)) == nil || w.UnmarshalText([]byte(text)) == nil {
			t.Errorf("%q became %v and %v", text, m, w)
		}
	}
}
