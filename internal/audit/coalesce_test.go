package audit

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/cutoutdev/cutout/internal/policy"
)

// written returns the events of the log at path, which add is given to fill.
func written(t *testing.T, add func(*Log)) []Event {
	t.Helper()
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	seen := 0
	l, err := Create(path, Config{Observe: func(Event) { seen++ }})
	if err != nil {
		t.Fatal(err)
	}
	add(l)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var out []Event
	for sc := bufio.NewScanner(bytes.NewReader(data)); sc.Scan(); {
		var e Event
		if err := json.Unmarshal(sc.Bytes(), &e); err != nil {
			t.Fatal(err)
		}
		out = append(out, e)
	}
	if n := total(out); n != seen {
		t.Errorf("%d events were observed, and the lines stand for %d", seen, n)
	}
	return out
}

// total is for how many events all stand.
func total(all []Event) (n int) {
	for _, e := range all {
		n += max(e.Count, 1)
	}
	return n
}

// TestScanIsFewLines: B15. A scan of ports, of addresses and of names fills
// no log, and none of it is lost.
func TestScanIsFewLines(t *testing.T) {
	const scan = 5000
	tests := map[string]func(i int) Event{
		"ports":     func(i int) Event { return Event{Dst: fmt.Sprintf("10.0.0.1:%d", i), Rule: "profile public"} },
		"addresses": func(i int) Event { return Event{Dst: fmt.Sprintf("10.0.%d.%d:80", i>>8, i&255)} },
		"names":     func(i int) Event { return Event{Host: fmt.Sprintf("x%d.example.com", i)} },
		"the same":  func(int) Event { return Event{Dst: "10.0.0.1:80"} },
	}
	for name, event := range tests {
		t.Run(name, func(t *testing.T) {
			all := written(t, func(l *Log) {
				for i := range scan {
					e := event(i)
					e.Event, e.Reason = Denied, policy.AddressDenied
					if err := l.Append(e); err != nil {
						t.Fatal(err)
					}
				}
			})
			if len(all) > burst+maxHeld+10 {
				t.Errorf("%d lines", len(all))
			}
			if n := total(all); n != scan {
				t.Errorf("the lines stand for %d events, want %d", n, scan)
			}
			if last := all[len(all)-1]; name == "the same" && last.Dst == "" || name == "ports" && last.Dst != "" {
				t.Errorf("the last line is %+v", last)
			}
		})
	}
}

// TestKindsApart: a flood of one kind hides no other, and substitutions are
// told one by one.
func TestKindsApart(t *testing.T) {
	all := written(t, func(l *Log) {
		for range 1000 {
			l.Append(Event{Event: Denied, Reason: policy.AddressDenied})
			l.Append(Event{Event: Refused, Reason: policy.NotPinned})
			l.Append(Event{Event: Substituted, Secret: "A"})
		}
		l.Append(Event{Event: Denied, Reason: policy.RuleDenied, Host: "other"})
		l.Append(Event{Event: Refused, Reason: policy.PlainHTTP, Host: "other"})
	})
	var substituted, other, refused int
	for _, e := range all {
		switch {
		case e.Event == Substituted:
			substituted++
		case e.Host == "other" && e.Count == 0:
			other++
		case e.Event == Refused:
			refused++
		}
	}
	if substituted != 1000 || other != 2 || refused > burst+10 {
		t.Errorf("%d substitutions, %d of the other kinds, %d lines of refusals", substituted, other, refused)
	}
}

// TestHeldIsWritten: a count does not wait for the log's end.
func TestHeldIsWritten(t *testing.T) {
	all := written(t, func(l *Log) {
		for range 2 * burst {
			l.Append(Event{Event: Denied, Reason: policy.AddressDenied})
		}
		l.mu.Lock()
		waiting := l.bounds.flush.Reset(time.Millisecond)
		l.mu.Unlock()
		if !waiting {
			t.Error("nothing is to write what is held")
		}
		for {
			l.mu.Lock()
			held := len(l.bounds.held)
			l.mu.Unlock()
			if held == 0 {
				return
			}
			time.Sleep(time.Millisecond)
		}
	})
	if n := total(all); n != 2*burst {
		t.Errorf("%d events", n)
	}
}

// TestEndIsLast: what is held when a sandbox ends is told before its end, which
// is the log's last line, or it would not verify as whole.
func TestEndIsLast(t *testing.T) {
	all := written(t, func(l *Log) {
		for range 2 * burst {
			l.Append(Event{Event: Denied, Reason: policy.AddressDenied})
		}
		l.Append(Event{Event: Lifecycle, Detail: Ended})
		l.cfg.Observe = nil
		if err := l.Append(Event{Event: Substituted}); err == nil {
			t.Error("something came after the end")
		}
	})
	if last := all[len(all)-1]; last.Detail != Ended || total(all) != 2*burst+1 {
		t.Errorf("the last of %d events is %+v", total(all), last)
	}
}

// TestClockJump: events are bounded by time that passes, not by the time of
// day.
func TestClockJump(t *testing.T) {
	now := time.Now()
	all := written(t, func(l *Log) {
		for _, at := range []time.Time{now.AddDate(1, 0, 0), now.AddDate(-1, 0, 0), now} {
			l.Append(Event{Time: at, Event: Denied, Reason: policy.AddressDenied})
		}
	})
	if len(all) != 3 {
		t.Errorf("%d lines for three events", len(all))
	}
}
