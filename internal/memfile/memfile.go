// Package memfile hands structures to processes that are to be re-executed,
// through files in memory that have no name.
package memfile

import (
	"encoding/json"
	"io"
	"os"
)

// New returns a file that holds v, which must hold no value.
func New(v any) (*os.File, error) {
	text, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	f, err := create()
	if err != nil {
		return nil, err
	}
	if _, err := f.Write(text); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// limit is far more than any such structure takes: arguments and environment
// of a command come to 2 MiB at most, certificates to less.
const limit = 1 << 24

// Read reads what f holds into v. The file's offset does not matter.
func Read(f *os.File, v any) error {
	text, err := io.ReadAll(io.NewSectionReader(f, 0, limit))
	if err != nil {
		return err
	}
	return json.Unmarshal(text, v)
}
