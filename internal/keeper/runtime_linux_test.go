package keeper

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"sync/atomic"
	"testing"
	"unsafe"
)

// settingsEnv makes a re-executed test binary say what its runtime does.
const settingsEnv = "CUTOUT_TEST_SETTINGS"

// TestRuntimeSettings: the settings, which are no promise of Go's, have their
// effect, and a process without them is seen not to have it.
func TestRuntimeSettings(t *testing.T) {
	for _, tt := range []struct{ settings, want string }{
		{RuntimeSettings, "freed memory is overwritten, goroutines are not interrupted\n"},
		{"GODEBUG=", "freed memory stays, goroutines are interrupted\n"},
	} {
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = []string{settingsEnv + "=1", tt.settings}
		out, err := cmd.Output()
		if err != nil || string(out) != tt.want {
			t.Errorf("%s: %q, %v, want %q", tt.settings, out, err, tt.want)
		}
	}
}

// saySettings is the re-executed binary.
func saySettings() int {
	runtime.GOMAXPROCS(2)
	memory := "stays"
	erased, err := overwrites()
	if err != nil {
		fmt.Println(err)
		return 1
	}
	if erased {
		memory = "is overwritten"
	}
	goroutines := "are not interrupted"
	if interrupts() {
		goroutines = "are interrupted"
	}
	fmt.Printf("freed memory %s, goroutines %s\n", memory, goroutines)
	return 0
}

// overwrites reports whether a collection overwrites what it frees.
func overwrites() (bool, error) {
	const size, n = 1000, 64
	text := bytes.Repeat([]byte("freed"), size/5)
	var at [n]uintptr
	var kept [n][]byte // beside each that is freed, so that the memory stays in use
	for i := range at {
		b := bytes.Clone(text)
		at[i] = uintptr(unsafe.Pointer(&b[0]))
		kept[i] = bytes.Clone(text)
	}
	runtime.GC()
	runtime.GC()
	mem, err := os.Open("/proc/self/mem")
	if err != nil {
		return false, err
	}
	defer mem.Close()
	left := 0
	b := make([]byte, size)
	for _, a := range at {
		if _, err := mem.ReadAt(b, int64(a)); err != nil {
			return false, err
		}
		if bytes.Equal(b[size/2:], text[size/2:]) {
			left++
		}
	}
	runtime.KeepAlive(kept)
	switch {
	case left <= 2: // that may still be on the stack
		return true, nil
	case left >= n/2: // the others are in use again
		return false, nil
	}
	return false, fmt.Errorf("%d of %d pieces were overwritten", n-left, n)
}

// interrupts reports whether a collection begins though a goroutine calls
// nothing.
func interrupts() bool {
	var begun, over atomic.Bool
	var sum atomic.Uint64
	go func() {
		begun.Store(true)
		n := uint64(1)
		for range 1_000_000_000 {
			n = n*6364136223846793005 + 1
		}
		over.Store(true)
		sum.Store(n)
	}()
	for !begun.Load() {
		runtime.Gosched()
	}
	runtime.GC()
	return !over.Load()
}
