package image

import (
	"context"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// A stamp tells whether a file was written to since, without reading it. The
// kernel sets Changed at every write and at every call that could set
// Modified back.
type stamp struct {
	Inode    uint64 `json:"inode"`
	Modified int64  `json:"modified"` // ns
	Changed  int64  `json:"changed"`  // ns
}

func stampOf(f *os.File) (stamp, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return stamp{}, fmt.Errorf("examine disk: %w", err)
	}
	return stamp{Inode: st.Ino, Modified: st.Mtim.Nano(), Changed: st.Ctim.Nano()}, nil
}

// check makes sure that the disk of r is what was built.
func (s *Store) check(ctx context.Context, r record, progress Progress) error {
	img := s.image(r)
	f, err := img.Open()
	if err != nil {
		return err
	}
	now, err := stampOf(f)
	f.Close()
	if err != nil || now == r.Stamp {
		return err
	}
	if now, err = s.verify(ctx, img, progress); err != nil {
		return err
	}
	s.restamp(ctx, r, now)
	return nil
}

// restamp spares the next one the reading; if it cannot, the disk is good
// all the same.
func (s *Store) restamp(ctx context.Context, r record, now stamp) {
	unlock, err := s.lock(ctx, "store")
	if err != nil {
		return
	}
	defer unlock()
	if last, err := readRecord(s.nameFile(r.Name)); err == nil && last.same(r) {
		r.Stamp = now
		s.writeRecord(r)
	}
}

// same reports whether r and other are of the same disk.
func (r record) same(other record) bool {
	return r.Digest == other.Digest && r.SHA256 == other.SHA256
}
