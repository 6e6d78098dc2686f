package audit

import (
	"bytes"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/cutoutdev/cutout/internal/policy"
)

func TestChain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	var told []Event
	l, err := Create(path, Config{Notify: func(e Event) { told = append(told, e) }})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 25 {
				if err := l.Append(Event{Event: Scrubbed, Reason: policy.NotPinned, Host: "a\x1b[31m.test\n"}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if len(told) != 200 {
		t.Errorf("%d events told, want 200", len(told))
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.ContainsRune(data, 0x1b) {
		t.Error("an escape sequence of the guest stands raw in the log")
	}
	report, err := Verify(path)
	if err != nil || report.Head != l.Head() || report.Lines != 200 || report.Ended || report.Before != 0 {
		t.Errorf("got %+v, %v", report, err)
	}
}

func TestFailureIsFinal(t *testing.T) {
	if _, err := os.Stat("/dev/full"); err != nil {
		t.Skip("no /dev/full on this system")
	}
	f, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	l := &Log{file: f}
	if l.Append(Event{Event: Lifecycle}) == nil || l.Failed() == nil {
		t.Fatal("a full disk was not noticed")
	}
	l.file, _ = os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if l.Append(Event{Event: Lifecycle}) == nil {
		t.Error("the log went on after a lost line")
	}
}

func TestCreateDoesNotOverwrite(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	l, err := Create(path, Config{})
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	if err := l.Append(Event{}); err == nil {
		t.Error("append after close")
	}
	if _, err := Create(path, Config{}); err == nil {
		t.Error("an existing log was opened anew")
	}
	if info, _ := os.Stat(path); info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", info.Mode())
	}
}
