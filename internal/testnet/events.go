package testnet

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/cutoutdev/cutout/internal/audit"
)

// Events are those of an audit log whose Notify is Note. It is safe for
// concurrent use.
type Events struct {
	mu  sync.Mutex
	all []audit.Event
}

// Note adds an event.
func (e *Events) Note(x audit.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.all = append(e.all, x)
}

// All returns the events so far.
func (e *Events) All() []audit.Event {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.all)
}

// Find waits until ctx ends for an event that ok accepts.
func (e *Events) Find(ctx context.Context, ok func(audit.Event) bool) (audit.Event, bool) {
	for {
		all := e.All()
		if i := slices.IndexFunc(all, ok); i >= 0 {
			return all[i], true
		}
		select {
		case <-ctx.Done():
			return audit.Event{}, false
		case <-time.After(5 * time.Millisecond):
		}
	}
}
