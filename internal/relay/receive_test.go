package relay

import (
	"net/netip"
	"runtime"
	"sync/atomic"
	"testing"
	"time"
)

// datagrams has the relay pass one datagram in each of n sessions.
func (w *world) datagrams(first, n int, reply func([]byte) error) {
	for i := range n {
		src := netip.AddrPortFrom(netip.MustParseAddr("10.99.0.2"), uint16(first+i))
		w.relay.Datagram(Datagram{
			Src: src, Dst: netip.MustParseAddrPort("93.184.216.34:9"), Payload: []byte("x"),
			Reply: reply, Refuse: func() {},
		})
	}
}

// TestSessionMemory: what waits for an answer holds no buffer for one.
func TestSessionMemory(t *testing.T) {
	w := newWorld(t, nil)
	heap := func() int64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.GC() // and pools
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	const sessions = 400
	before := heap()
	var answers atomic.Int32
	for i := range sessions {
		w.datagrams(20000+i, 1, func([]byte) error { answers.Add(1); return nil })
		for start := time.Now(); answers.Load() <= int32(i) && time.Since(start) < patience; {
			time.Sleep(100 * time.Microsecond)
		}
	}
	if n := answers.Load(); n != sessions {
		t.Fatalf("%d answers", n)
	}
	if each := (heap() - before) / sessions; each > 16<<10 {
		t.Errorf("a session takes %d bytes", each)
	}
}

// TestStuckReply: a guest that takes no answers holds up nobody, not even
// where the session that waits for it has to end.
func TestStuckReply(t *testing.T) {
	w := newWorld(t, nil)
	stuck, release := make(chan struct{}), make(chan struct{})
	w.datagrams(20000, 1, func([]byte) error { close(stuck); <-release; return nil })
	<-stuck
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.datagrams(30000, maxSessions, func([]byte) error { return nil })
	}()
	select {
	case <-done:
	case <-time.After(patience):
		t.Error("others wait for it")
	}
	close(release)
	<-done
}
