package wire

import (
	"context"
	"encoding/binary"
	"encoding/json"
)

// Send sends v as a message. It waits, up to ctx (nil: for ever), only while
// too much is queued.
func (l *Link) Send(ctx context.Context, call uint32, kind Kind, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return l.control(ctx, header{call: call, kind: kind}, body)
}

// control queues a control frame, or as many as body needs, in one run.
func (l *Link) control(ctx context.Context, h header, body []byte) error {
	var cancelled <-chan struct{}
	if ctx != nil {
		cancelled = ctx.Done()
	}
	l.mu.Lock()
	for l.err == nil && len(l.queue) > maxQueue {
		if l.drained == nil {
			l.drained = make(chan struct{})
		}
		drained := l.drained
		l.mu.Unlock()
		select {
		case <-drained:
		case <-l.dead:
		case <-cancelled:
			return ctx.Err()
		}
		l.mu.Lock()
	}
	defer l.mu.Unlock()
	if l.err != nil {
		return l.err
	}
	for {
		part := body[:min(len(body), maxPayload)]
		body = body[len(part):]
		h.length, h.more = len(part), len(body) > 0
		var b [headerSize]byte
		h.put(b[:])
		l.queue = append(append(l.queue, b[:]...), part...)
		if !h.more {
			break
		}
	}
	select {
	case l.wake <- struct{}{}:
	default:
	}
	return nil
}

func (l *Link) window(k key, n int) {
	l.control(context.Background(), header{call: k.call, kind: kindWindow, channel: k.channel}, binary.BigEndian.AppendUint32(nil, uint32(n)))
}

// Flush waits until all messages sent before it are written.
func (l *Link) Flush() error {
	sent := make(chan error, 1)
	select {
	case l.bulk <- bulk{nil, sent}: // taken only when the queue is empty
	case <-l.dead:
		return l.Err()
	}
	select {
	case err := <-sent:
		return err
	case <-l.dead:
		return l.Err()
	}
}

// write is the only goroutine that writes. Control goes before data.
func (l *Link) write() {
	for {
		if err := l.writeQueue(); err != nil {
			l.fail(broken(err))
			return
		}
		select {
		case <-l.wake:
		case b := <-l.bulk:
			err := l.writeQueue()
			if err == nil && len(b.frame) > 0 {
				_, err = l.rw.Write(b.frame)
			}
			if err != nil {
				l.fail(broken(err))
				return
			}
			b.sent <- nil
		case <-l.dead:
			return
		}
	}
}

func (l *Link) writeQueue() error {
	for {
		l.mu.Lock()
		queue := l.queue
		l.queue = nil
		if l.drained != nil {
			close(l.drained)
			l.drained = nil
		}
		l.mu.Unlock()
		if len(queue) == 0 {
			return nil
		}
		if _, err := l.rw.Write(queue); err != nil {
			return err
		}
	}
}
