package netstack

import (
	"context"
	"time"

	"golang.org/x/time/rate"
)

// A Rate bounds what passes in one direction; 0 is no bound.
type Rate struct {
	Bytes   float64 // a second, headers included
	Packets float64 // a second
}

// rateBurst is how much may pass at once after a pause, in seconds of the
// rate: short enough not to be felt on the other side, and more than the
// timers' grain.
const rateBurst = 0.1

// A limiter holds a direction to its rate. What is over it waits, and with it
// whoever sends: nothing is lost.
type limiter struct {
	ctx            context.Context
	bytes, packets *rate.Limiter // nil: no bound
	slowed         func()        // told when something waits
}

// newLimiter returns nil, which lets everything pass, if r has no bound.
func newLimiter(ctx context.Context, r Rate, mtu int, slowed func()) *limiter {
	if r == (Rate{}) {
		return nil
	}
	l := &limiter{ctx: ctx, slowed: slowed}
	if r.Bytes > 0 { // one frame must fit
		l.bytes = rate.NewLimiter(rate.Limit(r.Bytes), max(int(r.Bytes*rateBurst), mtu+ethernetLen))
	}
	if r.Packets > 0 {
		l.packets = rate.NewLimiter(rate.Limit(r.Packets), max(int(r.Packets*rateBurst), maxBatch))
	}
	return l
}

// maxBatch is more frames than the stack writes at once.
const maxBatch = 256

// wait blocks until packets with as many bytes may pass, or the stack is
// closed.
func (l *limiter) wait(packets, bytes int) {
	if l == nil {
		return
	}
	l.waitFor(l.packets, packets)
	l.waitFor(l.bytes, bytes)
}

func (l *limiter) waitFor(r *rate.Limiter, n int) {
	if r == nil {
		return
	}
	for n > 0 {
		part := min(n, r.Burst())
		if n -= part; r.AllowN(time.Now(), part) {
			continue
		}
		l.slowed()
		if r.WaitN(l.ctx, part) != nil {
			return
		}
	}
}
