package source

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
)

// Values go to the keeper over a socket of their own: a [Header] and the bare
// values, one after the other. If one of them expires the socket stays open,
// and the keeper asks over it for newer ones: each [Wanted] is answered with a
// [Fresh] and, unless that says why not, the bare value.

// A Header announces the values that follow it.
type Header struct {
	Values []Announced `json:"values"`
}

// An Announced value is one that follows.
type Announced struct {
	Name    string    `json:"name"` // of its secret
	Len     int       `json:"len"`
	Expires time.Time `json:"expires,omitzero"`
}

// A Wanted names the secret whose value is to be read anew.
type Wanted struct {
	Name string `json:"name"`
}

// A Fresh announces the newer value of a secret, or says why there is none.
type Fresh struct {
	Announced
	Failed string `json:"failed,omitempty"`
}

// MaxHeader bounds each message on that socket.
const MaxHeader = 1 << 20

// A Named is a value with the name of its secret.
type Named struct {
	Name string
	Value
}

func (v Named) announced() Announced {
	return Announced{Name: v.Name, Len: len(v.Data.Bytes()), Expires: v.Expires}
}

// WriteValues writes a header and the values.
func WriteValues(w io.Writer, values []Named) error {
	var h Header
	for _, v := range values {
		h.Values = append(h.Values, v.announced())
	}
	if err := WriteMessage(w, h, MaxHeader); err != nil {
		return err
	}
	for _, v := range values {
		if _, err := w.Write(v.Data.Bytes()); err != nil {
			return err
		}
	}
	return nil
}

// WriteFresh writes a newer value.
func WriteFresh(w io.Writer, v Named) error {
	if err := WriteMessage(w, Fresh{Announced: v.announced()}, MaxHeader); err != nil {
		return err
	}
	_, err := w.Write(v.Data.Bytes())
	return err
}

// WriteMessage writes the length of message in JSON, and that.
func WriteMessage(w io.Writer, message any, limit int) error {
	data, err := json.Marshal(message)
	if err != nil {
		return err
	}
	if len(data) > limit {
		return errors.New("message is too long")
	}
	_, err = w.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(data))), data...))
	return err
}

// ReadMessage reads what WriteMessage has written, and not a byte more.
func ReadMessage(r io.Reader, message any, limit int) error {
	var size [4]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return err
	}
	n := binary.BigEndian.Uint32(size[:])
	if int64(n) > int64(limit) {
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
