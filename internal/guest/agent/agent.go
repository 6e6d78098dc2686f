// Package agent is the guest's half of the connection to the keeper: it serves
// the calls of package guest and, as the guest's first process, prepares the
// machine for them.
//
// It is the least trusted part of Cutout. Root in the guest can read, stop and
// replace it, so it holds nothing that the guest may not have, and the keeper
// believes nothing that it says. What it promises is for honest guests: that
// commands run as asked, that their output arrives whole, and that the guest
// ends when the keeper is gone.
package agent

import (
	"context"
	"errors"
	"io"
	"os"
	"sync"
	"time"

	"github.com/cutoutdev/cutout/internal/guest/wire"
)

const (
	// maxMessage bounds a message from the host. The longest is a command
	// with all its arguments and variables, of which Linux takes 2 MiB;
	// base64 adds a third.
	maxMessage = 3 << 20

	// maxCalls bounds what runs at once.
	maxCalls = 64
)

// A system is the machine as far as the session may change it.
type system interface {
	// prepare does what of configure is the same for every sandbox.
	prepare(r wire.PrepareRequest) error
	// fresh says that the guest belongs to no sandbox yet.
	fresh() bool
	// configure makes the guest ready. needRoots asks for a call of roots.
	configure(c wire.Config) (needRoots bool, err error)
	roots(pem []byte) error
	// environ is added to every command's environment where it sets nothing.
	environ() []string
	setTime(t time.Time) error
	// upper is the directory that holds what the guest has written.
	upper() (string, error)
	// shutdown is called when the host asks for it and has been answered.
	shutdown()
}

// A session serves one link.
type session struct {
	link     *wire.Link
	system   system
	children *children
	uptime   time.Duration // for the hello

	mu      sync.Mutex
	calls   int
	running map[uint32]*process
	kept    map[*os.File]bool // outputs of commands that have ended; nil at the end
	busy    sync.WaitGroup
}

// Serve serves rw from an ordinary process, without changing the machine:
// commands run, files move, and the rest is acknowledged only. It returns when
// the link has ended and all commands are killed. It exists for tests.
func Serve(rw io.ReadWriteCloser) error {
	return newSession(rw, &hosted{}, newChildren(false)).run(0)
}

func newSession(rw io.ReadWriteCloser, sys system, c *children) *session {
	return &session{
		link:     wire.NewLink(rw, maxMessage),
		system:   sys,
		children: c,
		running:  make(map[uint32]*process),
		kept:     make(map[*os.File]bool),
	}
}

// run greets and serves until the link ends.
func (s *session) run(uptime time.Duration) error {
	s.uptime = uptime
	if err := s.hello(); err != nil {
		return err
	}
	err := s.link.Run(s.handle)
	s.children.killAll()
	s.busy.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	for f := range s.kept {
		f.Close()
	}
	s.kept = nil
	return err
}

func (s *session) hello() error {
	return s.link.Send(context.Background(), 0, wire.KindHello, wire.Hello{Version: wire.Version, Uptime: s.uptime})
}

// greeted answers a host that found us in a snapshot. The calls of the host
// that took it are over: it made one after the other.
func (s *session) greeted(m wire.Message) error {
	var h wire.Hello
	if err := m.Decode(&h); err != nil {
		return err
	}
	if h.Version != wire.Version || !s.system.fresh() {
		return errors.New("a hello out of place")
	}
	s.link.Restart()
	return s.hello()
}

// keep keeps a file open until release or the end of the session.
func (s *session) keep(f *os.File) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.kept == nil {
		f.Close()
		return false
	}
	s.kept[f] = true
	return true
}

func (s *session) release(f *os.File) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.kept, f)
	f.Close()
}

