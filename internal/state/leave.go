package state

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// notes is where it is noted what sandboxes leave elsewhere: not in their own
// directories, where a keeper that was taken over could have any file of its
// user's removed.
func (h Home) notes() string { return filepath.Join(h.Data, "left") }

// A left is a file elsewhere that exists for one sandbox alone.
type left struct {
	Path string `json:"path"`
	Dev  uint64 `json:"dev"`
	Ino  uint64 `json:"ino"`
	Time int64  `json:"time"` // of its last change, in nanoseconds: numbers are used again
}

func leftAt(path string) (left, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return left{}, err
	}
	st := info.Sys().(*syscall.Stat_t)
	return left{Path: path, Dev: uint64(st.Dev), Ino: st.Ino, Time: info.ModTime().UnixNano()}, nil
}

// Leave notes a file elsewhere that was made for the sandbox alone. Should it
// outlive the sandbox, the next sweep removes it, unless it was changed or
// replaced.
func (s *Sandbox) Leave(path string) error {
	path, err := filepath.Abs(path)
	if err != nil {
		return fmt.Errorf("note %s: %w", path, err)
	}
	x, err := leftAt(path)
	if err != nil {
		return fmt.Errorf("note %s: %w", path, err)
	}
	line, err := json.Marshal(x)
	if err != nil {
		return fmt.Errorf("note %s: %w", path, err)
	}
	if err := os.MkdirAll(filepath.Dir(s.note), 0o700); err != nil {
		return fmt.Errorf("note %s: %w", path, err)
	}
	f, err := os.OpenFile(s.note, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("note %s: %w", path, err)
	}
	defer f.Close()
	if _, err := f.Write(append(line, '\n')); err != nil {
		return fmt.Errorf("note %s: %w", path, err)
	}
	return nil
}

// removeLeft removes what sandboxes that do not run have left elsewhere. What
// cannot be removed stays, and is not tried again.
func (h Home) removeLeft(running map[string]bool) {
	entries, _ := os.ReadDir(h.notes()) // without it there is none
	for _, e := range entries {
		if isID(e.Name()) && !running[e.Name()] {
			removeNoted(filepath.Join(h.notes(), e.Name()))
		}
	}
}

func removeNoted(note string) {
	f, err := os.Open(note)
	if err != nil {
		return
	}
	defer f.Close()
	for d := json.NewDecoder(f); ; {
		var x left
		if d.Decode(&x) != nil {
			break // the end, or a line that was cut short
		}
		if now, err := leftAt(x.Path); err == nil && now == x {
			os.Remove(x.Path)
		}
	}
	os.Remove(note)
}
