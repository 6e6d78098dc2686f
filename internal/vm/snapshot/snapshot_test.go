package snapshot

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// kind is that of a machine made from one file.
func kind(t *testing.T, path string) Kind {
	t.Helper()
	f, err := Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return Kind{Machine: []string{"qemu", "-m", "512"}, Files: []File{f}, TSCKHz: 2_000_000}
}

func write(t *testing.T, path, text string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func testStore(t *testing.T) (*Store, Kind) {
	t.Helper()
	dir := t.TempDir()
	return &Store{Dir: filepath.Join(dir, "snapshots")}, kind(t, write(t, filepath.Join(dir, "kernel"), "kernel"))
}

func put(t *testing.T, s *Store, k Kind, state []byte) {
	t.Helper()
	w, err := s.Create(k, int64(len(state)))
	if err != nil {
		t.Fatal(err)
	}
	defer w.Abort()
	for part := range bytes.SplitAfterSeq(state, []byte{0}) {
		if _, err := w.Write(part); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Commit(); err != nil {
		t.Fatal(err)
	}
}

func get(s *Store, k Kind) ([]byte, error) {
	r, err := s.Open(k)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

func noise(n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{1}).Read(b)
	return b
}

func TestStored(t *testing.T) {
	s, k := testStore(t)
	if _, err := get(s, k); !errors.Is(err, ErrNone) {
		t.Errorf("of an empty store: %v", err)
	}
	for _, state := range [][]byte{nil, []byte("state"), noise(1 << 20)} {
		put(t, s, k, state)
		if got, err := get(s, k); err != nil || !bytes.Equal(got, state) {
			t.Errorf("%d bytes, %v; stored were %d", len(got), err, len(state))
		}
	}
	near := k
	near.TSCKHz += 1000
	if _, err := get(s, near); err != nil {
		t.Errorf("with another measurement of the same counter: %v", err)
	}
	info, err := os.Stat(s.path(k))
	if err != nil || info.Mode() != 0o400 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

// A snapshot is of one kind of machine.
func TestOtherKind(t *testing.T) {
	for name, change := range map[string]func(*Kind){
		"machine": func(k *Kind) { k.Machine = append(k.Machine, "-smp", "2") },
		"file":    func(k *Kind) { k.Files[0].ModTime++ },
		"counter": func(k *Kind) { k.TSCKHz += 10_000 },
		"no rate": func(k *Kind) { k.TSCKHz = 0 },
	} {
		t.Run(name, func(t *testing.T) {
			s, k := testStore(t)
			put(t, s, k, []byte("state"))
			change(&k)
			if _, err := get(s, k); !errors.Is(err, ErrNone) {
				t.Errorf("error %v", err)
			}
		})
	}
}

// Whatever is done to the file, it is refused, gone afterwards, and no reader
// sees an end of the state (E12).
func TestChanged(t *testing.T) {
	state := noise(100_000)
	for name, change := range map[string]func(t *testing.T, s *Store, k Kind, file []byte) []byte{
		"cut in the state": func(t *testing.T, s *Store, k Kind, file []byte) []byte { return file[:len(file)/2] },
		"cut by one":       func(t *testing.T, s *Store, k Kind, file []byte) []byte { return file[:len(file)-1] },
		"cut by the seal":  func(t *testing.T, s *Store, k Kind, file []byte) []byte { return file[:len(file)-sealSize] },
		"cut in the kind":  func(t *testing.T, s *Store, k Kind, file []byte) []byte { return file[:len(magic)+10] },
		"empty":            func(t *testing.T, s *Store, k Kind, file []byte) []byte { return nil },
		"longer":           func(t *testing.T, s *Store, k Kind, file []byte) []byte { return append(file, 0) },
		"noise":            func(t *testing.T, s *Store, k Kind, file []byte) []byte { return noise(len(file)) },
		"a huge kind":      func(t *testing.T, s *Store, k Kind, file []byte) []byte { file[len(magic)] = 0xff; return file },
		"another key": func(t *testing.T, s *Store, k Kind, file []byte) []byte {
			write(t, filepath.Join(s.Dir, "key"), strings.Repeat("x", keySize))
			return file
		},
		"no key": func(t *testing.T, s *Store, k Kind, file []byte) []byte {
			os.Remove(filepath.Join(s.Dir, "key"))
			return file
		},
		"sealed with a known key": func(t *testing.T, s *Store, k Kind, file []byte) []byte {
			forger := &Store{Dir: t.TempDir()}
			put(t, forger, k, []byte("a machine of the forger's"))
			forged, err := os.ReadFile(forger.path(k))
			if err != nil {
				t.Fatal(err)
			}
			return forged
		},
		"another kind's": func(t *testing.T, s *Store, k Kind, _ []byte) []byte {
			other := k
			other.Machine = []string{"another"}
			put(t, s, other, state)
			file, err := os.ReadFile(s.path(other))
			if err != nil {
				t.Fatal(err)
			}
			return file
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, k := testStore(t)
			put(t, s, k, state)
			file, err := os.ReadFile(s.path(k))
			if err != nil {
				t.Fatal(err)
			}
			replaceFile(t, s.path(k), change(t, s, k, file), 0o400)
			checkRefused(t, s, k)
		})
	}
	t.Run("every byte", func(t *testing.T) {
		s, k := testStore(t)
		put(t, s, k, []byte("a short state"))
		file, err := os.ReadFile(s.path(k))
		if err != nil {
			t.Fatal(err)
		}
		for i := range file {
			changed := bytes.Clone(file)
			changed[i] ^= 0x20
			replaceFile(t, s.path(k), changed, 0o400)
			if got, err := get(s, k); err == nil {
				t.Fatalf("byte %d changed: %q", i, got)
			}
		}
	})
}

func replaceFile(t *testing.T, path string, data []byte, mode os.FileMode) {
	t.Helper()
	os.Remove(path)
	if err := os.WriteFile(path, data, mode); err != nil {
		t.Fatal(err)
	}
}

func checkRefused(t *testing.T, s *Store, k Kind) {
	t.Helper()
	_, err := get(s, k)
	if !errors.Is(err, ErrRefused) || !s.Refused(k, err) {
		t.Errorf("error %v", err)
	}
	if _, err := os.Lstat(s.path(k)); err == nil {
		t.Error("it is still there")
	}
}

// A file that somebody can write to, or that is no file, is none of ours.
func TestNotOurs(t *testing.T) {
	for name, change := range map[string]func(path string) error{
		"writable": func(path string) error { return os.Chmod(path, 0o600) },
		"readable": func(path string) error { return os.Chmod(path, 0o444) },
		"a link": func(path string) error {
			return errors.Join(os.Rename(path, path+".away"), os.Symlink(path+".away", path))
		},
		"another user's": func(path string) error {
			if os.Getuid() != 0 {
				return os.Chmod(path, 0o600) // what an ordinary user can do
			}
			return os.Chown(path, 12345, 12345)
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, k := testStore(t)
			put(t, s, k, []byte("state"))
			if err := change(s.path(k)); err != nil {
				t.Fatal(err)
			}
			checkRefused(t, s, k)
		})
	}
}

// What a snapshot was made from changes or goes, and so does the snapshot.
func TestSweepStale(t *testing.T) {
	for name, change := range map[string]func(path string) error{
		"gone":     os.Remove,
		"replaced": func(path string) error { os.Remove(path); return os.WriteFile(path, []byte("kernel"), 0o600) },
		"touched":  func(path string) error { return os.Chtimes(path, time.Unix(1, 0), time.Unix(1, 0)) },
	} {
		t.Run(name, func(t *testing.T) {
			s, k := testStore(t)
			put(t, s, k, []byte("state"))
			if err := s.Sweep(); err != nil {
				t.Fatal(err)
			}
			if _, err := get(s, k); err != nil {
				t.Fatalf("swept too early: %v", err)
			}
			if err := change(k.Files[0].Path); err != nil {
				t.Fatal(err)
			}
			if err := s.Sweep(); err != nil {
				t.Fatal(err)
			}
			if all, err := s.List(); err != nil || len(all) != 0 {
				t.Errorf("left %v, %v", all, err)
			}
		})
	}
}

// The snapshots that were not used for longest make room.
func TestSweepSize(t *testing.T) {
	s, k := testStore(t)
	s.MaxBytes = 250_000
	kinds := make([]Kind, 5)
	for i := range kinds {
		kinds[i] = k
		kinds[i].Machine = []string{fmt.Sprint(i)}
		put(t, s, kinds[i], noise(100_000))
		at := time.Now().Add(time.Duration(i-10) * time.Minute)
		if err := os.Chtimes(s.path(kinds[i]), at, at); err != nil {
			t.Fatal(err)
		}
		if i > 0 { // the first is always in use
			if _, err := get(s, kinds[0]); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := s.Sweep(); err != nil {
		t.Fatal(err)
	}
	for i, want := range []bool{true, false, false, false, true} {
		if _, err := get(s, kinds[i]); (err == nil) != want {
			t.Errorf("snapshot %d: %v", i, err)
		}
	}
}

// A writer that dies leaves nothing that looks like a snapshot, and the next
// writer cleans up.
func TestCrash(t *testing.T) {
	s, k := testStore(t)
	w, err := s.Create(k, 1000)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte("half a sta")); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Create(k, 1000); !errors.Is(err, ErrBusy) {
		t.Errorf("two write at once: %v", err)
	}
	if err := s.Sweep(); err != nil { // does nothing
		t.Fatal(err)
	}
	w.unlock() // what the kernel does
	if _, err := get(s, k); !errors.Is(err, ErrNone) {
		t.Errorf("after the crash: %v", err)
	}
	put(t, s, k, []byte("state"))
	left, _ := filepath.Glob(filepath.Join(s.Dir, tempPrefix+"*"))
	if len(left) != 0 {
		t.Errorf("left %v", left)
	}
}

func TestFail(t *testing.T) {
	s, k := testStore(t)
	put(t, s, k, []byte("state"))
	s.Fail(k, errors.New("it does not start"))
	if _, err := s.Open(k); !errors.Is(err, ErrFailed) || !strings.Contains(err.Error(), "it does not start") {
		t.Errorf("open: %v", err)
	}
	if _, err := s.Create(k, 1); !errors.Is(err, ErrFailed) {
		t.Errorf("create: %v", err)
	}
	if got := s.Failures(); len(got) != 1 || got[0] != "it does not start" {
		t.Errorf("failures %q", got)
	}
	other := k
	other.Machine = []string{"another"}
	put(t, s, other, nil)
	long := time.Now().Add(-retry - time.Minute)
	if err := os.Chtimes(s.failed(k), long, long); err != nil {
		t.Fatal(err)
	}
	put(t, s, k, []byte("state"))
	if _, err := get(s, k); err != nil || len(s.Failures()) != 0 {
		t.Errorf("long after: %v, %q", err, s.Failures())
	}
}

func TestTooLarge(t *testing.T) {
	s, k := testStore(t)
	w, err := s.Create(k, 1000)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(make([]byte, maxKind+1001)); !errors.Is(err, errTooLarge) {
		t.Errorf("error %v", err)
	}
	w.Abort()
	if left, _ := os.ReadDir(s.Dir); len(left) != 2 { // key and lock
		t.Errorf("left %v", left)
	}
}
