package guest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/cutoutdev/cutout/internal/guest/wire"
)

// A Client is the connection to one guest's agent. Its methods may be called
// from several goroutines.
type Client struct {
	link *wire.Link

	mu      sync.Mutex
	last    uint32
	hello   *wire.Hello
	greeted chan struct{}
	replies map[uint32]chan wire.Reply
	running map[uint32]*Process
}

// Connect waits for the agent's hello on rw, whose Close must make a blocked
// Read and Write return, as that of a net.Conn does. The client owns rw from
// then on, also if Connect fails.
func Connect(ctx context.Context, rw io.ReadWriteCloser) (*Client, error) {
	return connect(ctx, rw, false)
}

// Wake is Connect for a guest that goes on from a snapshot, whose agent waits
// to be greeted.
func Wake(ctx context.Context, rw io.ReadWriteCloser) (*Client, error) {
	return connect(ctx, rw, true)
}

func connect(ctx context.Context, rw io.ReadWriteCloser, wake bool) (*Client, error) {
	c := &Client{
		link:    wire.NewLink(rw, maxMessage),
		greeted: make(chan struct{}),
		replies: make(map[uint32]chan wire.Reply),
		running: make(map[uint32]*Process),
	}
	if wake {
		c.link.Send(ctx, 0, wire.KindHello, wire.Hello{Version: wire.Version}) // fails only with the link
	}
	go func() {
		err := c.link.Run(c.handle)
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, p := range c.running {
			p.end(Exit{}, err)
		}
	}()
	select {
	case <-c.greeted:
		return c, nil
	case <-c.link.Done():
		return nil, fmt.Errorf("wait for the agent: %w", c.link.Err())
	case <-ctx.Done():
		c.link.Close()
		return nil, fmt.Errorf("wait for the agent: %w", ctx.Err())
	}
}

// Close ends the connection; everything under way fails.
func (c *Client) Close() error { return c.link.Close() }

// Done is closed when the connection has ended, and Err then tells why.
func (c *Client) Done() <-chan struct{} { return c.link.Done() }

// Err is nil while the connection lives.
func (c *Client) Err() error { return c.link.Err() }

// Breach is how the agent has broken the protocol, nil if it has not: whoever
// talks in its place, or the agent itself, is not ours.
func (c *Client) Breach() error {
	if err := c.link.Err(); errors.Is(err, wire.ErrViolation) {
		return err
	}
	return nil
}

// BootTime is how long the guest's kernel had run, by its own account, when
// the agent began.
func (c *Client) BootTime() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.hello.Uptime
}

// Prepare does what of Configure is the same for every sandbox, so that a
// snapshot of the guest can be taken: the root file system, which is the disk
// with that serial, is in place, and nothing of any sandbox is there.
func (c *Client) Prepare(ctx context.Context, rootSerial string) error {
	if _, err := c.call(ctx, wire.KindPrepare, wire.PrepareRequest{RootSerial: rootSerial}); err != nil {
		return fmt.Errorf("prepare the guest: %w", err)
	}
	return nil
}

// Configure makes the guest ready to run commands. It must succeed before the
// first Start and is not repeated.
func (c *Client) Configure(ctx context.Context, cfg Config) error {
	roots := cfg.Roots
	cfg.Roots = nil // 200 KB that most images do not need
	r, err := c.call(ctx, wire.KindConfigure, cfg)
	if err == nil && r.NeedRoots {
		_, err = c.call(ctx, wire.KindRoots, wire.RootsRequest{PEM: roots})
	}
	if err != nil {
		return fmt.Errorf("configure the guest: %w", err)
	}
	return nil
}

// SetTime sets the guest's clock.
func (c *Client) SetTime(ctx context.Context, t time.Time) error {
	if _, err := c.call(ctx, wire.KindClock, wire.ClockRequest{Time: t}); err != nil {
		return fmt.Errorf("set the guest's clock: %w", err)
	}
	return nil
}

// Ping returns the time of one round trip.
func (c *Client) Ping(ctx context.Context) (time.Duration, error) {
	start := time.Now()
	if _, err := c.call(ctx, wire.KindPing, struct{}{}); err != nil {
		return 0, fmt.Errorf("ping the agent: %w", err)
	}
	return time.Since(start), nil
}

// Shutdown ends all commands and the guest. It returns when the agent has
// agreed or is gone; the machine exits shortly after.
func (c *Client) Shutdown(ctx context.Context) error {
	_, err := c.call(ctx, wire.KindShutdown, struct{}{})
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("shut the guest down: %w", err)
	}
	return nil
}

// call sends a request and waits for its reply.
func (c *Client) call(ctx context.Context, kind wire.Kind, v any) (wire.Reply, error) {
	id, replied, _, _, err := c.open(nil, nil)
	if err != nil {
		return wire.Reply{}, err
	}
	if err := c.link.Send(ctx, id, kind, v); err != nil {
		return wire.Reply{}, err
	}
	return c.wait(ctx, replied)
}

func (c *Client) wait(ctx context.Context, replied <-chan wire.Reply) (wire.Reply, error) {
	select {
	case r := <-replied:
		return r, replyError(r)
	case <-ctx.Done():
		return wire.Reply{}, ctx.Err()
	case <-c.link.Done():
		select {
		case r := <-replied: // the agent's last word
			return r, replyError(r)
		default:
			return wire.Reply{}, c.link.Err()
		}
	}
}

func replyError(r wire.Reply) error {
	if r.Error == "" {
		return nil
	}
	return errors.New(printable(r.Error))
}

// open begins a call that ends with a reply.
func (c *Client) open(in, out []uint8) (uint32, <-chan wire.Reply, []*wire.Inbound, []*wire.Outbound, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	ins, outs, err := c.link.Open(c.last+1, in, out)
	if err != nil {
		return 0, nil, nil, nil, err
	}
	c.last++
	replied := make(chan wire.Reply, 1)
	c.replies[c.last] = replied
	return c.last, replied, ins, outs, nil
}

// handle takes one message from the agent.
func (c *Client) handle(m wire.Message) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if (c.hello == nil) != (m.Kind == wire.KindHello) {
		return errors.New("the agent greets first, and once")
	}
	switch m.Kind {
	case wire.KindHello:
		var h wire.Hello
		if err := m.Decode(&h); err != nil {
			return err
		}
		if h.Version != wire.Version {
			return fmt.Errorf("the agent speaks version %d of the protocol, not %d", h.Version, wire.Version)
		}
		c.hello = &h
		close(c.greeted)
		return nil
	case wire.KindReply:
		replied := c.replies[m.Call]
		if replied == nil {
			return fmt.Errorf("the agent replied to call %d, which waits for nothing", m.Call)
		}
		var r wire.Reply
		if err := m.Decode(&r); err != nil {
			return err
		}
		delete(c.replies, m.Call)
		replied <- r
		return nil
	case wire.KindExit:
		p := c.running[m.Call]
		if p == nil {
			return fmt.Errorf("the agent ended call %d, which runs nothing", m.Call)
		}
		var e Exit
		if err := m.Decode(&e); err != nil {
			return err
		}
		if e.Code < 0 || e.Code > 255 {
			return fmt.Errorf("the agent gave %d as an exit status", e.Code)
		}
		e.Reason = printable(e.Reason)
		delete(c.running, m.Call)
		p.end(e, nil)
		return nil
	}
	return fmt.Errorf("the agent sent a message of kind %d", m.Kind)
}
