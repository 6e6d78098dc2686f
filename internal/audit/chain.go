package audit

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
)

// Each line ends with its chain value, SHA-256 of the one before it and of the
// line without it. It goes in as the last member, so that the line without it
// is byte for byte what was hashed.
const (
	chainBegin = `,"chain":"`
	chainEnd   = `"}`
)

// chained returns the line of e, which follows one whose chain value is head,
// and its own.
func chained(head [sha256.Size]byte, e Event) ([]byte, [sha256.Size]byte, error) {
	body, err := json.Marshal(e)
	if err != nil {
		return nil, head, fmt.Errorf("encode audit event: %w", err)
	}
	head = link(head, body)
	line := append(body[:len(body)-1], chainBegin...)
	line = hex.AppendEncode(line, head[:])
	return append(line, chainEnd+"\n"...), head, nil
}

func link(head [sha256.Size]byte, body []byte) (next [sha256.Size]byte) {
	h := sha256.New()
	h.Write(head[:])
	h.Write(body)
	h.Sum(next[:0])
	return next
}

var errNoLine = errors.New("it is no line of an audit log")

// unchained takes a line apart: what was hashed, and its chain value.
func unchained(line []byte) (body []byte, value [sha256.Size]byte, err error) {
	at := len(line) - len(chainBegin) - 2*sha256.Size - len(chainEnd)
	if at < 1 || !bytes.HasPrefix(line[at:], []byte(chainBegin)) || !bytes.HasSuffix(line, []byte(chainEnd)) {
		return nil, value, errNoLine
	}
	text := line[at+len(chainBegin) : len(line)-len(chainEnd)]
	if _, err := hex.Decode(value[:], text); err != nil {
		return nil, value, errNoLine
	}
	return append(bytes.Clone(line[:at]), '}'), value, nil
}
