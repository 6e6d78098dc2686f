package state

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// TestLeft: what a sandbox that was killed has left elsewhere is removed by
// the next sweep, unless somebody has made it his; what one that runs has made
// stays.
func TestLeft(t *testing.T) {
	h := testHome(t)
	dir := t.TempDir()
	s, err := h.New()
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, text string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for _, name := range []string{"kept", "changed", "replaced"} {
		if err := s.Leave(write(name, "ours")); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Leave(filepath.Join(dir, "nothing")); err == nil {
		t.Error("noted what is not there")
	}
	names := func() (list []string) {
		entries, _ := os.ReadDir(dir)
		for _, e := range entries {
			list = append(list, e.Name())
		}
		return list
	}
	if err := h.Sweep(KeepLogs); err != nil || len(names()) != 3 {
		t.Errorf("while it runs: %v, left are %v", err, names())
	}
	later := time.Now().Add(time.Second)
	if err := os.Chtimes(write("changed", "theirs"), later, later); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(write("other", "theirs"), filepath.Join(dir, "replaced")); err != nil {
		t.Fatal(err)
	}
	// A keeper that was taken over writes where it can.
	note, err := os.ReadFile(s.note)
	if err != nil {
		t.Fatal(err)
	}
	forged, err := leftAt(write("forged", "theirs"))
	if err != nil {
		t.Fatal(err)
	}
	line, _ := json.Marshal(forged)
	for _, dir := range []string{s.Dir, s.Runtime} {
		for _, name := range []string{"left", s.ID} {
			if err := os.WriteFile(filepath.Join(dir, name), append(note, line...), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	s.Lock.Close() // as when its processes are killed
	if err := h.Sweep(KeepLogs); err != nil {
		t.Fatal(err)
	}
	if got := names(); !slices.Equal(got, []string{"changed", "forged", "replaced"}) {
		t.Errorf("left are %v", got)
	}
}

// TestLeftEnded: the sweep has nothing to do for one that ended as it should,
// whatever is at its places now.
func TestLeftEnded(t *testing.T) {
	h := testHome(t)
	s, err := h.New()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "kept")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.Leave(path); err != nil {
		t.Fatal(err)
	}
	if err := s.End(); err != nil {
		t.Fatal(err)
	}
	if err := h.Sweep(KeepLogs); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Error(err)
	}
}
