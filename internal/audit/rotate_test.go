package audit

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// rotated is a log of small files, in which n values were written.
func rotated(t *testing.T, n int) (*Log, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	l, err := Create(path, Config{MaxBytes: 2000})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	for i := range n {
		if err := l.Append(Event{Event: Substituted, Host: fmt.Sprintf("%d.test", i)}); err != nil {
			t.Fatal(err)
		}
	}
	return l, path
}

// TestRotation: a guest that makes events for ever does not fill the host's
// disk. The chain holds over files, and what is gone is told.
func TestRotation(t *testing.T) {
	for _, n := range []int{1, 11, 25, 500} {
		l, path := rotated(t, n)
		l.Append(Event{Event: Lifecycle, Detail: Ended})
		files, err := filepath.Glob(path + "*")
		if err != nil || len(files) > 4 {
			t.Errorf("after %d: %v, %v", n, files, err)
		}
		for _, f := range files {
			if info, err := os.Stat(f); err != nil || info.Size() > 2000 || info.Mode().Perm() != 0o600 {
				t.Errorf("%s: %d bytes, mode %v, %v", f, info.Size(), info.Mode(), err)
			}
		}
		report, err := Verify(path)
		if err != nil || report.Head != l.Head() || report.Before+report.Lines != l.Lines() || !report.Ended || (report.Before > 0) != (n == 500) {
			t.Errorf("after %d: %+v, %v", n, report, err)
		}
	}
}

// TestVerify: every change of a log is found.
func TestVerify(t *testing.T) {
	line := func(data []byte, i int) []byte { return bytes.SplitAfter(data, []byte("\n"))[i] }
	for name, change := range map[string]func(data []byte) []byte{
		"a letter":  func(d []byte) []byte { return bytes.Replace(d, []byte("2.test"), []byte("3.test"), 1) },
		"a line":    func(d []byte) []byte { return bytes.Replace(d, line(d, 3), nil, 1) },
		"the first": func(d []byte) []byte { return d[len(line(d, 0)):] },
		"twice":     func(d []byte) []byte { return append(bytes.Clone(line(d, 0)), d...) },
		"another order": func(d []byte) []byte {
			return bytes.Replace(d, append(bytes.Clone(line(d, 2)), line(d, 3)...), append(bytes.Clone(line(d, 3)), line(d, 2)...), 1)
		},
		"a forged line": func(d []byte) []byte { return append(d, line(d, 1)...) },
		"no chain":      func(d []byte) []byte { return append(d, "{}\n"...) },
		"a chain alone": func(d []byte) []byte { return append(d, line(d, 1)[len(line(d, 1))-77:]...) },
		"nothing":       func([]byte) []byte { return nil },
		"a false begin": func(d []byte) []byte {
			return bytes.Replace(d, []byte(`"event"`), []byte(`"previous":"00","count":7,"event"`), 1)
		},
		"a member behind": func(d []byte) []byte { return bytes.Replace(d, []byte("\"}\n"), []byte("\",\"x\":\"\"}\n"), 1) },
	} {
		_, path := rotated(t, 8)
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		changed := change(bytes.Clone(data))
		if bytes.Equal(changed, data) {
			t.Fatalf("%s: nothing is changed", name)
		}
		if err := os.WriteFile(path, changed, 0o600); err != nil {
			t.Fatal(err)
		}
		if report, err := Verify(path); err == nil {
			t.Errorf("%s: %+v", name, report)
		}
	}
	for name, change := range map[string]func(path string) error{
		"the oldest file":   func(p string) error { return os.Remove(p + ".3") },
		"one in the middle": func(p string) error { return os.Remove(p + ".2") },
		"two swapped": func(p string) error {
			return errors.Join(os.Rename(p+".2", p+".x"), os.Rename(p+".1", p+".2"), os.Rename(p+".x", p+".1"))
		},
	} {
		_, path := rotated(t, 500)
		if err := change(path); err != nil {
			t.Fatal(err)
		}
		if report, err := Verify(path); err == nil {
			t.Errorf("%s: %+v", name, report)
		}
	}
	// What is cut off the end only the head tells.
	l, path := rotated(t, 8)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data[:len(data)-len(line(data, 7))], 0o600); err != nil {
		t.Fatal(err)
	}
	if report, err := Verify(path); err != nil || report.Head == l.Head() {
		t.Errorf("cut off: %+v, %v", report, err)
	}
	// While the sandbox runs the next line tells it.
	l.Append(Event{Event: Refused})
	if report, err := Verify(path); err == nil {
		t.Errorf("cut off while it is written: %+v", report)
	}
}

// TestReaderFollows: whoever reads a log while it is written and rotated gets
// every line once.
func TestReaderFollows(t *testing.T) {
	l, path := rotated(t, 1)
	r, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var got []string
	drain := func() {
		for {
			line, err := r.Next()
			if errors.Is(err, io.EOF) {
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Contains(line, []byte("continued")) {
				got = append(got, string(line))
			}
		}
	}
	for i := range 300 {
		if i%13 == 0 {
			drain()
		}
		l.Append(Event{Event: Substituted, Host: fmt.Sprintf("n%d.test", i)})
	}
	drain()
	if len(got) != 301 {
		t.Fatalf("%d lines", len(got))
	}
	for i, line := range got[1:] {
		if !strings.Contains(line, fmt.Sprintf(`"n%d.test"`, i)) {
			t.Fatalf("line %d is %s", i, line)
		}
	}
}

// full makes every write to the log fail, until the returned function is
// called.
func full(t *testing.T, l *Log) (free func()) {
	t.Helper()
	f, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip("no /dev/full on this system")
	}
	own := l.file
	l.file = f
	return func() { f.Close(); l.file = own }
}

// TestBestEffort: what cannot be written is counted, and told when it can.
func TestBestEffort(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	l, err := Create(path, Config{BestEffort: true})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	free := full(t, l)
	for range 3 {
		if err := l.Append(Event{Event: Substituted}); err != nil || l.Failed() != nil {
			t.Fatal(err)
		}
	}
	free()
	l.Append(Event{Event: Refused})
	data, err := os.ReadFile(path)
	if report, verr := Verify(path); err != nil || verr != nil || report.Lines != 2 || !bytes.Contains(data, []byte(`"count":3`)) {
		t.Errorf("%+v, %v: %s", report, verr, data)
	}
}
