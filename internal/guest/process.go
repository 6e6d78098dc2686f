package guest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/cutoutdev/cutout/internal/guest/wire"
)

// A Process is a command in the guest. A hostile guest may keep its streams
// open for ever: close them to be rid of it.
type Process struct {
	Stdin  io.WriteCloser // Write fails with io.ErrClosedPipe once nobody reads
	Stdout io.ReadCloser  // ends when the command has ended and all it wrote was read
	Stderr io.ReadCloser  // likewise; empty with a TTY

	client *Client
	call   uint32
	once   sync.Once
	ended  chan struct{}
	exit   Exit
	err    error
}

// Start starts a command. Whether it could be started is told by Wait. The
// context covers only the start. Stdout and Stderr must be read or closed,
// else the command stalls as it would on a full pipe.
func (c *Client) Start(ctx context.Context, cmd Command) (*Process, error) {
	if err := check(cmd); err != nil {
		return nil, fmt.Errorf("start a command: %w", err)
	}
	in := []uint8{wire.Stdout, wire.Stderr}
	if cmd.TTY {
		in = in[:1]
	}
	p := &Process{client: c, ended: make(chan struct{})}
	c.mu.Lock()
	ins, outs, err := c.link.Open(c.last+1, in, []uint8{wire.Stdin})
	if err != nil {
		c.mu.Unlock()
		return nil, fmt.Errorf("start a command: %w", err)
	}
	c.last++
	p.call = c.last
	c.running[p.call] = p
	c.mu.Unlock()
	p.Stdin, p.Stdout, p.Stderr = outs[0], ins[0], io.NopCloser(strings.NewReader(""))
	if !cmd.TTY {
		p.Stderr = ins[1]
	}
	req := wire.StartRequest{
		Args: split(cmd.Args), Env: split(cmd.Env), Dir: cmd.Dir, User: cmd.User,
		TTY: cmd.TTY, Rows: cmd.Rows, Cols: cmd.Cols,
	}
	if err := c.link.Send(ctx, p.call, wire.KindStart, req); err != nil {
		c.mu.Lock()
		delete(c.running, p.call)
		c.mu.Unlock()
		c.link.Drop(p.call)
		return nil, fmt.Errorf("start a command: %w", err)
	}
	return p, nil
}

// Wait waits for the end of the command. It does not wait for its output.
func (p *Process) Wait(ctx context.Context) (Exit, error) {
	select {
	case <-p.ended:
	case <-ctx.Done():
		return Exit{}, ctx.Err()
	}
	if p.err != nil {
		return Exit{}, fmt.Errorf("wait for the command: %w", p.err)
	}
	return p.exit, nil
}

// Signal sends a signal, named as kill(1) does (INT, SIGINT or 2), to the
// command's process group. It is no error if the command has ended.
func (p *Process) Signal(name string) error {
	n, ok := signalNumber(name)
	if !ok {
		return fmt.Errorf("send signal: no signal has that name")
	}
	return p.client.link.Send(context.Background(), p.call, wire.KindSignal, wire.SignalRequest{Number: n})
}

// Resize sets the window size of the command's terminal.
func (p *Process) Resize(rows, cols uint16) error {
	return p.client.link.Send(context.Background(), p.call, wire.KindResize, wire.ResizeRequest{Rows: rows, Cols: cols})
}

func (p *Process) end(e Exit, err error) {
	p.once.Do(func() {
		p.exit, p.err = e, err
		close(p.ended)
	})
}

// check refuses what the kernel or JSON would change on the way.
func check(cmd Command) error {
	if len(cmd.Args) == 0 || cmd.Args[0] == "" {
		return errors.New("no command given")
	}
	for _, list := range [][]string{cmd.Args, cmd.Env, {cmd.Dir, cmd.User}} {
		for _, s := range list {
			if strings.IndexByte(s, 0) >= 0 {
				return errors.New("a NUL in an argument or variable")
			}
		}
	}
	if !utf8.ValidString(cmd.Dir) || !utf8.ValidString(cmd.User) {
		return errors.New("directory or user is not UTF-8")
	}
	return nil
}

func split(list []string) [][]byte {
	out := make([][]byte, len(list))
	for i, s := range list {
		out[i] = []byte(s)
	}
	return out
}
