package state

import (
	"os"
	"testing"
	"time"
)

// What a killed command was writing, a root file system of hundreds of
// megabytes for one, is swept; what may still be written is not.
func TestSweepTemporary(t *testing.T) {
	dir := t.TempDir()
	h := Home{Data: dir, Runtime: dir + "/run"}
	for _, place := range []string{h.Data, h.Kernel(), h.Downloads()} {
		if err := os.MkdirAll(place, 0o700); err != nil {
			t.Fatal(err)
		}
		old, err := CreateTemp(place)
		if err != nil {
			t.Fatal(err)
		}
		old.Close()
		before := time.Now().Add(-temporaryAge - time.Hour)
		if err := os.Chtimes(old.Name(), before, before); err != nil {
			t.Fatal(err)
		}
		fresh, err := CreateTemp(place)
		if err != nil {
			t.Fatal(err)
		}
		fresh.Close()
		if err := h.Sweep(KeepLogs); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(old.Name()); err == nil {
			t.Errorf("%s is left", old.Name())
		}
		if _, err := os.Stat(fresh.Name()); err != nil {
			t.Errorf("%v", err)
		}
	}
}
