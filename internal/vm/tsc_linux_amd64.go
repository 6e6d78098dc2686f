package vm

import (
	"math"
	"time"

	"golang.org/x/sys/unix"
)

// rdtsc reads the time stamp counter.
func rdtsc() uint64

// measureTSC compares the counter with the kernel's raw clock over 2 ms.
func measureTSC() int {
	t0, c0 := bothClocks()
	time.Sleep(2 * time.Millisecond)
	t1, c1 := bothClocks()
	if t1 <= t0 || c1 <= c0 {
		return 0
	}
	return int(math.Round(float64(c1-c0) * 1e6 / float64(t1-t0)))
}

// bothClocks reads both clocks at one moment: of several readings the one that
// was interrupted least.
func bothClocks() (nano int64, count uint64) {
	best := uint64(math.MaxUint64)
	for range 8 {
		var t unix.Timespec
		before := rdtsc()
		if unix.ClockGettime(unix.CLOCK_MONOTONIC_RAW, &t) != nil {
			return 0, 0
		}
		if took := rdtsc() - before; took < best {
			best, nano, count = took, t.Nano(), before+took/2
		}
	}
	return nano, count
}
