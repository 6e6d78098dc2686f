package keeper

import (
	"sync"

	"github.com/cutoutdev/cutout/internal/audit"
)

// A fanout tells events to whoever listens without ever delaying the
// teller: a listener that falls behind loses events, which the audit log
// still has.
type fanout struct {
	mu        sync.Mutex
	listeners map[chan audit.Event]struct{}
}

// eventBacklog is how far a listener may fall behind: far more than the
// kinds of refusal that a client prints.
const eventBacklog = 1024

func (f *fanout) tell(e audit.Event) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for c := range f.listeners {
		select {
		case c <- e:
		default:
		}
	}
}

// add calls to, from one goroutine, for every event from now on. The
// returned function ends that and returns when the last event was told.
func (f *fanout) add(to func(audit.Event)) (remove func()) {
	c := make(chan audit.Event, eventBacklog)
	done := make(chan struct{})
	f.mu.Lock()
	if f.listeners == nil {
		f.listeners = make(map[chan audit.Event]struct{})
	}
	f.listeners[c] = struct{}{}
	f.mu.Unlock()
	go func() {
		defer close(done)
		for e := range c {
			to(e)
		}
	}()
	return sync.OnceFunc(func() {
		f.mu.Lock()
		delete(f.listeners, c)
		f.mu.Unlock()
		close(c)
		<-done
	})
}
