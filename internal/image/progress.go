package image

import (
	"context"
	"io"
)

// A countReader reports what was read from r and fails once ctx is done.
type countReader struct {
	ctx      context.Context
	r        io.Reader
	n        int64
	told     int64
	stage    string
	total    int64
	progress Progress
}

// reportEvery is the bytes between two reports: a progress line is drawn
// some ten times a second at most, at the speed of a slow disk.
const reportEvery = 4 << 20

func (c *countReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := c.r.Read(p)
	c.n += int64(n)
	if c.n-c.told >= reportEvery || err == io.EOF {
		c.told = c.n
		c.progress.report(c.stage, c.n, c.total)
	}
	return n, err
}
