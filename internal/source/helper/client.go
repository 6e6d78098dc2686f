package helper

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cutoutdev/cutout/internal/source"
)

// A Client is the CLI's view of a helper, which it starts with the first
// values that are to be read. The zero Client reads the variables of this
// process. Its methods are for one goroutine.
type Client struct {
	Notice func(string) // is told warnings about places of values; may be nil

	requests []Request // that were read
	expiring bool      // one of the values will have to be read anew

	cmd    *exec.Cmd     // nil = not started
	ended  chan struct{} // closed when it has been waited for
	conn   net.Conn
	keeper *os.File // the far end of the helper's socket for values
	keeps  bool     // the helper lives on with the keeper
}

// Read has values read and held. What fails is in the results.
func (c *Client) Read(ctx context.Context, requests []Request) ([]Result, error) {
	if len(requests) == 0 {
		return nil, nil
	}
	if c.cmd != nil {
		return nil, errors.New("values are read once")
	}
	a := ask{Read: requests}
	var values []string
	for _, r := range requests {
		if text, ok := os.LookupEnv(r.Ref); ok && r.Scheme == "env" {
			a.Env = append(a.Env, envVar{r.Ref, len(text)})
			values = append(values, text)
		}
	}
	if err := c.start(requests); err != nil {
		return nil, fmt.Errorf("start source helper: %w", err)
	}
	c.requests = requests
	out, err := c.ask(ctx, a, values)
	for i, r := range out.Results {
		c.expiring = c.expiring || !r.Expires.IsZero()
		if r.Warning != "" && c.Notice != nil {
			c.Notice(fmt.Sprintf("%s: %s", requests[i].Name, r.Warning))
		}
	}
	return out.Results, err
}

// Requests returns what was read.
func (c *Client) Requests() []Request { return c.requests }

// Check refuses texts that hold one of the values.
func (c *Client) Check(ctx context.Context, texts []Text) error {
	if c.cmd == nil || len(texts) == 0 {
		return nil // nothing was read
	}
	_, err := c.ask(ctx, ask{Check: texts}, nil)
	return err
}

// HandOver has the values written to a socket and returns its other end, for
// a keeper to inherit; nil if nothing was read. The caller closes it. A helper
// whose values expire now is the keeper's, and ends with that.
func (c *Client) HandOver(ctx context.Context) (*os.File, error) {
	if c.cmd == nil {
		return nil, nil
	}
	if _, err := c.ask(ctx, ask{HandOver: true}, nil); err != nil {
		return nil, err
	}
	f := c.keeper
	c.keeper, c.keeps = nil, c.expiring
	return f, nil
}

// Close ends a helper that is this process's alone, and waits for it.
func (c *Client) Close() {
	if c.cmd == nil {
		return
	}
	c.conn.Close()
	if c.keeper != nil {
		c.keeper.Close()
		c.keeper = nil
	}
	if !c.keeps {
		<-c.ended
	}
	c.cmd = nil
}

// start runs the helper with the environment of this process less the
// variables that are secrets.
func (c *Client) start(requests []Request) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	conn, theirs, err := socketPair()
	if err != nil {
		return err
	}
	defer theirs.Close()
	values, keeper, err := filePair()
	if err != nil {
		conn.Close()
		return err
	}
	defer values.Close()
	cmd := &exec.Cmd{
		Path: self, Args: []string{arg0}, Env: environ(os.Environ(), requests),
		Stderr: os.Stderr, ExtraFiles: []*os.File{theirs, values},
	}
	if err := cmd.Start(); err != nil {
		conn.Close()
		keeper.Close()
		return err
	}
	c.cmd, c.conn, c.keeper, c.ended = cmd, conn, keeper, make(chan struct{})
	go func() { cmd.Wait(); close(c.ended) }()
	return nil
}

// environ is env without the variables that requests read.
func environ(env []string, requests []Request) []string {
	return slices.DeleteFunc(slices.Clone(env), func(e string) bool {
		name, _, _ := strings.Cut(e, "=")
		return slices.ContainsFunc(requests, func(r Request) bool { return r.Scheme == "env" && r.Ref == name })
	})
}

func (c *Client) ask(ctx context.Context, a ask, values []string) (answer, error) {
	stop := context.AfterFunc(ctx, func() { c.conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	var out answer
	err := source.WriteMessage(c.conn, a, maxMessage)
	for _, v := range values {
		if err == nil {
			_, err = c.conn.Write([]byte(v))
		}
	}
	if err == nil {
		err = source.ReadMessage(c.conn, &out, maxMessage)
	}
	switch {
	case ctx.Err() != nil:
		return answer{}, context.Cause(ctx)
	case err != nil:
		return answer{}, &source.Error{
			Text:  "the source helper ended before it had answered",
			Hint:  "try again; a host that runs out of memory ends processes",
			Cause: err,
		}
	case out.Failed != "":
		return answer{}, &source.Error{Text: out.Failed, Hint: out.Hint}
	case a.Read != nil && len(out.Results) != len(a.Read):
		return answer{}, errors.New("ask source helper: it answered something else")
	}
	return out, nil
}

// socketPair returns two connected ends: one for this process, one for a
// child.
func socketPair() (net.Conn, *os.File, error) {
	own, theirs, err := filePair()
	if err != nil {
		return nil, nil, err
	}
	defer own.Close() // FileConn duplicates it
	conn, err := net.FileConn(own)
	if err != nil {
		theirs.Close()
		return nil, nil, err
	}
	return conn, theirs, nil
}

func filePair() (a, b *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		return nil, nil, err
	}
	unix.CloseOnExec(fds[0])
	unix.CloseOnExec(fds[1])
	return os.NewFile(uintptr(fds[0]), "socket"), os.NewFile(uintptr(fds[1]), "socket"), nil
}
