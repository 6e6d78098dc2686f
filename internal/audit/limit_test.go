package audit

import (
	"encoding/json"
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
