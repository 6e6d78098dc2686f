package keeper

import (
	"context"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// memoryLimit is what the collector holds the keeper to, by working harder, if
// it can, and on a busy machine it comes late: the process stays under 300 MB.
// What is alive under a flood that fills every connection is 150 MB, of which
// the collector would otherwise let twice as much come together.
const memoryLimit = 208 << 20

// A saver gives memory back that a busy moment has left. The runtime does it
// late: where little is allocated, the next collection is two minutes away.
type saver struct {
	allocated uint64 // so far, when it was looked at last
	calm      int    // how often little was allocated since
}

const (
	saverPause = 10 * time.Second
	// saverCalm is how much may be allocated in a pause that is calm.
	saverCalm = 16 << 20
	// saverLeast is how much memory is worth a collection: more than an idle
	// keeper has.
	saverLeast = 64 << 20
)

// look is called after each pause with all that was ever allocated and the
// memory in use. It reports whether memory should be given back: when it has
// become calm, and then ever more rarely, because connections linger.
func (s *saver) look(allocated, used uint64) bool {
	busy := allocated-s.allocated > saverCalm
	s.allocated = allocated
	if busy {
		s.calm = 0
		return false
	}
	s.calm++
	return used > saverLeast && s.calm&(s.calm-1) == 0
}

// saveMemory keeps the process small until ctx ends.
func saveMemory(ctx context.Context) {
	debug.SetMemoryLimit(memoryLimit)
	samples := []metrics.Sample{
		{Name: "/gc/heap/allocs:bytes"},
		{Name: "/memory/classes/total:bytes"},
		{Name: "/memory/classes/heap/released:bytes"},
	}
	tick := time.NewTicker(saverPause)
	defer tick.Stop()
	for s := new(saver); ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		metrics.Read(samples)
		allocated, total, released := samples[0].Value.Uint64(), samples[1].Value.Uint64(), samples[2].Value.Uint64()
		if s.look(allocated, total-released) {
			debug.FreeOSMemory()
		}
	}
}
