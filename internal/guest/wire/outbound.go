package wire

import (
	"context"
	"io"
	"sync"
)

// Outbound is the sending half of a channel. Write, ReadFrom and Close may be
// called from one goroutine at a time. Write returns [io.ErrClosedPipe] once
// the peer wants no more.
type Outbound struct {
	link *Link
	key  key
	sent chan error // the link has written our frame
	buf  []byte     // header and payload of the frame on its way

	mu      sync.Mutex
	ready   sync.Cond
	credit  int
	stopped bool
	ended   bool
	err     error
}

func newOutbound(l *Link, k key) *Outbound {
	out := &Outbound{link: l, key: k, credit: Window, sent: make(chan error, 1)}
	out.ready.L = &out.mu
	return out
}

func (out *Outbound) Write(p []byte) (int, error) {
	total := 0
	for len(p) > 0 {
		n, err := out.room()
		if err != nil {
			return total, err
		}
		n = copy(out.buf[headerSize:headerSize+n], p)
		if err := out.send(n); err != nil {
			return total, err
		}
		total += n
		p = p[n:]
	}
	return total, nil
}

// ReadFrom sends what r gives until io.EOF, reading straight into frames.
func (out *Outbound) ReadFrom(r io.Reader) (int64, error) {
	var total int64
	for {
		room, err := out.room()
		if err != nil {
			return total, err
		}
		n, rerr := r.Read(out.buf[headerSize : headerSize+room])
		if n > 0 {
			if err := out.send(n); err != nil {
				return total, err
			}
			total += int64(n)
		}
		if rerr == io.EOF {
			return total, nil
		}
		if rerr != nil {
			return total, rerr
		}
	}
}

// Close ends the stream. It does not wait for the peer.
func (out *Outbound) Close() error {
	out.mu.Lock()
	tell := !out.ended && out.err == nil
	out.ended = true
	out.ready.Broadcast()
	out.mu.Unlock()
	if tell {
		out.link.forget(out.key, false)
		return out.link.control(context.Background(), header{call: out.key.call, kind: kindEnd, channel: out.key.channel}, nil)
	}
	return nil
}

// room waits until something may be sent and says how much.
func (out *Outbound) room() (int, error) {
	out.mu.Lock()
	defer out.mu.Unlock()
	for {
		switch {
		case out.err != nil:
			return 0, out.err
		case out.stopped || out.ended:
			return 0, io.ErrClosedPipe
		case out.credit > 0:
			if out.buf == nil {
				out.buf = make([]byte, headerSize+maxData)
			}
			return min(out.credit, maxData), nil
		}
		out.ready.Wait()
	}
}

// send sends the first n bytes of the buffer's payload and waits until they
// are written.
func (out *Outbound) send(n int) error {
	out.mu.Lock()
	out.credit -= n
	out.mu.Unlock()
	header{call: out.key.call, kind: kindData, channel: out.key.channel, length: n}.put(out.buf)
	select {
	case out.link.bulk <- bulk{out.buf[:headerSize+n], out.sent}:
	case <-out.link.dead:
		return out.link.Err()
	}
	select {
	case err := <-out.sent:
		return err
	case <-out.link.dead:
		// The writer may still hold the buffer: it must not be used again.
		return out.link.Err()
	}
}

// add widens the window by what the peer says it has consumed, which can never
// be more than it was sent.
func (out *Outbound) add(n uint32) error {
	out.mu.Lock()
	defer out.mu.Unlock()
	if n == 0 || n > Window || out.credit+int(n) > Window {
		return violation("a window wider than it was")
	}
	out.credit += int(n)
	out.ready.Signal()
	return nil
}

func (out *Outbound) stop() {
	out.mu.Lock()
	defer out.mu.Unlock()
	out.stopped = true
	out.ready.Broadcast()
}

// Abort makes writes return err at once and ends the stream.
func (out *Outbound) Abort(err error) {
	out.fail(err)
	out.link.control(context.Background(), header{call: out.key.call, kind: kindEnd, channel: out.key.channel}, nil)
}

func (out *Outbound) fail(err error) {
	out.mu.Lock()
	defer out.mu.Unlock()
	if out.err == nil {
		out.err = err
	}
	out.ready.Broadcast()
}
