package audit

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// A Reader reads the lines of a log, the oldest first, while it is written.
type Reader struct {
	path    string
	file    *os.File
	r       *bufio.Reader
	partial []byte // a line that is not whole yet

	complete bool // nothing more will be written to file
}

// Open opens the log at path, whose error satisfies [fs.ErrNotExist] if there
// is none.
func Open(path string) (*Reader, error) {
	r := &Reader{path: path}
	if err := r.open(maxFiles - 1); err != nil {
		return nil, fmt.Errorf("open audit log: %w", err)
	}
	return r, nil
}

// open opens the oldest file from the i-th newest on.
func (r *Reader) open(i int) error {
	for ; ; i-- {
		f, err := os.Open(fileAt(r.path, i))
		if errors.Is(err, fs.ErrNotExist) && i > 0 {
			continue
		}
		if err != nil {
			return err
		}
		if r.file != nil {
			r.file.Close()
		}
		r.file, r.r = f, bufio.NewReader(f)
		return nil
	}
}

// Next returns the next whole line, without its end, until the next call. It
// fails with [io.EOF] if there is none yet.
func (r *Reader) Next() ([]byte, error) {
	for {
		more, err := r.r.ReadBytes('\n')
		r.partial = append(r.partial, more...)
		if err == nil {
			line := r.partial[:len(r.partial)-1]
			r.partial, r.complete = nil, false
			return line, nil
		}
		if !errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("read audit log: %w", err)
		}
		at, err := r.position()
		switch {
		case err != nil:
			return nil, fmt.Errorf("read audit log: %w", err)
		case at == 0:
			return nil, io.EOF
		case !r.complete: // what was written before the next file was begun
			r.complete = true
			continue
		}
		r.partial, r.complete = nil, false
		if err := r.open(at - 1); err != nil {
			return nil, fmt.Errorf("read audit log: %w", err)
		}
	}
}

// position says how many newer files there are than the one that is read.
func (r *Reader) position() (int, error) {
	own, err := r.file.Stat()
	if err != nil {
		return 0, err
	}
	for i := range maxFiles {
		if info, err := os.Stat(fileAt(r.path, i)); err == nil && os.SameFile(own, info) {
			return i, nil
		}
	}
	return maxFiles, nil // given up meanwhile
}

// Close closes the file.
func (r *Reader) Close() error { return r.file.Close() }
