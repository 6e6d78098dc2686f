package source

import (
	"errors"
	"fmt"
	"io"

	"golang.org/x/sys/unix"
)

// A Buffer holds one value in memory of its own outside the Go heap, locked
// where the limit of locked memory allows. The nil Buffer is empty.
type Buffer struct {
	mem []byte // the mapping; nil once closed
	n   int    // how much of it is the value
}

// NewBuffer returns an empty buffer with room for [Limit] bytes and one
// more, by which too long a value is noticed.
func NewBuffer() (*Buffer, error) {
	mem, err := unix.Mmap(-1, 0, Limit+1, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return nil, fmt.Errorf("map memory for a value: %w", err)
	}
	unix.Mlock(mem) // the process is short-lived: better a value that may be swapped than none
	keepOut(mem)
	return &Buffer{mem: mem}, nil
}

// Hold returns a buffer with a copy of data, which it zeroes: for what a
// library returns on the heap.
func Hold(data []byte) (*Buffer, error) {
	defer clear(data)
	if len(data) > Limit {
		return nil, ErrTooLong
	}
	b, err := NewBuffer()
	if err != nil {
		return nil, err
	}
	b.n = copy(b.mem, data)
	return b, nil
}

// ReadFrom reads r to its end, straight into the buffer if r is a file. It
// fails with [ErrTooLong] if there is more than a value.
func (b *Buffer) ReadFrom(r io.Reader) (int64, error) {
	for start := b.n; ; {
		n, err := r.Read(b.mem[b.n:])
		b.n += n
		switch {
		case b.n > Limit:
			return int64(b.n - start), ErrTooLong
		case errors.Is(err, io.EOF):
			return int64(b.n - start), nil
		case err != nil:
			return int64(b.n - start), err
		}
	}
}

// DropLineEnd drops one line end from the end of the value.
func (b *Buffer) DropLineEnd() {
	if b.n > 0 && b.mem[b.n-1] == '\n' {
		b.n--
		if b.n > 0 && b.mem[b.n-1] == '\r' {
			b.n--
		}
	}
}

// Bytes returns the value where it lies, until Close.
func (b *Buffer) Bytes() []byte {
	if b == nil || b.mem == nil {
		return nil
	}
	return b.mem[:b.n:b.n]
}

// Close zeroes the value and gives its memory back.
func (b *Buffer) Close() {
	if b == nil || b.mem == nil {
		return
	}
	clear(b.mem)
	unix.Munmap(b.mem)
	b.mem, b.n = nil, 0
}

// Format prints nothing of the value.
func (b *Buffer) Format(f fmt.State, _ rune) { f.Write([]byte("[secret]")) }

// MarshalText returns "[secret]"; JSON uses it too.
func (b *Buffer) MarshalText() ([]byte, error) { return []byte("[secret]"), nil }
