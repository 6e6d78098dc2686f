package guest

import (
	"context"
	"fmt"
	"io"

	"github.com/cutoutdev/cutout/internal/guest/wire"
)

// PutTar unpacks a tar stream, as root, below a directory of the guest that is
// made if it is missing. No entry gets outside of it. If PutTar fails, what
// came before stays. It reads r on the caller's goroutine.
func (c *Client) PutTar(ctx context.Context, dir string, r io.Reader) error {
	id, replied, _, outs, err := c.open(nil, []uint8{wire.Stdin})
	if err != nil {
		return fmt.Errorf("copy into the guest: %w", err)
	}
	defer c.link.Drop(id)
	if err := c.link.Send(ctx, id, wire.KindPut, wire.PathRequest{Path: dir}); err != nil {
		return fmt.Errorf("copy into the guest: %w", err)
	}
	out := outs[0]
	stop := context.AfterFunc(ctx, func() { out.Abort(ctx.Err()) })
	_, err = out.ReadFrom(r)
	if !stop() && err == nil {
		err = ctx.Err() // the stream was cut, even if what went before looks whole
	}
	out.Close()
	if err != nil && err != io.ErrClosedPipe { // closed: the reply says why
		return fmt.Errorf("copy into the guest: %w", err)
	}
	if _, err := c.wait(ctx, replied); err != nil {
		return fmt.Errorf("copy into the guest: %w", err)
	}
	return nil
}

// GetTar writes what is at path in the guest to w, as a tar stream whose names
// are relative to it.
func (c *Client) GetTar(ctx context.Context, path string, w io.Writer) error {
	return c.get(ctx, wire.PathRequest{Path: path}, w)
}

// GetUpper writes everything that the guest has changed on its root file
// system to w, as a tar stream.
func (c *Client) GetUpper(ctx context.Context, w io.Writer) error {
	return c.get(ctx, wire.PathRequest{Upper: true}, w)
}

func (c *Client) get(ctx context.Context, req wire.PathRequest, w io.Writer) error {
	id, replied, ins, _, err := c.open([]uint8{wire.Stdout}, nil)
	if err != nil {
		return fmt.Errorf("copy out of the guest: %w", err)
	}
	defer c.link.Drop(id)
	if err := c.link.Send(ctx, id, wire.KindGet, req); err != nil {
		return fmt.Errorf("copy out of the guest: %w", err)
	}
	in := ins[0]
	stop := context.AfterFunc(ctx, func() { in.Abort(ctx.Err()) })
	_, err = in.WriteTo(w)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err == nil {
		_, err = c.wait(ctx, replied)
	}
	in.Close()
	if err != nil {
		return fmt.Errorf("copy out of the guest: %w", err)
	}
	return nil
}

// Stat tells whether a path exists in the guest and is a directory.
func (c *Client) Stat(ctx context.Context, path string) (Info, error) {
	r, err := c.call(ctx, wire.KindStat, wire.PathRequest{Path: path})
	if err != nil {
		return Info{}, fmt.Errorf("look up a path in the guest: %w", err)
	}
	if r.Info == nil {
		return Info{}, nil
	}
	return *r.Info, nil
}
