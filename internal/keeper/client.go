package keeper

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"sync/atomic"

	"github.com/cutoutdev/cutout/internal/audit"
)

// A Client talks to the keeper of one sandbox over its control socket.
type Client struct {
	socket string
	http   http.Client
}

// SocketName is the control socket's name in a sandbox's runtime directory.
const SocketName = "keeper.sock"

// Dial returns a client for the sandbox whose runtime directory is dir.
func Dial(dir string) *Client {
	c := &Client{socket: filepath.Join(dir, SocketName)}
	c.http.Transport = &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return c.dial(ctx) },
	}
	return c
}

func (c *Client) dial(ctx context.Context) (net.Conn, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", c.socket)
	if err != nil {
		return nil, fmt.Errorf("reach the keeper: %w", err)
	}
	return conn, nil
}

// Close gives up idle connections. The sandbox goes on.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Info is what a keeper tells of its sandbox.
type Info struct {
	ID    string `json:"id"`
	Accel string `json:"accel"` // kvm, tcg
	// Restored says that the machine began with a snapshot instead of a boot.
	Restored bool     `json:"restored"`
	PIDs     []int    `json:"pids"` // keeper, then the machine
	Secrets  []string `json:"secrets"`
	Audit    string   `json:"audit"` // head of the chain
	// Goroutines is how many the keeper runs: what it still has to do.
	Goroutines int `json:"goroutines"`
}

// Info asks for the sandbox's state.
func (c *Client) Info(ctx context.Context) (Info, error) {
	var info Info
	body, err := c.call(ctx, http.MethodGet, "/v1/sandbox", nil)
	if err != nil {
		return info, err
	}
	defer body.Close()
	return info, json.NewDecoder(io.LimitReader(body, maxMessage)).Decode(&info)
}

// PutTar unpacks a tar stream in the guest's directory dir.
func (c *Client) PutTar(ctx context.Context, dir string, tar io.Reader) error {
	body, err := c.call(ctx, http.MethodPut, "/v1/files?"+url.Values{"dir": {dir}}.Encode(), tar)
	if err != nil {
		return err
	}
	return body.Close()
}

// DumpMemory writes an image of the guest's memory to w.
func (c *Client) DumpMemory(ctx context.Context, w io.Writer) error {
	body, err := c.call(ctx, http.MethodGet, "/v1/memory", nil)
	if err != nil {
		return err
	}
	defer body.Close()
	_, err = io.Copy(w, body)
	return err
}

func (c *Client) call(ctx context.Context, method, path string, in io.Reader) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://keeper"+path, in)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, apiError(resp)
	}
	return resp.Body, nil
}

func apiError(resp *http.Response) error {
	defer resp.Body.Close()
	var f Failure
	if json.NewDecoder(io.LimitReader(resp.Body, maxMessage)).Decode(&f) != nil || f.Text == "" {
		return fmt.Errorf("keeper answers %s", resp.Status)
	}
	return &f
}

// IO is where a command's streams go. Nil streams are empty or discarded.
type IO struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	Events         func(audit.Event) // refusals and the like, as they happen
}

// A Process is a command that runs in the guest.
type Process struct {
	conn  net.Conn
	out   frameWriter
	taken atomic.Int64  // bytes of input that the command took
	more  chan struct{} // taken has grown
	exit  chan Exit     // closed without a value if the keeper is gone
	gone  chan struct{}
}

// Start runs cmd. The streams are served until the command has ended; Wait
// then returns how.
func (c *Client) Start(ctx context.Context, cmd Command, io IO) (*Process, error) {
	body, err := json.Marshal(cmd)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://keeper/v1/exec", bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", execProtocol)
	conn, err := c.dial(ctx)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	br := bufio.NewReader(conn)
	resp, err := roundTrip(conn, br, req)
	if err != nil {
		conn.Close()
		return nil, err
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		defer conn.Close()
		return nil, apiError(resp)
	}
	p := &Process{
		conn: conn, out: frameWriter{w: conn},
		more: make(chan struct{}, 1), exit: make(chan Exit, 1), gone: make(chan struct{}),
	}
	if io.Stdin != nil {
		go p.feed(io.Stdin)
	} else {
		p.out.write(frameStdin, nil)
	}
	go func() {
		defer stop()
		defer conn.Close()
		defer close(p.exit)
		defer close(p.gone)
		p.serve(br, io)
	}()
	return p, nil
}

func roundTrip(conn net.Conn, br *bufio.Reader, req *http.Request) (*http.Response, error) {
	if err := req.Write(conn); err != nil {
		return nil, fmt.Errorf("reach the keeper: %w", err)
	}
	resp, err := http.ReadResponse(br, req)
	if err != nil {
		return nil, fmt.Errorf("reach the keeper: %w", err)
	}
	return resp, nil
}

// feed sends input as far as the window allows until it ends.
func (p *Process) feed(stdin io.Reader) {
	defer p.out.write(frameStdin, nil)
	buf := make([]byte, maxFrame)
	for sent := int64(0); ; {
		n, err := stdin.Read(buf)
		sent += int64(n)
		for sent-p.taken.Load() > stdinWindow {
			select {
			case <-p.more:
			case <-p.gone:
				return
			}
		}
		if n > 0 && p.out.write(frameStdin, buf[:n]) != nil || err != nil {
			return
		}
	}
}

func (p *Process) serve(r io.Reader, to IO) {
	var buf []byte
	for {
		kind, payload, err := readFrame(r, &buf)
		if err != nil {
			return
		}
		switch kind {
		case frameTaken:
			if len(payload) == 4 {
				p.taken.Add(int64(binary.BigEndian.Uint32(payload)))
				select {
				case p.more <- struct{}{}:
				default:
				}
			}
		case frameStdout:
			write(to.Stdout, payload)
		case frameStderr:
			write(to.Stderr, payload)
		case frameEvent:
			var e audit.Event
			if to.Events != nil && json.Unmarshal(payload, &e) == nil {
				to.Events(e)
			}
		case frameExit:
			var e Exit
			if json.Unmarshal(payload, &e) == nil {
				p.exit <- e
			}
			return
		}
	}
}

// write ignores errors: a reader that has gone away (head, less) must not
// stop the other stream.
func write(w io.Writer, b []byte) {
	if w != nil {
		w.Write(b)
	}
}

// Signal sends a signal to the command, by name: INT, TERM, KILL.
func (p *Process) Signal(name string) error { return p.out.write(frameSignal, []byte(name)) }

// Resize tells the command's terminal its size.
func (p *Process) Resize(rows, cols uint16) error {
	return p.out.writeJSON(frameResize, size{rows, cols})
}

// ErrKeeperGone is returned by Wait if the keeper ended before the command.
var ErrKeeperGone = errors.New("the sandbox's keeper has ended")

// ErrSandboxFailed is wrapped by errors of Wait about the sandbox, not the
// command.
var ErrSandboxFailed = errors.New("the sandbox failed")

// Wait returns how the command ended.
func (p *Process) Wait() (Exit, error) {
	e, ok := <-p.exit
	switch {
	case !ok:
		return Exit{}, ErrKeeperGone
	case e.Error != "":
		return e, fmt.Errorf("%w: %s", ErrSandboxFailed, e.Error)
	}
	return e, nil
}
