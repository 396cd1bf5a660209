package experiment

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestAVisitorNoticesWhatIsMissingAndWhatCameTwice(t *testing.T) {
	v := &visitor{heard: map[string]*heard{}}
	for _, text := range []string{"a 3 xxx", "a 4 xxx", "b 1", "a 4 xxx", "a 6 xxx", "a 5 xxx"} {
		if err := v.hear(text); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := v.of("a"), (heard{count: 3, first: 3, last: 6, wrong: 2}); got != want {
		t.Errorf("a: %+v, not %+v", got, want)
	}
	if got, want := v.of("b"), (heard{count: 1, first: 1, last: 1}); got != want {
		t.Errorf("b: %+v, not %+v", got, want)
	}
	if got := v.of("c"); got != (heard{}) {
		t.Errorf("c: %+v", got)
	}
	if err := v.hear("nonsense"); err == nil {
		t.Error("nonsense is heard")
	}
}

func TestASlowLinkSpreadsWhatPasses(t *testing.T) {
	s := &slowLink{delay: 200 * time.Millisecond, rate: 1000}
	begin := time.Now()
	at := func(ms int) time.Time { return begin.Add(time.Duration(ms) * time.Millisecond) }
	var last time.Time
	for _, step := range []struct{ read, bytes, passes int }{
		{0, 100, 300}, {0, 100, 400}, {10, 50, 450}, {1000, 100, 1300},
	} {
		last = s.due(last, packet{make([]byte, step.bytes), at(step.read)})
		if want := at(step.passes); !last.Equal(want) {
			t.Errorf("%d bytes that were read at %d ms pass at %v, not %d ms", step.bytes, step.read, last.Sub(begin), step.passes)
		}
	}
}

// What passes arrives whole and in order, slow or not, and close ends what is open.
func TestASlowLinkPassesEverything(t *testing.T) {
	echo, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer echo.Close()
	go func() {
		for {
			c, err := echo.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(c, c) }()
		}
	}()
	s, err := newSlowLink("127.0.0.1:0", echo.Addr().String(), time.Millisecond, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp", s.addr())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	sent := slices.Repeat([]byte("0123456789"), 10_000)
	for range 2 {
		go func() { _, _ = c.Write(sent) }()
		got := make([]byte, len(sent))
		if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, sent) {
			t.Fatalf("it is not the same: %v", err)
		}
		if s.delay > 0 {
			s.ease()
			s.delay = 0
		}
	}
	s.close()
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("it is still open")
	}
}

// inLab is an environment variable: the test program tries a lab in the network namespace in
// which it is.
const inLab = "LULL_TEST_LAB"

// tryLab connects two machines, cuts one off, and connects it again.
func tryLab() error {
	l, err := newLab(2)
	if err != nil {
		return err
	}
	defer l.close()
	one, other := l.machines[0], l.machines[1]
	var listener net.Listener
	if err := other.do(func() (err error) {
		listener, err = net.Listen("tcp", other.backbone+":0")
		return err
	}); err != nil {
		return err
	}
	defer listener.Close()
	dial := func() error {
		return one.do(func() error {
			c, err := net.DialTimeout("tcp", listener.Addr().String(), 200*time.Millisecond)
			if err == nil {
				_ = c.Close()
			}
			return err
		})
	}
	dials := func() error {
		err := errors.New("not tried")
		for deadline := time.Now().Add(20 * time.Second); err != nil && time.Now().Before(deadline); {
			err = dial()
		}
		return err
	}
	if err := dials(); err != nil {
		return err
	}
	if from, to, err := other.traffic(); err != nil || from == 0 || to == 0 {
		return fmt.Errorf("%d bytes from it, %d to it: %w", from, to, err)
	}
	if err := other.cut(); err != nil {
		return err
	}
	if dial() == nil {
		return errors.New("it is not cut off")
	}
	if err := other.mend(); err != nil {
		return err
	}
	return dials()
}

func TestAMachineOfALabCanBeCutOff(t *testing.T) {
	space := newNamespace(t, 1024)
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), inLab+"=1")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := space.Start(cmd); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v: %s", err, &out)
	}
}

