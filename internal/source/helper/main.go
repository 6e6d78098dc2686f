// Package helper is the source helper: the process that reads values where
// the user keeps them, looks for them in what the user hands over, and gives
// them to the keeper.
//
// The helper is this binary re-executed with the user's environment, less
// the variables that are secrets themselves ([Main]). It alone runs commands
// and opens files for values; what a library makes of them on its heap ends
// with it. It promises that no answer, error or argument holds a value, and
// that it ends when its client does, or, once it lives on to read values anew
// before they expire, when the keeper does.
package helper

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/cutoutdev/cutout/internal/source"
	"github.com/cutoutdev/cutout/internal/source/age"
	"github.com/cutoutdev/cutout/internal/source/env"
	"github.com/cutoutdev/cutout/internal/source/exec"
	"github.com/cutoutdev/cutout/internal/source/file"
	"github.com/cutoutdev/cutout/internal/source/keyring"
	"github.com/cutoutdev/cutout/internal/source/vault"
)

// arg0 is the name under which a helper is re-executed.
const arg0 = "cutout-source"

// The helper's ends of its sockets.
const (
	clientFD = 3
	keeperFD = 4
)

// Main takes the process over, and does not return, if it was started as a
// source helper. Harden is called before anything is read.
func Main(harden func() error) {
	switch {
	case len(os.Args) == 1 && os.Args[0] == arg0:
		os.Exit(run(harden))
	case len(os.Args) == 3 && os.Args[0] == arg0Refresh:
		os.Exit(refresh(harden))
	}
}

func run(harden func() error) int {
	client, err := inherited(clientFD, "client")
	if err == nil {
		err = harden()
	}
	var keeper net.Conn
	if err == nil {
		keeper, err = inherited(keeperFD, "values")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "cutout: start source helper:", err)
		return 1
	}
	ignoreSignals()
	h := &server{client: client, keeper: keeper, delivered: make(chan error, 1)}
	h.held.Sources = sources(func(name string) (string, bool) { v, ok := h.variables[name]; return v, ok }, escaper{os.Stderr})
	defer h.held.Close()
	if err := h.serve(context.Background()); err != nil {
		if errors.Is(err, io.EOF) {
			return 0
		}
		return 1
	}
	expiring := h.held.expiring()
	h.held.Close()
	if len(expiring) == 0 {
		return 0
	}
	return liveOn(expiring, keeper)
}

// ignoreSignals: a ^C is the client's to handle, which hangs up. What this
// process runs gets its own.
func ignoreSignals() {
	signal.Notify(make(chan os.Signal, 1), unix.SIGINT, unix.SIGQUIT, unix.SIGHUP, unix.SIGTERM)
}

// sources are all that there are, by scheme. What commands say goes to says.
func sources(variable func(string) (string, bool), says io.Writer) map[string]source.Source {
	return map[string]source.Source{
		"env":     &env.Source{Lookup: variable},
		"file":    &file.Source{Home: os.Getenv("HOME")},
		"exec":    &exec.Source{Stderr: says},
		"keyring": &keyring.Source{},
		"age":     &age.Source{Getenv: os.Getenv},
		"vault":   &vault.Source{Getenv: os.Getenv},
	}
}

// inherited returns the socket that this process was started with at fd.
func inherited(fd int, name string) (net.Conn, error) {
	unix.CloseOnExec(fd)
	f := os.NewFile(uintptr(fd), name)
	if f == nil {
		return nil, errors.New("a socket is missing")
	}
	defer f.Close() // FileConn duplicates it
	return net.FileConn(f)
}

// A server is a helper at work.
type server struct {
	client, keeper net.Conn
	held           Held
	variables      map[string]string // those that are secrets, from the client
	handingOver    sync.Once
	delivered      chan error // told when the keeper has its values
}

// serve answers until the keeper has its values or the client has gone; what
// is under way then is given up.
func (h *server) serve(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	asks := make(chan ask) // requests, while the last is being answered
	broken := make(chan error, 1)
	go func() {
		defer cancel()
		for {
			a, err := h.next()
			if err != nil {
				broken <- err
				return
			}
			select {
			case asks <- a:
			case <-ctx.Done():
				return
			}
		}
	}()
	for {
		select {
		case a := <-asks:
			if err := source.WriteMessage(h.client, h.answer(ctx, a), maxMessage); err != nil {
				return err
			}
		case err := <-broken:
			return err
		case err := <-h.delivered:
			return err
		}
	}
}

// next reads a message and the variables that come with it.
func (h *server) next() (ask, error) {
	a := ask{variables: map[string]string{}}
	if err := source.ReadMessage(h.client, &a, maxMessage); err != nil {
		return a, err
	}
	for _, v := range a.Env {
		if v.Len < 0 || v.Len > maxMessage {
			return a, errors.New("a variable is too long")
		}
		data := make([]byte, v.Len)
		if _, err := io.ReadFull(h.client, data); err != nil {
			return a, err
		}
		a.variables[v.Name] = string(data)
		clear(data)
	}
	return a, nil
}

func (h *server) answer(ctx context.Context, a ask) answer {
	var out answer
	var err error
	switch {
	case a.HandOver:
		h.handingOver.Do(func() { go h.handOver() }) // the keeper may not be there yet
	case a.Read != nil:
		h.variables = a.variables
		out.Results, err = h.held.Read(ctx, a.Read)
	default:
		err = h.held.Check(ctx, a.Check)
	}
	if err != nil {
		out.Failed = err.Error()
		if e, ok := errors.AsType[*source.Error](err); ok {
			out.Hint = e.Hint
		}
	}
	return out
}

// handOver writes the values to the keeper's socket.
func (h *server) handOver() { h.delivered <- source.WriteValues(h.keeper, h.held.values) }
