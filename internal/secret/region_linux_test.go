package secret

import (
	"bufio"
	"fmt"
	"os"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

func uintptrOfBytes(b []byte) uintptr { return uintptr(unsafe.Pointer(unsafe.SliceData(b))) }

func uintptrOf(v Value) uintptr { return uintptrOfBytes(v.bytes()) }

// smapsFlags returns the VmFlags of the mapping that holds addr.
func smapsFlags(t *testing.T, addr uint64) string {
	t.Helper()
	f, err := os.Open("/proc/self/smaps")
	if err != nil {
		t.Skipf("no /proc/self/smaps here: %v", err)
	}
	defer f.Close()
	inside := false
	for sc := bufio.NewScanner(f); sc.Scan(); {
		var from, to uint64
		if n, _ := fmt.Sscanf(sc.Text(), "%x-%x ", &from, &to); n == 2 {
			inside = from <= addr && addr < to
		}
		if flags, ok := strings.CutPrefix(sc.Text(), "VmFlags:"); ok && inside {
			return strings.TrimSpace(flags)
		}
	}
	t.Fatalf("no mapping at %x", addr)
	return ""
}

// TestRegionIsHidden reads the region the ways another process would.
func TestRegionIsHidden(t *testing.T) {
	st := newStore(t)
	v := load(t, st, "canary-in-the-region")
	t.Logf("region is %s", st.Kind())
	at := int64(uintptrOf(v))
	mem, err := os.Open("/proc/self/mem")
	if err != nil {
		t.Skipf("no /proc/self/mem here: %v", err)
	}
	defer mem.Close()
	buf := make([]byte, v.Len())
	_, err = mem.ReadAt(buf, at)
	if st.Kind() == "memfd_secret" && err == nil {
		t.Error("the region can be read through /proc/self/mem")
	}
	flags := smapsFlags(t, uint64(at))
	want := "dc" // do not copy on fork
	if st.Kind() == "mlock" {
		want = "lo dd dc wf"
	}
	for f := range strings.FieldsSeq(want) {
		if !strings.Contains(" "+flags+" ", " "+f+" ") {
			t.Errorf("VmFlags of the region are %q, want %s", flags, f)
		}
	}
}

// TestFallbackRegion checks the locked mapping for systems without
// memfd_secret.
func TestFallbackRegion(t *testing.T) {
	b, err := mapLocked(1 << 16)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(b)
	b[0] = 1
	flags := smapsFlags(t, uint64(uintptrOfBytes(b)))
	for _, f := range []string{"lo", "dd", "dc", "wf"} {
		if !strings.Contains(" "+flags+" ", " "+f+" ") {
			t.Errorf("VmFlags are %q, want %s", flags, f)
		}
	}
}
