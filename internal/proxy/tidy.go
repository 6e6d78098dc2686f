package proxy

import (
	"runtime"
	"sync/atomic"
	"time"
)

const (
	// quiet is how long no request may be in progress before memory is
	// tidied: longer than a client pauses within one piece of work.
	quiet = time.Second
	// linger is longer than net/http's client keeps a closed HTTP/2
	// connection, buffers and all (5 s).
	linger = 6 * time.Second
)

// A tidier erases what requests with a value may have left in memory that is
// no longer used: old record buffers of crypto/tls, read buffers of closed
// connections. A keeper's runtime overwrites what it frees; in an idle process
// no collection would come for two minutes.
type tidier struct {
	due   atomic.Bool // a value was written or met since the last time
	late  atomic.Bool // once more, for what lingers
	timer *time.Timer
}

// newTidier returns a tidier that does nothing while busy.
func newTidier(busy func() bool) *tidier {
	t := new(tidier)
	t.timer = time.AfterFunc(time.Hour, func() {
		due := t.due.Load()
		if busy() || !due && !t.late.Load() {
			return // the last request to end sets the timer again
		}
		t.due.Store(false)
		t.late.Store(due)
		if due {
			t.timer.Reset(linger)
		}
		// sync.Pool keeps its items over the first.
		runtime.GC()
		runtime.GC()
	})
	t.timer.Stop()
	return t
}

// rest is called when no request is in progress.
func (t *tidier) rest() {
	if t.due.Load() || t.late.Load() {
		t.timer.Reset(quiet)
	}
}
