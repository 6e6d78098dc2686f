package audit

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
)

// A Report is what can be said of a log whose chain holds.
type Report struct {
	Lines  int    `json:"lines"`  // that are there
	Before int    `json:"before"` // that the log gave up, since it grew too long
	Head   string `json:"head"`   // chain value of the last line
	Ended  bool   `json:"ended"`  // the last line is the sandbox's end
}

// Verify checks the chain of the log at path. That no line was changed, taken
// out or put in since it was written, it proves up to the head; that the head
// is the one with which the log ended, only who wrote that down elsewhere
// knows.
func Verify(path string) (Report, error) {
	r, err := Open(path)
	if err != nil {
		return Report{}, err
	}
	defer r.Close()
	var out Report
	var head [sha256.Size]byte
	for {
		line, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return out, err
		}
		if head, err = out.follow(line, head); err != nil {
			return out, fmt.Errorf("line %d of the audit log: %w", out.Before+out.Lines+1, err)
		}
		out.Lines++
	}
	if out.Lines == 0 {
		return out, errors.New("the audit log is empty")
	}
	if _, err := os.Stat(fileAt(path, maxFiles-1)); out.Before > 0 && err != nil {
		return out, fmt.Errorf("the first %d lines of the audit log are missing", out.Before)
	}
	out.Head = hex.EncodeToString(head[:])
	return out, nil
}

// follow checks the next line.
func (out *Report) follow(line []byte, head [sha256.Size]byte) ([sha256.Size]byte, error) {
	body, value, err := unchained(line)
	if err != nil {
		return head, err
	}
	var e Event
	if err := json.Unmarshal(body, &e); err != nil {
		return head, errNoLine
	}
	if out.Lines == 0 && e.Previous != "" { // what it follows is gone
		if n, err := hex.Decode(head[:], []byte(e.Previous)); err != nil || n != len(head) || e.Count < 1 {
			return head, errNoLine
		}
		out.Before = e.Count
	}
	if link(head, body) != value {
		return head, errors.New("it, or what came before it, is not what was written")
	}
	out.Ended = e.Event == Lifecycle && e.Detail == Ended
	return value, nil
}

// Ended is the detail of a log's last event.
const Ended = "ended"
