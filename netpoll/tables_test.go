package netpoll

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestTablesHaveNames(t *testing.T) {
	for _, want := range []Tables{Auto, Shared, Private} {
		text, _ := want.MarshalText()
		var got Tables
		if err := got.UnmarshalText(text); err != nil || got != want {
			t.Errorf("%s became %v, %v", text, got, err)
		}
	}
	if new(Tables).UnmarshalText([]byte("both")) == nil {
		t.Error("«both» is a kind of tables")
	}
}

func TestRoomLeavesDescriptorsForEverythingElse(t *testing.T) {
	const table = 1000 + descriptorsKept
	rows := []struct {
		tables                            Tables
		table, reactors, listeners, conns int
	}{
		{Shared, table, 1, 0, 998}, // an epoll set and an eventfd
		{Shared, table, 4, 2, 990},
		{Auto, table, 4, 2, 990},
		{Shared, table, 500, 0, 0},
		{Shared, 66, 1, 1, 0},
		{Private, table, 1, 0, 998},
		{Private, table, 4, 0, 4 * 995}, // an epoll set and four eventfds in each
		{Private, table, 4, 2, 4 * 993},
		{Private, table, 999, 0, 0},
		{Private, table, 5000, 0, 0},
	}
	for _, r := range rows {
		if got := Room(r.tables, r.table, r.reactors, r.listeners); got != r.conns {
			t.Errorf("%d %v tables of %d with %d listeners: room for %d, want %d", r.reactors, r.tables, r.table, r.listeners, got, r.conns)
		}
	}
}

func TestReactorsAreAsManyAsConnectionsNeed(t *testing.T) {
	const table = 1001 + descriptorsKept // 1000 for connections and eventfds
	rows := []struct {
		tables                  Tables
		conns, processors, want int
	}{
		{Shared, 10 * table, 3, 3},
		{Auto, 10 * table, 3, 3},
		{Private, 0, 3, 3},
		{Private, 3 * 997, 3, 3},
		{Private, 3*997 + 1, 3, 4},
		{Private, 100 * 900, 1, 100},
		{Private, 500 * 500, 1, 500},
		{Private, 500*500 + 1, 1, 500}, // too many, so the most
		{Private, 1 << 40, 1, 500},
		{Private, 1 << 40, 700, 700},
	}
	for _, r := range rows {
		if got := ReactorsFor(r.tables, table, r.conns, 0, r.processors); got != r.want {
			t.Errorf("%d connections with %v tables and %d processors: %d reactors, want %d", r.conns, r.tables, r.processors, got, r.want)
		}
	}
	if got := ReactorsFor(Private, 10, 1000, 1, 2); got != 2 {
		t.Errorf("%d reactors for a table without room, want one for each processor", got)
	}
}

func TestTheDescriptorLimitIsTheProcesss(t *testing.T) {
	if asProcess(t) {
		return
	}
	for limit, want := range map[uint64]int{512: 512, 300: 300} {
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: limit, Max: 512}); err != nil {
			t.Fatal(err)
		}
		if got, err := DescriptorLimit(); got != want || err != nil {
			t.Errorf("a limit of %d is %d, %v", limit, got, err)
		}
	}
}

func TestReserveEnlargesTheTableOnce(t *testing.T) {
	if asProcess(t) {
		return
	}
	Reserve(10_000)
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		var size int
		if n, _ := fmt.Sscanf(line, "FDSize: %d", &size); n == 1 && size < 10_000 {
			t.Errorf("room for %d descriptors", size)
		}
	}
	Reserve(1 << 30) // cut to the limit
}
