package image

import (
	"bytes"
	"io"
	"os"
)

// sparse writes to an empty file and leaves out what is zero.
type sparse struct {
	f    *os.File
	pos  int64
	high int64 // end of what was written or left out
}

var zeroBlock [4096]byte

func (s *sparse) Write(p []byte) (int, error) {
	done := 0
	for done < len(p) {
		// A block of zeros beyond all that was written stays a hole.
		n, hole := nextRun(p[done:], s.pos)
		if !hole || s.pos < s.high {
			if _, err := s.f.WriteAt(p[done:done+n], s.pos); err != nil {
				return done, err
			}
		}
		done += n
		s.pos += int64(n)
		s.high = max(s.high, s.pos)
	}
	return done, nil
}

// nextRun returns how much of p, which goes to pos, is a hole or is not.
func nextRun(p []byte, pos int64) (n int, hole bool) {
	for n < len(p) {
		size := min(len(p)-n, 4096-int((pos+int64(n))%4096))
		zero := size == 4096 && bytes.Equal(p[n:n+size], zeroBlock[:])
		if n > 0 && zero != hole {
			break
		}
		hole = zero
		n += size
	}
	return n, hole
}

func (s *sparse) Read(p []byte) (int, error) {
	n, err := s.f.ReadAt(p, s.pos)
	s.pos += int64(n)
	return n, err
}

func (s *sparse) Seek(off int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		off += s.pos
	case io.SeekEnd:
		off += s.high
	}
	s.pos = off
	return off, nil
}

// finish gives the file its length, holes at the end included.
func (s *sparse) finish() error { return s.f.Truncate(s.high) }
