package audit

import (
	"time"

	"github.com/cutoutdev/cutout/internal/policy"
)

// A guest, or whoever comes to a published port, causes some events as fast
// as it can send, and the log is bounded: a port scan must not push out what
// matters. So the first of a kind are written as they come; of those beyond
// the rate equal ones are held and written as one, with their count. None is
// lost.
const (
	burst    = 50               // at once: more than a working program has refused
	kindRate = 1                // a second, from then on
	holdFor  = 30 * time.Second // how late a count may come
	maxHeld  = 128              // different events held; more are told as one of their kind
)

// coalesced reports whether e is of those that are bounded: all but what became
// of values, and of the sandbox.
func (e *Event) coalesced() bool {
	switch e.Event {
	case Refused, Carried, Denied, Admitted, Limited, Resolved, Spliced:
		return true
	}
	return false
}

type kind struct {
	event  string
	reason policy.Reason
}

// An allowance is a bucket of events that may be written at once.
type allowance struct {
	tokens float64
	filled time.Time
}

func (a *allowance) spend(now time.Time) bool {
	a.tokens = min(burst, a.tokens+kindRate*now.Sub(a.filled).Seconds())
	a.filled = now
	if a.tokens < 1 {
		return false
	}
	a.tokens--
	return true
}

// A coalescer is the part of a log that holds events back. Its log's lock
// guards it.
type coalescer struct {
	allowances map[kind]*allowance
	held       map[Event]Event // by what makes them equal
	flush      *time.Timer     // runs while something is held
}

// take reports whether e is held and will be written later.
func (c *coalescer) take(e Event, later func()) bool {
	k := kind{e.Event, e.Reason}
	a := c.allowances[k]
	now := time.Now() // and not the event's time of day, which may jump
	if a == nil {
		a = &allowance{tokens: burst, filled: now}
		if c.allowances == nil {
			c.allowances, c.held = make(map[kind]*allowance), make(map[Event]Event)
		}
		c.allowances[k] = a // as many as there are reasons
	}
	if a.spend(now) {
		return false
	}
	c.hold(e)
	if c.flush == nil {
		c.flush = time.AfterFunc(holdFor, later)
	}
	return true
}

// hold adds e to those that equal it but for time and destination: a scan
// goes to every port of every address.
func (c *coalescer) hold(e Event) {
	same := e
	same.Time, same.Count, same.Dst = time.Time{}, 0, ""
	if _, ok := c.held[same]; !ok && len(c.held) >= maxHeld {
		same = Event{Event: e.Event, Reason: e.Reason}
		e.Src, e.Host, e.Rule, e.Detail = "", "", "", "several, too many to tell apart"
	}
	before, ok := c.held[same]
	if ok && before.Dst != e.Dst {
		e.Dst = ""
	}
	e.Count = max(before.Count, 0) + max(e.Count, 1)
	c.held[same] = e
}

// release returns what is held.
func (c *coalescer) release() []Event {
	var out []Event
	for _, e := range c.held {
		if e.Count == 1 {
			e.Count = 0
		}
		out = append(out, e)
	}
	clear(c.held)
	if c.flush != nil {
		c.flush.Stop()
		c.flush = nil
	}
	return out
}
