package attack

import (
	"os"
	"runtime"
	"sync/atomic"
	"time"
)

// long runs floods in the size that ATTACKS.md gives them.
var long = os.Getenv("CUTOUT_TEST_LONG") != ""

// sized is how much of something a flood sends.
func sized(short, full int) int {
	if long {
		return full
	}
	return short
}

// watch begins to measure how much memory is in use over what is now. The
// function that it returns ends that and says how much it was at most.
//
// Only what a collection leaves counts, so that the figure does not depend on
// when the collector last ran.
func watch() (most func() uint64) {
	rest := live()
	var peak atomic.Uint64
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			if n := live(); n > rest {
				peak.Store(max(peak.Load(), n-rest))
			}
			select {
			case <-done:
				return
			case <-time.After(100 * time.Millisecond):
			}
		}
	}()
	return func() uint64 {
		close(done)
		<-ended
		return peak.Load()
	}
}

// live is the memory of the heap that is in use.
func live() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
