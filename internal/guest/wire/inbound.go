package wire

import (
	"context"
	"io"
	"sync"
)

// Inbound is the receiving half of a channel. Read, WriteTo and Close may be
// called from one goroutine at a time, beside the link's own.
type Inbound struct {
	link *Link
	key  key

	mu      sync.Mutex
	ready   sync.Cond
	ring    []byte // grows to Window as needed
	start   int
	used    int
	granted int // what the peer may still send
	owed    int // consumed, not yet granted anew
	ended   bool
	closed  bool
	err     error
}

func newInbound(l *Link, k key) *Inbound {
	in := &Inbound{link: l, key: k, granted: Window}
	in.ready.L = &in.mu
	return in
}

// Read returns io.EOF once the peer has ended the stream, and the link's
// error if the link ended first.
func (in *Inbound) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	part, err := in.next()
	if err != nil {
		return 0, err
	}
	n := copy(p, part)
	in.consume(n)
	return n, nil
}

// WriteTo writes the stream to w without copying it first.
func (in *Inbound) WriteTo(w io.Writer) (int64, error) {
	var total int64
	for {
		part, err := in.next()
		if err == io.EOF {
			return total, nil
		}
		if err != nil {
			return total, err
		}
		n, err := w.Write(part)
		total += int64(n)
		in.consume(n)
		if err != nil {
			return total, err
		}
	}
}

// Close tells the peer that no more is wanted and drops what still comes.
func (in *Inbound) Close() error {
	in.mu.Lock()
	tell := !in.closed && !in.ended && in.err == nil
	in.closed, in.used, in.ring = true, 0, nil
	in.ready.Broadcast()
	in.mu.Unlock()
	if tell {
		return in.link.control(context.Background(), header{call: in.key.call, kind: kindStop, channel: in.key.channel}, nil)
	}
	return nil
}

// next waits for bytes and returns the first run of them, which stays valid
// until consume.
func (in *Inbound) next() ([]byte, error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	for in.used == 0 {
		switch {
		case in.closed:
			return nil, io.ErrClosedPipe
		case in.ended:
			return nil, io.EOF
		case in.err != nil:
			return nil, in.err
		}
		in.ready.Wait()
	}
	return in.ring[in.start:min(in.start+in.used, len(in.ring))], nil
}

// consume gives n bytes back to the window, and tells the peer when half of
// it is free: fewer messages, and never an empty pipe.
func (in *Inbound) consume(n int) {
	in.mu.Lock()
	if in.closed {
		in.mu.Unlock()
		return
	}
	in.start = (in.start + n) % len(in.ring)
	in.used -= n
	in.owed += n
	credit := 0
	if in.owed >= Window/2 && !in.ended {
		credit = in.owed
		in.granted += credit
		in.owed = 0
	}
	in.mu.Unlock()
	if credit > 0 {
		in.link.window(in.key, credit) // an error is the link's end, which the next Read tells
	}
}

// receive takes n bytes from r, on the link's goroutine.
func (in *Inbound) receive(r io.Reader, n int) error {
	in.mu.Lock()
	if n > in.granted {
		in.mu.Unlock()
		return violation("%d bytes beyond the window", n)
	}
	in.granted -= n
	if in.closed {
		in.mu.Unlock()
		return discard(r, n)
	}
	in.grow(n)
	ring, at := in.ring, (in.start+in.used)%len(in.ring)
	in.mu.Unlock()

	// Only this goroutine adds, so that the free part stays free meanwhile.
	first := min(n, len(ring)-at)
	if _, err := io.ReadFull(r, ring[at:at+first]); err != nil {
		return err
	}
	if _, err := io.ReadFull(r, ring[:n-first]); err != nil {
		return err
	}
	in.mu.Lock()
	if !in.closed {
		in.used += n
		in.ready.Signal()
	}
	in.mu.Unlock()
	return nil
}

// grow makes room for n bytes more; the window bounds what it can come to.
func (in *Inbound) grow(n int) {
	if in.used+n <= len(in.ring) {
		return
	}
	size := max(2*len(in.ring), 16<<10)
	for size < in.used+n {
		size *= 2
	}
	ring := make([]byte, size)
	first := copy(ring, in.ring[in.start:min(in.start+in.used, len(in.ring))])
	copy(ring[first:], in.ring[:in.used-first])
	in.ring, in.start = ring, 0
}

func (in *Inbound) end() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.ended = true
	in.ready.Broadcast()
}

// Abort makes reads return err at once and tells the peer to stop.
func (in *Inbound) Abort(err error) {
	in.fail(err)
	in.link.control(context.Background(), header{call: in.key.call, kind: kindStop, channel: in.key.channel}, nil)
}

func (in *Inbound) fail(err error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if !in.ended && in.err == nil {
		in.err = err
	}
	in.ready.Broadcast()
}
