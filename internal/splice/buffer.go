package splice

import (
	"sync"
	"sync/atomic"
)

// Sizes of buffers. Where little moves a small one does. What fills it is lent
// a large one while there are some: as long as what fits into one segment on
// the guest's link (MTU 65520, less at most 72 bytes of headers) and no longer,
// or every other segment would be tiny. Together these take 8 MiB at the most,
// and the small ones of as many connections as a sandbox may have take 16 MiB.
const (
	smallBuffer = 4 << 10
	largeBuffer = 64<<10 - 512
	maxLarge    = 128
)

var (
	large = sync.Pool{New: func() any { return new([largeBuffer]byte) }}
	lent  atomic.Int32
)

// A buffer is that of one direction. The zero buffer is small.
type buffer struct {
	small [smallBuffer]byte
	large *[largeBuffer]byte // nil = none
}

func (b *buffer) bytes() []byte {
	if b.large != nil {
		return b.large[:]
	}
	return b.small[:]
}

// fit is called when n bytes were read, and none of them is needed any more.
func (b *buffer) fit(n int) {
	switch {
	case b.large != nil && n <= smallBuffer:
		b.shrink()
	case b.large == nil && n == smallBuffer:
		if lent.Add(1) > maxLarge {
			lent.Add(-1)
			return
		}
		b.large = large.Get().(*[largeBuffer]byte)
	}
}

// shrink gives the large buffer back.
func (b *buffer) shrink() {
	if b.large != nil {
		large.Put(b.large)
		b.large = nil
		lent.Add(-1)
	}
}
