// Package keeper is the host process that owns one sandbox: it holds the
// values, is the boundary of the guest's network, and starts, configures and
// ends the machine.
//
// A keeper is this binary re-executed with an empty environment ([Main]). It
// gets the specification and the values over one inherited socket and
// answers to its user through a control socket that no call can get a value
// from. If its client goes away it ends; if it ends, the machine dies with
// it.
package keeper

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"runtime/debug"
	"sync"
	"syscall"
	"time"

	"github.com/cutoutdev/cutout/internal/image"
	"github.com/cutoutdev/cutout/internal/ingress"
	"github.com/cutoutdev/cutout/internal/secret"
	"github.com/cutoutdev/cutout/internal/vm/cage"
	"github.com/cutoutdev/cutout/internal/vm/qemu"
	"golang.org/x/sys/unix"
)

// Main takes the process over, and does not return, if it was started as a
// keeper. It is the first thing that main calls.
func Main() {
	if len(os.Args) == 1 && os.Args[0] == Arg0 {
		os.Exit(run())
	}
}

// run is the life of a keeper.
func run() int {
	debug.SetTraceback("single") // a crash report needs no other goroutine
	unix.Umask(0o077)
	if err := errors.Join(Harden(), noNewPrivs()); err != nil {
		return report(handoverFD, err)
	}
	unix.CloseOnExec(handoverFD)
	unix.CloseOnExec(valuesFD)
	unix.CloseOnExec(metricsFD)
	h, err := receiveHandover(handoverFD, valuesFD)
	if h.store != nil {
		defer h.store.Close()
	}
	if err != nil {
		return report(handoverFD, err)
	}
	t, err := newTeller(handoverFD)
	if err != nil {
		return report(handoverFD, err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	defer stop()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go t.awaitEnd(cancel)

	go saveMemory(ctx)
	s := &sandbox{spec: h.spec, store: h.store, logins: h.logins, values: -1, tell: t, end: cancel}
	if len(h.secrets) > 0 || len(h.logins) > 0 {
		s.values = valuesFD
	}
	defer s.close()
	if err := s.start(ctx, h.secrets); err != nil {
		if cause := context.Cause(ctx); ctx.Err() != nil {
			err = cause
		}
		s.record("failed:", err.Error())
		return t.fail(err)
	}
	s.record("ready", "")
	t.send(Message{Ready: true})
	<-ctx.Done()
	if cause := context.Cause(ctx); errors.Is(cause, errClientGone) {
		s.record("ending:", cause.Error())
	} else {
		t.send(Message{Ended: cause.Error()})
		s.record("failed:", cause.Error())
	}
	time.AfterFunc(endTimeout/2, func() { os.Exit(1) }) // whatever hangs, the machine dies with this process
	return 0
}

// errClientGone is why a sandbox usually ends.
var errClientGone = errors.New("the client has gone")

// A teller sends messages to the client.
type teller struct {
	mu   sync.Mutex
	conn net.Conn
}

func newTeller(fd int) (*teller, error) {
	f := os.NewFile(uintptr(fd), "handover")
	defer f.Close() // FileConn duplicates it
	conn, err := net.FileConn(f)
	if err != nil {
		return nil, fmt.Errorf("take over hand-over socket: %w", err)
	}
	return &teller{conn: conn}, nil
}

// sendTimeout is how long a message may wait for a client that does not
// read; it is then dropped.
const sendTimeout = 2 * time.Second

func (t *teller) send(m Message) {
	data, err := json.Marshal(m)
	if err != nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.conn.SetWriteDeadline(time.Now().Add(sendTimeout))
	t.conn.Write(append(data, '\n'))
}

func (t *teller) notice(text string) { t.send(Message{Notice: text}) }

// progress tells a stage at most ten times a second, its end always.
func (t *teller) progress() func(stage string, done, total int64) {
	var last time.Time
	return func(stage string, done, total int64) {
		if now := time.Now(); now.Sub(last) > 100*time.Millisecond || done == total {
			last = now
			t.send(Message{Progress: &Progress{Stage: stage, Done: done, Total: total}})
		}
	}
}

func (t *teller) fail(err error) int {
	t.send(Message{Failed: failure(err)})
	return 1
}

// awaitEnd ends the sandbox when the client closes its end.
func (t *teller) awaitEnd(cancel context.CancelCauseFunc) {
	var b [1]byte
	t.conn.Read(b[:]) // the client never sends anything after the hand-over
	cancel(errClientGone)
}

// report tells an error from before there is a teller.
func report(fd int, err error) int {
	data, _ := json.Marshal(Message{Failed: failure(err)})
	unix.Write(fd, append(data, '\n'))
	return 1
}

func failure(err error) *Failure {
	if f, ok := errors.AsType[*Failure](err); ok {
		return f
	}
	return &Failure{Text: err.Error(), Hint: hint(err)}
}

// hint is what the user can do about err, if it is one of the host's lacks.
func hint(err error) string {
	switch {
	case errors.Is(err, qemu.ErrNoMemory), errors.Is(err, qemu.ErrKilled):
		return "give the guest less with -m, or free some memory"
	case errors.Is(err, qemu.ErrKernel):
		return "run cutout setup --again"
	case errors.Is(err, qemu.ErrNotFound), errors.Is(err, qemu.ErrNoFirmware):
		return "run cutout setup"
	case errors.As(err, new(*cage.MissingError)):
		return "see cutout doctor; --weak-cage starts without, and an escape from the guest then reaches your files"
	case errors.Is(err, secret.ErrNoMemory):
		return "raise the limit of locked memory: ulimit -l"
	case errors.As(err, new(*ingress.ListenError)):
		return publishHint(err)
	case errors.Is(err, unix.ENOSPC), errors.Is(err, image.ErrNoSpace):
		return "free some space"
	case errors.Is(err, qemu.ErrBootTimeout), errors.Is(err, qemu.ErrGuestReset):
		return "see cutout doctor; a busy machine may only need another try, a damaged kernel cutout setup --again"
	}
	return ""
}
