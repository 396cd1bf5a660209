package experiment

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"text/tabwriter"
	"time"

	"github.com/seed-134acfd0/lull/loadgen"
	"github.com/seed-134acfd0/lull/loadgen/measure"
	"github.com/seed-134acfd0/lull/loadgen/plan"
	"github.com/seed-134acfd0/lull/tuning"
)

// UsersConfig says how to measure the memory of idle connections that are more than open.
type UsersConfig struct {
	Backend string // the program
	Conns   []int
	Kinds   []string // by name; all if there are none
	Say     func(format string, args ...any)
}

// Users is the memory of idle connections of a kind. ServerSlope is that of the times at which
// part of them were open and nothing came or left.
type Users struct {
	Kind       string  `json:"kind"`
	Conns      int     `json:"conns"` // that were to open
	Open       int     `json:"open"`  // a backend may refuse some while it is in haste
	Memory     Memory  `json:"memory"`
	Most       float64 `json:"most_server_bytes_per_connection"` // while connections came, in all
	Handshakes float64 `json:"handshakes_per_second"`
	CPU        float64 `json:"handshake_cpu_us"` // of lull, for a connection until it is idle
}

// usersKind is what connections are beside open.
type usersKind struct {
	name, title string
	path        string
	serve       func(ctx context.Context, config *UsersConfig) (flags []string, end func(), err error)
	greeting    func(user int, dst, greeting []byte) []byte // what they answer to the first message; nil for nothing
}

var usersKinds = []usersKind{
	{name: "hooks", title: "hooks: a user and a topic", path: "/", serve: serveHooks},
	{name: "channel", title: "Pusher: a channel of 10", path: pusherPath, serve: servePusher, greeting: subscribeTo("channel", 10)},
	{name: "news", title: "Pusher: the same channel", path: pusherPath, serve: servePusher, greeting: subscribeTo("news", plan.UsersMax)},
	{name: "presence", title: "Pusher: a presence channel of 10, 100 bytes each", path: pusherPath, serve: servePusher, greeting: enter},
}

// Connections open in steps. After each they are idle for so long, in which lull gives back what
// the handshakes have left in its heap.
const (
	usersSteps = 4
	usersHold  = 12 * time.Second
	usersRate  = 5_000 // a second, so that handshakes do not pile up on two processors
)

// MeasureUsers measures each kind with each number of connections. On an error it returns what
// there is.
func MeasureUsers(ctx context.Context, config UsersConfig) (rows []Users, err error) {
	machine, err := tuning.Read("/")
	if err != nil {
		return nil, err
	}
	raised := raiseLimits(machine, tuning.Demand{Conns: slices.Max(config.Conns), Server: true, Generator: true, Private: true, Targets: 1, Fanout: 1}, config.Say)
	defer func() { err = errors.Join(err, raised.Restore()) }()
	for i := range usersKinds {
		k := &usersKinds[i]
		if len(config.Kinds) > 0 && !slices.Contains(config.Kinds, k.name) {
			continue
		}
		for _, conns := range config.Conns {
			config.Say("%s connections; %s", count(float64(conns)), k.title)
			row, err := k.measure(ctx, &config, conns)
			if err != nil {
				return rows, err
			}
			rows = append(rows, row)
		}
	}
	return rows, nil
}

func (k *usersKind) measure(ctx context.Context, config *UsersConfig, conns int) (row Users, err error) {
	flags, end, err := k.serve(ctx, config)
	if err != nil {
		return row, err
	}
	defer end()
	lull, err := self()
	if err != nil {
		return row, err
	}
	server, err := start(ctx, lull, append([]string{"serve", "--listen", "127.0.0.1:0", "--max-conns", strconv.Itoa(conns + 10), "--max-topics", strconv.Itoa(conns + 100),
		"--idle-timeout", "0s", "--admin=", "--status", "0s"}, flags...)...)
	if err != nil {
		return row, err
	}
	defer server.kill()
	url, err := plan.ParseText("ws://" + server.addr + k.path)
	if err != nil {
		return row, err
	}
	var subscribed atomic.Int64
	o := observe(server.cmd.Process.Pid)
	c := loadgen.Config{Plan: usersPlan(url, conns), ConnectTimeout: time.Minute, Sinks: []measure.Sink{o}}
	if k.greeting != nil {
		c.Reply = func(user int, dst, message []byte) []byte {
			switch {
			case strings.Contains(string(message), "connection_established"):
				return k.greeting(user, dst, message)
			case strings.Contains(string(message), "subscription_succeeded"):
				subscribed.Add(1)
			}
			return dst
		}
	}
	res, err := loadgen.Run(ctx, c)
	switch {
	case err != nil:
		return row, err
	case res.Open < conns/2:
		return row, fmt.Errorf("experiment: users: %d of %d connections are open: %v", res.Open, conns, res.Errors)
	case k.greeting != nil && int(subscribed.Load()) < res.Open:
		return row, fmt.Errorf("experiment: users: %d of %d connections are subscribed", subscribed.Load(), res.Open)
	}
	return k.row(o, conns, res.Open), nil
}

