//go:build linux

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cutoutdev/cutout/bench/boundary"
)

// The program's first argument when it is a load: a process that works
// whenever it is told.
const (
	asFlood = "flood-load"
	asLoop  = "loop-load"
)

// An order tells a load what to do for Span.
type order struct {
	Span time.Duration
	Burn time.Duration // a loop: of processor time

	Socket string            // a flood, the first time: where to plug in
	Env    map[string]string // with what addresses
}

// A result is what a load says when it is done.
type result struct {
	Server          string // a flood, before any order: where its connections lead
	Opened, Refused int
	Err             string
}

// A load is this program as a flood or a loop.
type load struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *json.Decoder
}

func startLoad(as string) (*load, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	l := &load{cmd: exec.Command(self, as)}
	l.cmd.Stderr = os.Stderr
	// In a session of its own, as a keeper is: the kernel shares processor
	// time out by session.
	l.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
	if l.in, err = l.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := l.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	l.out = json.NewDecoder(out)
	return l, l.cmd.Start()
}

func (l *load) spent() time.Duration { return boundary.Processor(l.cmd.Process.Pid) }

// end kills the load, which also ends run.
func (l *load) end() {
	l.cmd.Process.Kill()
	l.cmd.Wait()
}

// run gives o and waits for the result.
func (l *load) run(o order) (result, error) {
	if err := json.NewEncoder(l.in).Encode(o); err != nil {
		return result{}, err
	}
	return l.answer()
}

func (l *load) answer() (r result, err error) {
	if err = l.out.Decode(&r); err == nil && r.Err != "" {
		err = fmt.Errorf("load: %s", r.Err)
	}
	return r, err
}

// obey does what it is ordered until there are no more orders.
func obey(do func(order) result) error {
	in, out := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	for {
		var o order
		if err := in.Decode(&o); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		if err := out.Encode(do(o)); err != nil {
			return err
		}
	}
}

// beLoop burns as much processor time as it is told, evenly.
func beLoop() error {
	return obey(func(o order) result {
		const slice = 10 * time.Millisecond
		n := runtime.NumCPU()
		share := float64(o.Burn) / float64(o.Span) / float64(n) // of each processor
		var all sync.WaitGroup
		for range n {
			all.Go(func() {
				runtime.LockOSThread()
				begin, burnt := time.Now(), threadSpent()
				for passed := time.Duration(0); passed < o.Span; passed = time.Since(begin) {
					due := burnt + time.Duration(share*float64(passed+slice))
					for threadSpent() < due && time.Since(begin) < o.Span {
					}
					time.Sleep(time.Until(begin.Add(passed + slice)))
				}
			})
		}
		all.Wait()
		return result{}
	})
}

// threadSpent is the processor time of the calling thread.
func threadSpent() time.Duration {
	var t unix.Timespec
	unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t)
	return time.Duration(t.Nano())
}
