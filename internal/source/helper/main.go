// Package helper is the source helper: the process that reads values where
// the user keeps them, looks for them in what the user hands over, and gives
// them to the keeper.
//
// The helper is this binary re-executed with the user's environment, less
// the variables that are secrets themselves ([Main]). It alone runs commands
// and opens files for values; what a library makes of them on its heap ends
// with it. It promises that no answer, error or argument holds a value, and
// that it ends when its client does.
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
	if len(os.Args) == 1 && os.Args[0] == arg0 {
		os.Exit(run(harden))
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
	// A ^C is the client's to handle: it hangs up. What this process runs gets
	// its own.
	signal.Notify(make(chan os.Signal, 1), unix.SIGINT, unix.SIGQUIT, unix.SIGHUP, unix.SIGTERM)
	h := &server{client: client, keeper: keeper, delivered: make(chan struct{})}
	h.held.Sources = map[string]source.Source{
		"env":     &env.Source{Lookup: func(name string) (string, bool) { v, ok := h.variables[name]; return v, ok }},
		"file":    &file.Source{Home: os.Getenv("HOME")},
		"exec":    &exec.Source{Stderr: escaper{os.Stderr}},
		"keyring": &keyring.Source{},
		"age":     &age.Source{Getenv: os.Getenv},
		"vault":   &vault.Source{Getenv: os.Getenv},
	}
	defer h.held.Close()
	if err := h.serve(context.Background()); err != nil && !errors.Is(err, io.EOF) {
		return 1
	}
	return 0
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
	delivered      chan struct{} // closed when the keeper has its values
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
			if err := writeMessage(h.client, h.answer(ctx, a)); err != nil {
				return err
			}
		case err := <-broken:
			return err
		case <-h.delivered:
			return nil
		}
	}
}

// next reads a message and the variables that come with it.
func (h *server) next() (ask, error) {
	a := ask{variables: map[string]string{}}
	if err := readMessage(h.client, &a); err != nil {
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
func (h *server) handOver() {
	source.WriteValues(h.keeper, h.held.values)
	h.keeper.Close()
	close(h.delivered)
}
