package wire

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"sync"
)

// ErrClosed is a link's error after Close.
var ErrClosed = errors.New("link closed")

// A Message is one message from the peer. Body is valid only until the
// handler returns.
type Message struct {
	Call uint32
	Kind Kind
	Body []byte
}

// Decode reads the body into v.
func (m Message) Decode(v any) error {
	if err := json.Unmarshal(m.Body, v); err != nil {
		return violation("message %d cannot be read", m.Kind)
	}
	return nil
}

type key struct {
	call    uint32
	channel uint8
}

type bulk struct {
	frame []byte
	sent  chan<- error
}

// A Link is one end of the connection. Its Run must be running for anything
// to move.
type Link struct {
	rw         io.ReadWriteCloser
	br         *bufio.Reader
	maxMessage int

	bulk chan bulk     // data frames, one at a time
	wake chan struct{} // there is control to write
	dead chan struct{} // closed at the end
	idle sync.WaitGroup

	mu      sync.Mutex
	queue   []byte        // control frames to be written, before any data
	drained chan struct{} // closed when the queue has been taken; nil: nobody waits
	in      map[key]*Inbound
	out     map[key]*Outbound
	last    uint32 // highest call that was opened
	err     error
}

// NewLink makes a link over rw, whose Close must make a blocked Read and Write
// return. A message of more than maxMessage bytes from the peer ends the link.
func NewLink(rw io.ReadWriteCloser, maxMessage int) *Link {
	l := &Link{
		rw:         rw,
		br:         bufio.NewReaderSize(rw, 32<<10),
		maxMessage: maxMessage,
		bulk:       make(chan bulk),
		wake:       make(chan struct{}, 1),
		dead:       make(chan struct{}),
		in:         make(map[key]*Inbound),
		out:        make(map[key]*Outbound),
	}
	l.idle.Go(l.write)
	return l
}

// Done is closed when the link has ended.
func (l *Link) Done() <-chan struct{} { return l.dead }

// Err tells why the link ended, nil if it has not.
func (l *Link) Err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

// Close ends the link and everything on it.
func (l *Link) Close() error {
	l.fail(ErrClosed)
	l.idle.Wait()
	return nil
}

// fail ends the link; the first error stays.
func (l *Link) fail(err error) {
	l.mu.Lock()
	if l.err != nil {
		l.mu.Unlock()
		return
	}
	l.err = err
	in, out := l.in, l.out
	l.in, l.out = nil, nil
	close(l.dead)
	l.mu.Unlock()
	l.rw.Close()
	for _, c := range in {
		c.fail(err)
	}
	for _, c := range out {
		c.fail(err)
	}
}

// Open makes the named channels of a new call, whose number must be higher
// than that of any before.
func (l *Link) Open(call uint32, in, out []uint8) ([]*Inbound, []*Outbound, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return nil, nil, l.err
	}
	if call <= l.last {
		return nil, nil, violation("call %d after call %d", call, l.last)
	}
	l.last = call
	ins, outs := make([]*Inbound, len(in)), make([]*Outbound, len(out))
	for i, c := range in {
		k := key{call, c}
		ins[i] = newInbound(l, k)
		l.in[k] = ins[i]
	}
	for i, c := range out {
		k := key{call, c}
		outs[i] = newOutbound(l, k)
		l.out[k] = outs[i]
	}
	return ins, outs, nil
}

// Drop forgets the channels of a call that is over. Frames for it that are
// still on their way are ignored.
func (l *Link) Drop(call uint32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for c := range channels {
		delete(l.in, key{call, c})
		delete(l.out, key{call, c})
	}
}

// forget drops one half of a channel that is over.
func (l *Link) forget(k key, inbound bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if inbound {
		delete(l.in, k)
	} else {
		delete(l.out, k)
	}
}

// Restart forgets the calls so far, all of which must be over: the peer is
// another one, which numbers its own from 1.
func (l *Link) Restart() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last = 0
}

// Opened says whether a call of that number has ever been opened.
func (l *Link) Opened(call uint32) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return call <= l.last
}
