package state

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

func env(pairs ...string) func(string) string {
	return func(name string) string {
		for i := 0; i < len(pairs); i += 2 {
			if pairs[i] == name {
				return pairs[i+1]
			}
		}
		return ""
	}
}

func TestLocate(t *testing.T) {
	mine := t.TempDir()
	uid := os.Getuid()
	long := "/" + strings.Repeat("d", 90)
	for _, tt := range []struct {
		name    string
		getenv  func(string) string
		uid     int
		data    string
		runtime string
	}{
		{"home", env("HOME", "/home/u"), uid, "/home/u/.local/share/cutout", "/tmp/cutout-UID"},
		{"xdg", env("HOME", "/home/u", "XDG_DATA_HOME", "/data", "XDG_RUNTIME_DIR", mine), uid, "/data/cutout", mine + "/cutout"},
		{"relative xdg is ignored", env("HOME", "/home/u", "XDG_DATA_HOME", "data", "XDG_RUNTIME_DIR", "run"), uid, "/home/u/.local/share/cutout", "/tmp/cutout-UID"},
		{"another user's runtime directory", env("HOME", "/home/u", "XDG_RUNTIME_DIR", mine), uid + 1, "/home/u/.local/share/cutout", "/tmp/cutout-UID"},
		{"cutout home", env("HOME", "/home/u", "CUTOUT_HOME", "/srv/c"), uid, "/srv/c", "/srv/c/run"},
		{"too long for a socket", env("CUTOUT_HOME", long), uid, long, "/tmp/cutout-UID-*"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := locate(tt.getenv, tt.uid, "/tmp")
			if err != nil {
				t.Fatal(err)
			}
			prefix, hashed := strings.CutSuffix(strings.ReplaceAll(tt.runtime, "UID", strconv.Itoa(tt.uid)), "*")
			if got.Data != tt.data || (got.Runtime != prefix && !(hashed && strings.HasPrefix(got.Runtime, prefix))) {
				t.Errorf("got %+v, want %s and %s", got, tt.data, tt.runtime)
			}
			if len(got.Runtime) > maxSocketDir {
				t.Errorf("runtime directory of %d bytes leaves no room for a socket", len(got.Runtime))
			}
		})
	}
	if _, err := locate(env(), uid, "/tmp"); err == nil {
		t.Error("no HOME at all was accepted")
	}
}

func TestOwnRefuses(t *testing.T) {
	dir := t.TempDir()
	link := filepath.Join(dir, "link")
	if err := os.Symlink(t.TempDir(), link); err != nil {
		t.Fatal(err)
	}
	open := filepath.Join(dir, "open")
	if err := os.Mkdir(open, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(open, 0o750); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	uid := os.Getuid()
	for _, tt := range []struct {
		name, path, want string
		uid              int
	}{
		{"a link somebody placed", link, "not a directory", uid},
		{"a directory others may enter", open, "open to others", uid},
		{"a file", file, "not a directory", uid},
		{"another user's directory", dir, "another user", uid + 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := own(tt.path, tt.uid, 0o077)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want an error with %q", err, tt.want)
			}
		})
	}
	if err := own(filepath.Join(dir, "new", "sub"), uid, 0o077); err != nil {
		t.Errorf("new directory: %v", err)
	}
}

func testHome(t *testing.T) Home {
	t.Setenv("CUTOUT_HOME", filepath.Join(t.TempDir(), "h"))
	h, err := Default()
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func TestSandboxLife(t *testing.T) {
	h := testHome(t)
	s, err := h.New()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.AuditLog(), []byte("{}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if e, err := h.Find(s.ID[:4]); err != nil || e.ID != s.ID || !e.Running {
		t.Fatalf("find running sandbox: %+v, %v", e, err)
	}
	if err := h.Sweep(0); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(s.AuditLog()); err != nil {
		t.Fatal("the sweep took a running sandbox")
	}
	if err := s.End(); err != nil {
		t.Fatal(err)
	}
	if e, err := h.Find("latest"); err != nil || e.ID != s.ID || e.Running {
		t.Fatalf("find ended sandbox: %+v, %v", e, err)
	}
	if err := h.Sweep(0); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Find("latest"); !errors.Is(err, ErrNoSandbox) {
		t.Fatalf("after the sweep: %v", err)
	}
}

// TestSweepAfterCrash: a process that died has neither closed nor removed
// anything; its lock is gone with it.
func TestSweepAfterCrash(t *testing.T) {
	h := testHome(t)
	crashed, err := h.New()
	if err != nil {
		t.Fatal(err)
	}
	crashed.Lock.Close()
	spoke, err := h.New() // a keeper that said why it crashed
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(spoke.Dir, keeperLogName), []byte("panic: x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	spoke.Lock.Close()
	other := filepath.Join(h.Runtime, "not-ours")
	if err := os.Mkdir(other, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := h.Sweep(KeepLogs); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{crashed.Dir, crashed.Runtime} {
		if _, err := os.Stat(dir); err == nil {
			t.Errorf("%s is still there", dir)
		}
	}
	if _, err := os.Stat(spoke.Dir); err != nil {
		t.Error("the sweep took a keeper's last words")
	}
	if _, err := os.Stat(other); err != nil {
		t.Error("the sweep took a directory that is not a sandbox's")
	}
}

func TestSweepKeepsTheLastLogs(t *testing.T) {
	h := testHome(t)
	var ids []string
	for i := range 5 {
		s, err := h.New()
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(s.AuditLog(), []byte("{}\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		at := time.Now().Add(time.Duration(i-10) * time.Minute)
		if err := os.Chtimes(filepath.Join(s.Dir, lockName), at, at); err != nil {
			t.Fatal(err)
		}
		ids = append(ids, s.ID)
		s.End()
	}
	if err := h.Sweep(2); err != nil {
		t.Fatal(err)
	}
	left, err := h.List()
	if err != nil {
		t.Fatal(err)
	}
	if len(left) != 2 || left[0].ID != ids[4] || left[1].ID != ids[3] {
		t.Errorf("left %v of %v", left, ids)
	}
}

func TestWriteFileLeavesNothingBehind(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	for _, content := range []string{"one", "two"} {
		if err := WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, _ := os.ReadFile(path); string(got) != content {
			t.Errorf("got %q", got)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "d"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := WriteFile(filepath.Join(dir, "d"), []byte("x"), 0o600); err == nil {
		t.Error("wrote over a directory")
	}
	entries, _ := os.ReadDir(dir)
	if len(entries) != 2 {
		t.Errorf("left behind: %v", entries)
	}
}
