package state

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A Sandbox is the place of one sandbox. It counts as running for as long
// as some process holds Lock open.
type Sandbox struct {
	ID      string
	Dir     string   // kept after the end: audit log, console
	Runtime string   // removed at the end: sockets
	Lock    *os.File // locked; inherited by the keeper, which thereby holds the lock

	note string // of Leave
}

// AuditLog is the path of the sandbox's audit log.
func (s *Sandbox) AuditLog() string { return filepath.Join(s.Dir, auditName) }

// AuditLog is the path of the audit log of the sandbox id.
func (h Home) AuditLog(id string) string { return filepath.Join(h.Sandbox(id), auditName) }

// Console is the path of what the guest's kernel printed.
func (s *Sandbox) Console() string { return filepath.Join(s.Dir, consoleName) }

const (
	auditName     = "audit.jsonl"
	keeperLogName = "keeper.log"
	consoleName   = "console.log"
	lockName      = "lock"
)

// New makes the place of a new sandbox, under a fresh random ID, and locks
// it.
func (h Home) New() (*Sandbox, error) {
	unlock, err := h.lock(unix.LOCK_EX) // a sweep must not see it before it is locked
	if err != nil {
		return nil, err
	}
	defer unlock()
	id := newID()
	s := &Sandbox{ID: id, Dir: h.Sandbox(id), Runtime: h.SandboxRuntime(id), note: filepath.Join(h.notes(), id)}
	for _, dir := range []string{s.Dir, s.Runtime} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, errors.Join(fmt.Errorf("make sandbox directory: %w", err), s.Remove())
		}
	}
	s.Lock, err = os.OpenFile(filepath.Join(s.Dir, lockName), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err == nil {
		err = flock(s.Lock, unix.LOCK_EX|unix.LOCK_NB)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock sandbox: %w", err), s.Remove())
	}
	return s, nil
}

// newID returns 48 random bits: nobody guesses them, and two sandboxes of
// one user never meet.
func newID() string {
	var b [6]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// End closes the sandbox: its runtime directory goes, its audit log stays.
// Whoever told [Sandbox.Leave] of a file removes it himself.
func (s *Sandbox) End() error {
	os.Remove(s.note)
	err := os.RemoveAll(s.Runtime)
	return errors.Join(err, s.Lock.Close())
}

// Remove deletes the sandbox without trace, for one that never started.
func (s *Sandbox) Remove() error {
	os.Remove(s.note)
	err := errors.Join(os.RemoveAll(s.Dir), os.RemoveAll(s.Runtime))
	if s.Lock != nil {
		err = errors.Join(err, s.Lock.Close())
	}
	return err
}

// An Entry is a sandbox that runs or has left an audit log.
type Entry struct {
	ID      string
	Started time.Time
	Running bool
}

// List returns the sandboxes, the newest first.
func (h Home) List() ([]Entry, error) {
	dirs, err := os.ReadDir(h.Sandboxes())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list sandboxes: %w", err)
	}
	var out []Entry
	for _, d := range dirs {
		if !d.IsDir() {
			continue
		}
		// The lock file is made at the start and never written.
		info, err := os.Lstat(filepath.Join(h.Sandbox(d.Name()), lockName))
		if err != nil {
			if info, err = d.Info(); err != nil {
				continue // swept meanwhile
			}
		}
		out = append(out, Entry{ID: d.Name(), Started: info.ModTime(), Running: h.Running(d.Name())})
	}
	slices.SortFunc(out, func(a, b Entry) int {
		if c := b.Started.Compare(a.Started); c != 0 {
			return c
		}
		return strings.Compare(a.ID, b.ID)
	})
	return out, nil
}

// Running reports whether some process holds the sandbox's lock.
func (h Home) Running(id string) bool {
	f, err := os.Open(filepath.Join(h.Sandbox(id), lockName))
	if err != nil {
		return false
	}
	defer f.Close()
	return flock(f, unix.LOCK_SH|unix.LOCK_NB) != nil
}

// ErrNoSandbox is the error of Find when nothing fits.
var ErrNoSandbox = errors.New("no such sandbox")

// Find returns the sandbox that name means: an ID, an unambiguous beginning
// of one, or "latest", the one started last.
func (h Home) Find(name string) (Entry, error) {
	all, err := h.List()
	if err != nil {
		return Entry{}, err
	}
	if name == "latest" && len(all) > 0 {
		return all[0], nil
	}
	var found []Entry
	for _, e := range all {
		if e.ID == name {
			return e, nil
		}
		if name != "" && strings.HasPrefix(e.ID, name) {
			found = append(found, e)
		}
	}
	switch len(found) {
	case 0:
		return Entry{}, fmt.Errorf("find sandbox %q: %w", name, ErrNoSandbox)
	case 1:
		return found[0], nil
	}
	return Entry{}, fmt.Errorf("find sandbox %q: %d sandboxes begin with it", name, len(found))
}
