package source

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"time"
)

// Values go to the keeper over a socket of their own: a length, a JSON
// [Header] and the bare values, one after the other.

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

// MaxHeader bounds a header.
const MaxHeader = 1 << 20

// A Named is a value with the name of its secret.
type Named struct {
	Name string
	Value
}

// WriteValues writes a header and the values.
func WriteValues(w io.Writer, values []Named) error {
	var h Header
	for _, v := range values {
		h.Values = append(h.Values, Announced{Name: v.Name, Len: len(v.Data.Bytes()), Expires: v.Expires})
	}
	data, err := json.Marshal(h)
	if err != nil {
		return err
	}
	if len(data) > MaxHeader {
		return fmt.Errorf("too many values")
	}
	if _, err := w.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(data))), data...)); err != nil {
		return err
	}
	for _, v := range values {
		if _, err := w.Write(v.Data.Bytes()); err != nil {
			return err
		}
	}
	return nil
}
