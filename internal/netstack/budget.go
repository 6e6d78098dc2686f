package netstack

import "sync"

// The sandbox's memory for TCP buffers. Half is shared out: a connection gets
// at most maxBuffer per direction and at most an eighth of what is left, so
// the first forty are fast and none takes all. Who comes when nothing is left
// gets minBuffer, and the 2048 that the proxy takes fill the other half.
const (
	adaptiveBudget = 32 << 20
	maxBuffer      = 2 << 20
	minBuffer      = 8 << 10
)

// A budget counts the bytes of connections' buffers.
type budget struct {
	mu   sync.Mutex
	used int
}

// take returns the size of both buffers of a new connection.
func (b *budget) take() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	size := min(maxBuffer, max(minBuffer, (adaptiveBudget-b.used)/2/8))
	b.used += 2 * size
	return size
}

func (b *budget) give(size int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.used -= 2 * size
}
