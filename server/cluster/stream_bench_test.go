package cluster

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	broker "github.com/nats-io/nats-server/v2/server"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/internal/natsd"
)

// TestMain is a NATS server, in place of tests, where storeVariable names its directory.
func TestMain(m *testing.M) {
	dir := os.Getenv(storeVariable)
	if dir == "" {
		os.Exit(m.Run())
	}
	s, err := natsd.Start(&broker.Options{Host: "127.0.0.1", Port: broker.RANDOM_PORT, JetStream: true, StoreDir: dir})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(s.ClientURL())
	_, _ = io.Copy(io.Discard, os.Stdin) // until the benchmark has ended
	natsd.Stop(s)
}

const storeVariable = "LULL_TEST_STORE"

// brokerProcess is a NATS server with JetStream in a process of its own.
func brokerProcess(b *testing.B) (url string, pid int) {
	b.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), storeVariable+"="+b.TempDir())
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Wait()
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		b.Fatal(err)
	}
	return strings.TrimSpace(line), cmd.Process.Pid
}

// processorTime is what a process has used, in ticks of 10 ms.
func processorTime(b *testing.B, pid int) time.Duration {
	b.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		b.Fatal(err)
	}
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	user, _ := strconv.Atoi(fields[11])
	system, _ := strconv.Atoi(fields[12])
	return time.Duration(user+system) * 10 * time.Millisecond
}

// benchTopics are the topics of benchmarks.
var benchTopics = func() (names [1000]string) {
	for i := range names {
		names[i] = fmt.Sprint("room/", i)
	}
	return names
}()

// keepsHundred keeps the last hundred messages and more.
func keepsHundred(o *Options) {
	o.pace = pace{}
	o.History = func(string) Limits { return Limits{Messages: 128, Age: time.Hour} }
}

// BenchmarkStored publishes 100 bytes to 1,000 topics in turn, that nobody else follows: processor
// time of the node and of the broker, and bytes to the broker, for each publication.
func BenchmarkStored(b *testing.B) {
	for name, change := range map[string]func(*Options){
		"plain":   nil,
		"history": keepsHundred,
		"stream":  func(o *Options) { keepsHundred(o); o.Stream = &Stream{Messages: 128, Age: time.Hour} },
	} {
		b.Run(name, func(b *testing.B) {
			url, pid := brokerProcess(b)
			p := join(b, url, "a", change)
			p.server.forget = true
			data := make([]byte, 100)
			var before, after syscall.Rusage
			_ = syscall.Getrusage(syscall.RUSAGE_SELF, &before)
			used := processorTime(b, pid)
			b.ResetTimer()
			for i := range b.N {
				for p.Publish(benchTopics[i%len(benchTopics)], frame.Text, data) != nil {
					p.queue.wait() // until the broker keeps up
				}
			}
			for s := p.Stats(); s.Queued > 0; s = p.Stats() {
				time.Sleep(time.Millisecond)
			}
			_ = syscall.Getrusage(syscall.RUSAGE_SELF, &after)
			if p.options.Stream != nil {
				p.mu.Lock()
				l := p.link
				p.mu.Unlock()
				for is := uint64(0); is < uint64(b.N); { // every one, or the next ones in its place
					s, err := l.streams.Stream(b.Context(), p.subjects.stream)
					if err != nil {
						b.Fatal(err)
					}
					is = s.CachedInfo().State.LastSeq
				}
			}
			b.StopTimer()
			time.Sleep(100 * time.Millisecond) // the broker is done
			node := after.Utime.Nano() + after.Stime.Nano() - before.Utime.Nano() - before.Stime.Nano()
			b.ReportMetric(float64(node)/float64(b.N)/1000, "µs-node/op")
			b.ReportMetric(float64((processorTime(b, pid)-used).Nanoseconds())/float64(b.N)/1000, "µs-broker/op")
			b.ReportMetric(float64(p.Stats().SentBytes)/float64(b.N), "B-sent/op")
		})
	}
}

// BenchmarkRestored lets clients of 1,000 topics come back at once to the only node, which was
// restarted, and miss 100 messages of 100 bytes each.
func BenchmarkRestored(b *testing.B) {
	url, _ := brokerProcess(b)
	stores := func(o *Options) { keepsHundred(o); o.Stream = &Stream{Messages: 128, Age: time.Hour} }
	p := join(b, url, "a", stores)
	time.Sleep(5 * time.Second) // positions are younger than the stream, by all clocks
	positions := make([]string, len(benchTopics))
	var come sync.WaitGroup
	for i, topic := range benchTopics {
		come.Add(1)
		if err := p.Missed(topic, "", func(r Resumed) { positions[i] = r.Position; come.Done() }); err != nil {
			b.Fatal(err)
		}
	}
	come.Wait()
	p.server.forget = true
	data := make([]byte, 100)
	for range 100 {
		for _, topic := range benchTopics {
			for p.Publish(topic, frame.Text, data) != nil {
				p.queue.wait()
			}
		}
	}
	p.Leave()
	for b.Loop() {
		b.StopTimer()
		p := join(b, url, "a", stores)
		b.StartTimer()
		var incomplete, messages int
		for i, topic := range benchTopics {
			come.Add(1)
			if err := p.Missed(topic, positions[i], func(r Resumed) { // one after the other
				messages += len(r.Messages)
				if r.Missing {
					incomplete++
				}
				come.Done()
			}); err != nil {
				b.Fatal(err)
			}
		}
		come.Wait()
		b.StopTimer()
		if messages != 100*len(benchTopics) || incomplete > 0 {
			b.Fatalf("%d messages, %d topics are incomplete, %+v", messages, incomplete, p.Stats())
		}
		p.Leave()
		b.StartTimer()
	}
}
