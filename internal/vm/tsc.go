package vm

import "sync"

// TSCKHz is the rate of the host's time stamp counter in kHz, or 0 if it has
// none that is constant or cannot be measured. An emulated guest is told it,
// since it reads the host's counter and may fail to calibrate it. The first
// call takes about 2 ms.
func TSCKHz() int { return tscKHz() }

var tscKHz = sync.OnceValue(measureTSC)
