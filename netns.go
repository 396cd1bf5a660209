package main

import (
	"errors"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"github.com/dustin/go-humanize"

	"github.com/seed-134acfd0/lull/loadgen/experiment"
)

// netnsFlag is the flag of commands that run server and generator on this machine.
type netnsFlag struct {
	Netns string `name:"netns" help:"The network namespace to run in. auto is a new one, which ends with the run, if this one's TCP hash table has less than a bucket for each socket; no is this one." enum:"auto,no" default:"auto"`
}

// again runs this command once more in a network namespace whose TCP hash table has a
// bucket for each socket of so many connections, and reports whether it did. It does
// not where this namespace's table is large enough, or no other can be made; then it
// says why.
func (f netnsFlag) again(conns int) (ran bool, err error) {
	need, have := experiment.Buckets(conns), experiment.HashTable()
	if f.Netns == "no" || have >= need {
		return false, nil
	}
	comma := func(n int) string { return humanize.Comma(int64(n)) }
	space, err := experiment.NewNamespace(need)
	if err != nil {
		say("not in a network namespace with a larger TCP hash table, so each packet may take longer: %v", err)
		return false, nil
	}
	say("in a network namespace of its own, whose TCP hash table has %s buckets; this one's has %s for %s sockets", comma(space.Buckets), comma(have), comma(2*conns))
	return true, runIn(space)
}

// runIn runs this command once more in a network namespace, and leaves that.
func runIn(space *experiment.Namespace) error {
	defer space.Leave()
	lull, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.Command(lull, append(os.Args[1:], "--netns=no")...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	return standFor(cmd, space.Start)
}

// standFor starts a command and waits for it. The command gets the signals that this
// process gets, and its exit code becomes this process's. A terminal sends SIGINT to
// both. The command restores what it has set before it ends.
func standFor(cmd *exec.Cmd, start func(*exec.Cmd) error) error {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM)
	defer signal.Stop(signals)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := start(cmd); err != nil {
		return err
	}
	ended := make(chan struct{})
	defer close(ended)
	go func() {
		for {
			select {
			case s := <-signals:
				_ = cmd.Process.Signal(s) // fails if it has ended
			case <-ended:
				return
			}
		}
	}()
	err := cmd.Wait()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exitCode(max(exitFailed, exit.ExitCode())) // -1 after a signal
	}
	return err
}
