package file

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cutoutdev/cutout/internal/source/sourcetest"
)

func TestSource(t *testing.T) {
	sourcetest.Test(t, func(t *testing.T) sourcetest.Place {
		dir := t.TempDir()
		return sourcetest.Place{
			Source: &Source{Home: dir},
			Put: func(t *testing.T, value string) string {
				write(t, filepath.Join(dir, "key"), value+"\n", 0o600)
				return "~/key"
			},
			Absent: filepath.Join(dir, "other"),
			Broken: []string{"", "~", dir, "/dev/zero", "~nobody/key"},
		}
	})
}

func write(t *testing.T, path, text string, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

// TestLineEnd: one line end at the end is the editor's, all else the value's.
func TestLineEnd(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	for text, want := range map[string]string{"a": "a", "a\n": "a", "a\r\n": "a", "a\n\n": "a\n", "a\r": "a\r", "\n": "", "": "", "a\nb\n": "a\nb"} {
		write(t, path, text, 0o600)
		v, err := (&Source{}).Read(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		if got := string(v.Data.Bytes()); got != want {
			t.Errorf("%q: got %q", text, got)
		}
		v.Data.Close()
	}
}

// TestReadable: a file that others can read is one to warn of.
func TestReadable(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	for mode, warned := range map[os.FileMode]bool{0o600: false, 0o400: false, 0o640: true, 0o604: true, 0o644: true} {
		write(t, path, "sk-live-0123456789", mode|0o400)
		v, err := (&Source{}).Read(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		if got := v.Warning != ""; got != warned || strings.Contains(v.Warning, "sk-live") {
			t.Errorf("%04o: the warning is %q", mode, v.Warning)
		}
		v.Data.Close()
	}
}

// TestPipe: a pipe that nobody writes to must not be waited for.
func TestPipe(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pipe")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { _, err := (&Source{}).Read(t.Context(), path); done <- err }()
	select {
	case err := <-done:
		if err == nil {
			t.Error("a pipe was taken for a file")
		}
	case <-time.After(time.Minute):
		t.Error("it waits for a writer")
	}
}

// TestRelative: a relative path begins at the working directory.
func TestRelative(t *testing.T) {
	t.Chdir(t.TempDir())
	write(t, "key", "sk-live-0123456789", 0o600)
	v, err := (&Source{}).Read(t.Context(), "./key")
	if err != nil || string(v.Data.Bytes()) != "sk-live-0123456789" {
		t.Errorf("got %v", err)
	}
	v.Data.Close()
}
