package keeper

import (
	"slices"
	"testing"
)

// TestSaver: memory is given back when a busy moment is over, a few times,
// and neither under load nor where there is little.
func TestSaver(t *testing.T) {
	const large, small = 200 << 20, 20 << 20
	var s saver
	var allocated uint64
	// during looks n times while each pause allocates step, and returns at
	// which of them memory was given back.
	during := func(n int, step, used uint64) (at []int) {
		for i := range n {
			allocated += step
			if s.look(allocated, used) {
				at = append(at, i)
			}
		}
		return at
	}
	if at := during(10, 1<<30, large); at != nil {
		t.Errorf("under load: %v", at)
	}
	if at := during(20, 1<<20, large); !slices.Equal(at, []int{0, 1, 3, 7, 15}) {
		t.Errorf("calm, with much: %v", at)
	}
	during(1, 1<<30, large)
	if at := during(20, 0, small); at != nil {
		t.Errorf("calm, with little: %v", at)
	}
}
