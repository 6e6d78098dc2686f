package helper

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// CLI and helper converse over one inherited socket: the CLI asks, the
// helper answers. A message is its length and JSON; behind a read come the
// bare values of environment variables. No answer holds a value: those go
// over another socket, whose far end is the keeper's.

// An ask is one request of the CLI. Exactly one field is set.
type ask struct {
	Read     []Request `json:"read,omitempty"`
	Env      []envVar  `json:"env,omitempty"` // with Read: the values that follow
	Check    []Text    `json:"check,omitempty"`
	HandOver bool      `json:"hand_over,omitempty"` // write the values to the keeper's socket

	variables map[string]string // that followed
}

type envVar struct {
	Name string `json:"name"`
	Len  int    `json:"len"`
}

// An answer is the helper's.
type answer struct {
	Results []Result `json:"results,omitempty"`
	Failed  string   `json:"failed,omitempty"`
	Hint    string   `json:"hint,omitempty"`
}

// maxMessage bounds a message: all that a user wrote, and the environment of
// an image.
const maxMessage = 64 << 20

func writeMessage(w io.Writer, message any) error {
	data, err := json.Marshal(message)
	if err != nil {
		return err
	}
	if len(data) > maxMessage {
		return errors.New("message is too long")
	}
	if _, err := w.Write(binary.BigEndian.AppendUint32(nil, uint32(len(data)))); err != nil {
		return err
	}
	_, err = w.Write(data)
	return err
}

func readMessage(r io.Reader, message any) error {
	var size [4]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return err
	}
	n := binary.BigEndian.Uint32(size[:])
	if n > maxMessage {
		return errors.New("message is too long")
	}
	data := make([]byte, n)
	if _, err := io.ReadFull(r, data); err != nil {
		return err
	}
	if err := json.Unmarshal(data, message); err != nil {
		return fmt.Errorf("decode message: %w", err)
	}
	return nil
}
