package proxy

import (
	"bytes"
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/cutoutdev/cutout/internal/policy"
)

const (
	// spoolFrom is the length from which a body that must be measured waits
	// on disk: twelve of them fill the budget, and few API calls are longer.
	spoolFrom = 16 << 20
	// spoolQuota is for all bodies of a sandbox on disk at once, DESIGN §7.
	spoolQuota = 8 << 30
	// spoolCheck is after how many bytes the free space is looked at again.
	spoolCheck = 16 << 20
)

// A spool holds the bytes of one request body as the guest sent them, decoded
// if they were coded, never with a value: in memory while they are few, then
// in a file that has no name, in the state directory.
type spool struct {
	p      *Proxy
	chunks [][]byte
	file   *os.File // nil: all is in chunks
	size   int64
	taken  int64 // of the memory budget
	onDisk int64 // of the quota
}

// spool reads all of r. Errors are r's or a *refusal.
func (p *Proxy) spool(r io.Reader) (*spool, error) {
	s := &spool{p: p}
	if err := s.fill(r); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

func (s *spool) fill(r io.Reader) error {
	buf := copyBuffers.Get().(*[32 << 10]byte)
	defer copyBuffers.Put(buf)
	for {
		// Not io.ReadFull: a guest that stops half way is not an end.
		n := 0
		var err error
		for n < len(buf) && err == nil {
			var m int
			m, err = r.Read(buf[n:])
			n += m
		}
		if n > 0 {
			if err := s.add(buf[:n]); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// add keeps a copy of chunk.
func (s *spool) add(chunk []byte) error {
	n := int64(len(chunk))
	s.size += n
	if s.file == nil && s.size <= spoolFrom && s.p.held.Take(n) {
		s.taken += n
		s.chunks = append(s.chunks, bytes.Clone(chunk))
		return nil
	}
	if s.file == nil {
		if err := s.spill(); err != nil {
			return err
		}
	}
	return s.write(chunk)
}

// spill moves what is in memory to a file.
func (s *spool) spill() (err error) {
	if s.p.cfg.SpoolDir == "" {
		return tooLarge("there is nowhere to keep it")
	}
	if s.file, err = unnamed(s.p.cfg.SpoolDir); err != nil {
		return tooLarge("it cannot be kept on disk")
	}
	for _, c := range s.chunks {
		if err := s.write(c); err != nil {
			return err
		}
	}
	s.forget()
	return nil
}

func (s *spool) forget() {
	s.chunks = nil
	s.p.held.Give(s.taken)
	s.taken = 0
}

func (s *spool) write(chunk []byte) error {
	n := int64(len(chunk))
	if !s.p.spooled.Take(n) {
		return tooLarge("the sandbox's quota for bodies on disk is used up")
	}
	before := s.onDisk
	s.onDisk += n
	if (before == 0 || before/spoolCheck != s.onDisk/spoolCheck) && s.p.diskFull(s.file) {
		return tooLarge("less than a tenth of the disk is free")
	}
	if _, err := s.file.Write(chunk); err != nil {
		return tooLarge("it cannot be kept on disk")
	}
	return nil
}

// tooLarge is the refusal of a body that there is no room for.
func tooLarge(detail string) *refusal {
	no := refused(policy.BodyTooLarge)
	no.detail = detail
	return no
}

// scarce reports whether less than a tenth of a file's disk is free.
func scarce(f *os.File) bool {
	var st unix.Statfs_t
	for {
		err := unix.Fstatfs(int(f.Fd()), &st)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		return err != nil || uint64(st.Bavail) < uint64(st.Blocks)/10
	}
}

// Reader returns what the spool holds, from the beginning.
func (s *spool) Reader() io.Reader {
	if s.file != nil {
		return io.NewSectionReader(s.file, 0, s.size)
	}
	parts := make([]io.Reader, len(s.chunks))
	for i, c := range s.chunks {
		parts[i] = bytes.NewReader(c)
	}
	return io.MultiReader(parts...)
}

// Close gives everything back. Nobody may be reading.
func (s *spool) Close() {
	s.forget()
	if s.file != nil {
		s.file.Close()
		s.file = nil
	}
	s.p.spooled.Give(s.onDisk)
	s.onDisk = 0
}

// nameless opens a file in dir that has no name any more.
func nameless(dir string) (*os.File, error) {
	f, err := os.CreateTemp(dir, ".body-*")
	if err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}
