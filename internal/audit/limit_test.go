package audit

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A guest chooses a path of 64 KiB, all of whose bytes JSON escapes. The
// event must still fit into a frame of the keeper's client, 64 KiB.
func TestGuestsTextIsCut(t *testing.T) {
	var told Event
	l, err := Create(filepath.Join(t.TempDir(), "audit.jsonl"), Config{Notify: func(e Event) { told = e }})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	long := strings.Repeat("<", 64<<10)
	if err := l.Append(Event{Event: Refused, Host: long, Dst: long, Method: long, Path: long, Detail: "é" + long}); err != nil {
		t.Fatal(err)
	}
	line, err := json.Marshal(told)
	if err != nil {
		t.Fatal(err)
	}
	if len(line) > 48<<10 {
		t.Errorf("an event of %d bytes", len(line))
	}
	if !strings.HasSuffix(told.Path, "…") {
		t.Error("the cut is not shown")
	}
}

// A guest that makes events for ever must not fill the host's disk.
func TestLogIsBounded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	l, err := Create(path, Config{MaxBytes: 10_000})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for range 1000 {
		if err = l.Append(Event{Event: Refused, Host: "flood.test"}); err != nil {
			break
		}
	}
	if err == nil || l.Failed() == nil {
		t.Error("the log grows without bound")
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Size() > 10_000 {
		t.Errorf("%d bytes written", info.Size())
	}
	data, _ := os.ReadFile(path)
	if !strings.HasSuffix(string(data), "\"}\n") {
		t.Error("the last line is not whole")
	}
}