// handle takes one message, on the goroutine that reads the link: channels of
// a call exist before its data arrives, and nothing here waits.
func (s *session) handle(m wire.Message) error {
	switch m.Kind {
	case wire.KindSignal:
		var r wire.SignalRequest
		if err := m.Decode(&r); err != nil {
			return err
		}
		if p := s.process(m.Call); p != nil {
			p.signal(r.Number)
		}
		return nil
	case wire.KindResize:
		var r wire.ResizeRequest
		if err := m.Decode(&r); err != nil {
			return err
		}
		if p := s.process(m.Call); p != nil {
			p.resize(r.Rows, r.Cols)
		}
		return nil
	case wire.KindStart:
		return s.start(m)
	case wire.KindPut:
		return s.put(m)
	case wire.KindGet:
		return s.get(m)
	case wire.KindHello:
		return s.greeted(m)
	}
	if _, _, err := s.link.Open(m.Call, nil, nil); err != nil {
		return err
	}
	switch m.Kind {
	case wire.KindPing:
		return s.link.Send(context.Background(), m.Call, wire.KindReply, wire.Reply{})
	case wire.KindPrepare:
		return request(s, m, func(r wire.PrepareRequest) (wire.Reply, error) {
			return wire.Reply{}, s.system.prepare(r)
		})
	case wire.KindConfigure:
		return request(s, m, func(c wire.Config) (r wire.Reply, err error) {
			r.NeedRoots, err = s.system.configure(c)
			return r, err
		})
	case wire.KindRoots:
		return request(s, m, func(r wire.RootsRequest) (wire.Reply, error) {
			return wire.Reply{}, s.system.roots(r.PEM)
		})
	case wire.KindClock:
		return request(s, m, func(r wire.ClockRequest) (wire.Reply, error) {
			return wire.Reply{}, s.system.setTime(r.Time)
		})
	case wire.KindStat:
		return request(s, m, func(r wire.PathRequest) (wire.Reply, error) {
			info, err := stat(r.Path)
			return wire.Reply{Info: &info}, err
		})
	case wire.KindShutdown:
		s.children.killAll()
		s.link.Send(context.Background(), m.Call, wire.KindReply, wire.Reply{})
		s.busy.Go(func() {
			s.link.Flush()
			s.system.shutdown()
		})
		return nil
	}
	return errors.New("a message that is not the host's")
}

// request serves a call that is one message and one reply.
func request[T any](s *session, m wire.Message, do func(T) (wire.Reply, error)) error {
	var v T
	if err := m.Decode(&v); err != nil {
		return err
	}
	s.begin(m.Call, func() error {
		r, err := do(v)
		s.reply(m.Call, r, err)
		return nil
	}, func(err error) { s.reply(m.Call, wire.Reply{}, err) })
	return nil
}

var errBusy = errors.New("too much at once")

// begin runs do in its own goroutine, or refuses if too much is under way.
func (s *session) begin(call uint32, do func() error, refuse func(error)) {
	s.mu.Lock()
	full := s.calls >= maxCalls
	if !full {
		s.calls++
	}
	s.mu.Unlock()
	if full {
		s.link.Drop(call)
		refuse(errBusy)
		return
	}
	s.busy.Go(func() {
		if err := do(); err != nil {
			refuse(err)
		}
		s.mu.Lock()
		s.calls--
		s.mu.Unlock()
	})
}

func (s *session) reply(call uint32, r wire.Reply, err error) {
	if err != nil {
		r = wire.Reply{Error: err.Error()}
	}
	s.link.Send(context.Background(), call, wire.KindReply, r) // fails only with the link
}

func (s *session) process(call uint32) *process {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.running[call]
}

// hosted is the system of Serve.
type hosted struct{}

func (*hosted) prepare(wire.PrepareRequest) error   { return nil }
func (*hosted) fresh() bool                         { return false }
func (*hosted) configure(wire.Config) (bool, error) { return false, nil }
func (*hosted) roots([]byte) error                  { return nil }
func (*hosted) environ() []string                   { return nil }
func (*hosted) setTime(time.Time) error             { return nil }
func (*hosted) upper() (string, error)              { return "", errors.New("no root file system of its own") }
func (*hosted) shutdown()                           {}