func TestWhatANodeSaysToBeLostIsAddedUp(t *testing.T) {
	var f told
	const text = `{"stats":{"Nodes":["b"],"Received":7,"QueuedMax":9},"lost":[{"Node":"a","Topic":"x","Messages":2},{"Node":"a","Topic":"x","Messages":1,"Unsure":true},{"Node":"a","Topic":"y","Messages":5}],"members":{"x":["1"]}}`
	if err := json.Unmarshal([]byte(text), &f); err != nil {
		t.Fatal(err)
	}
	if n, unsure := f.lost("a", "x"); n != 3 || !unsure {
		t.Errorf("%d, %v", n, unsure)
	}
	if n, unsure := f.lost("b", "x"); n != 0 || unsure {
		t.Errorf("%d, %v", n, unsure)
	}
	if f.Stats.Received != 7 || f.Stats.QueuedMax != 9 || len(f.Stats.Nodes) != 1 || f.Members["x"][0] != "1" {
		t.Errorf("%+v", f)
	}
}

func TestFaultsThatGoWrongAreNoticed(t *testing.T) {
	for want, row := range map[string]ClusterFault{
		"":                  {Right: 10, Gone: 9, Queue: trialQueue, Grown: 5, Bound: 5},
		"right after":       {Right: 10.1},
		"gone after 11.0 s": {Gone: 11},
		"waited for NATS":   {Queue: trialQueue + 1},
		"has grown":         {Grown: 6, Bound: 5},
	} {
		r := &faultRun{row: row}
		r.check()
		if failed := strings.Join(r.row.Failed, "; "); !strings.Contains(failed, want) || (want == "") != (failed == "") {
			t.Errorf("%+v: %q, not %q", row, failed, want)
		}
	}
	c := Cluster{Order: &ClusterOrder{Wrong: 1}, Faults: []ClusterFault{{Name: "fire", Failed: []string{"it burns"}}}, Reach: &ClusterReach{Published: 2, Received: 3, Heard: 2}}
	if err := c.check(); err == nil || strings.Count(err.Error(), "experiment: ") != 3 || !strings.Contains(err.Error(), "fire: it burns") {
		t.Errorf("%v", err)
	}
	c = Cluster{Order: &ClusterOrder{}, Reach: &ClusterReach{Published: 2, Received: 2, Heard: 2}}
	if err := c.check(); err != nil {
		t.Error(err)
	}
}

func TestClustersAreShown(t *testing.T) {
	c := &Cluster{
		Order:  &ClusterOrder{Nodes: 3, Members: 90, Published: 1000, Received: 90_000},
		Faults: []ClusterFault{{Name: "fire", Published: 5, Expected: 10, Arrived: 7, Said: 2, Dead: 1, Gone: 6, Right: 1.5}},
		Reach:  &ClusterReach{Nodes: 3, Rooms: 1000, Published: 1000, Received: 1000, Passed: 1040},
	}
	for n := 1; n <= 3; n++ {
		s := ClusterSpeed{Nodes: n}
		s.One.Deliveries, s.Many.In, s.Many.WireOut = float64(n)*1000, 127, float64(n)*170
		c.Speeds = append(c.Speeds, s)
	}
	var text, plot bytes.Buffer
	if err := errors.Join(c.WriteText(&text), c.WritePlot(&plot)); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"90,000 of 90,000 received", "**1,000** times", "| fire | 5 | 10 | 7 | 2 | **0** | **0** | 1.5 s; the dead gone after 6.0 s |",
		"clients of the killed node alone: 1", "| 3 | 3,000 |", "127, 0 B | 0, 510 B |",
	} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("%q is missing in\n%s", want, &text)
		}
	}
	if !strings.Contains(plot.String(), "Deliveries a second") {
		t.Error(plot.String())
	}
	text.Reset()
	if err := (*Cluster)(nil).WriteText(&text); err != nil || text.Len() > 0 {
		t.Errorf("%v, %s", err, &text)
	}
}