// usersPlan opens connections in steps, and lets them be after each. The last step's phases are
// called ramp and hold.
func usersPlan(url *plan.Text, conns int) *plan.Plan {
	p := &plan.Plan{Groups: []plan.Group{{Name: "users", Users: conns, URLs: []*plan.Text{url}}}}
	for step := range usersSteps {
		number := ""
		if step < usersSteps-1 {
			number = fmt.Sprintf(" %d", step+1)
		}
		users := conns*(step+1)/usersSteps - conns*step/usersSteps
		p.Phases = append(p.Phases,
			plan.Phase{Name: "ramp" + number, Kind: plan.Ramp, Users: users, Rate: usersRate},
			plan.Phase{Name: "hold" + number, Kind: plan.Hold, For: usersHold})
	}
	return p
}

// row is what was observed.
func (k *usersKind) row(o *observer, conns, open int) Users {
	row := Users{Kind: k.name, Conns: conns, Open: open, Memory: memory(o, open)}
	var idle []Sample
	seconds, used := 0.0, 0.0
	for _, c := range o.cost() {
		switch {
		case strings.HasPrefix(c.Phase, "hold"):
			idle = append(idle, o.lastOf(c.Phase))
		case strings.HasPrefix(c.Phase, "ramp"):
			seconds, used = seconds+c.Seconds, used+c.ServerCPU
			for _, s := range o.during(c.Phase) {
				row.Most = max(row.Most, float64(s.Server-o.samples[0].Server)/float64(open))
			}
		}
	}
	row.Memory.ServerSlope = slopeOf(idle, func(s Sample) int64 { return s.Server })
	row.Handshakes, row.CPU = float64(open)/seconds, used/float64(open)*micro
	return row
}

// serveHooks has a backend give each connection a user of its own, and all one topic.
func serveHooks(ctx context.Context, config *UsersConfig) (flags []string, end func(), err error) {
	backend, err := start(ctx, config.Backend, "-users")
	if err != nil {
		return nil, nil, err
	}
	return []string{"--mode", "hooks", "--hook", "http://" + backend.addr + "/", "--hook-concurrency", "32", "--hook-connect-timeout", "9s", "--api="}, backend.kill, nil
}

// The app of those that speak Pusher Channels' protocol.
const (
	pusherKey    = "key"
	pusherSecret = "secret"
	pusherPath   = "/app/" + pusherKey + "?protocol=7"
)

func servePusher(context.Context, *UsersConfig) (flags []string, end func(), err error) {
	return []string{"--mode", "pusher", "--pusher-app", "1:" + pusherKey + ":" + pusherSecret}, func() {}, nil
}

// subscribeTo subscribes users to channels, so many to each.
func subscribeTo(name string, together int) func(int, []byte, []byte) []byte {
	return func(user int, dst, _ []byte) []byte {
		return fmt.Appendf(dst, `{"event":"pusher:subscribe","data":{"channel":"%s-%d"}}`, name, user/together)
	}
}

// enter subscribes users to presence channels, ten to each, as members of whom there is a hundred
// bytes to be known.
func enter(user int, dst, greeting []byte) []byte {
	const infoSize = 100
	_, rest, _ := strings.Cut(string(greeting), `socket_id\":\"`)
	socket, _, _ := strings.Cut(rest, `\"`)
	channel := fmt.Sprintf("presence-%d", user/10)
	info := fmt.Sprintf(`{"name":"%0*d"}`, infoSize-len(`{"name":""}`), user)
	data := fmt.Sprintf(`{"user_id":"user-%07d","user_info":%s}`, user, info)
	mac := hmac.New(sha256.New, []byte(pusherSecret))
	fmt.Fprintf(mac, "%s:%s:%s", socket, channel, data)
	return fmt.Appendf(dst, `{"event":"pusher:subscribe","data":{"channel":%q,"auth":"%s:%x","channel_data":%q}}`, channel, pusherKey, mac.Sum(nil), data)
}

// WriteUsers prints what was measured.
func WriteUsers(w io.Writer, rows []Users) error {
	if len(rows) == 0 {
		return nil
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "idle connections\t\tuser space of each, slope\tin all, of each\tat the most, while they come\tkernel, both ends\thandshakes\tlull's processor time of each\t")
	for _, r := range rows {
		slope := "not measured"
		if s := r.Memory.ServerSlope; s != nil {
			slope = fmt.Sprintf("%.1f B ±%.1f", s.Bytes, s.Error)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%.1f B\t%.1f B\t%.0f B\t%.0f/s\t%.1f µs\t\n", r.title(), count(float64(r.Open)), slope, r.Memory.ServerPerConn, r.Most, r.Memory.KernelPerConn, r.Handshakes, r.CPU)
	}
	return t.Flush()
}

func (r *Users) title() string {
	for _, k := range usersKinds {
		if k.name == r.Kind {
			return k.title
		}
	}
	return r.Kind
}
