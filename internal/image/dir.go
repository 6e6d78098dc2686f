package image

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"sort"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A dirLayer is a directory of the host. Every step below it is opened
// relative to its parent and never through a link, so that a tree which
// changes meanwhile cannot lead anywhere else.
type dirLayer struct {
	root  string
	nodes bool // device nodes are kept
	read  func(n int64)
	sum   []byte // of names, sizes and times, set by the first walk
}

func (l *dirLayer) whiteouts() bool            { return false }
func (l *dirLayer) size() int64                { return 0 }
func (l *dirLayer) observe(read func(n int64)) { l.read = read }

// fileID is what makes two names one file.
type fileID struct{ dev, ino uint64 }

type dirWalk struct {
	*dirLayer
	ctx   context.Context
	visit func(*tar.Header, io.Reader) error
	seen  map[fileID]string // files with several names
}

func (l *dirLayer) walk(ctx context.Context, visit func(*tar.Header, io.Reader) error) error {
	fd, err := unix.Open(l.root, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open directory: %w", &os.PathError{Op: "open", Path: l.root, Err: err})
	}
	d := os.NewFile(uintptr(fd), l.root)
	defer d.Close()
	sum := sha256.New()
	w := &dirWalk{dirLayer: l, ctx: ctx, seen: map[fileID]string{}}
	w.visit = func(h *tar.Header, content io.Reader) error {
		fmt.Fprintf(sum, "%q %c %d %d\n", h.Name, h.Typeflag, h.Size, h.ModTime.UnixNano())
		return visit(h, content)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fmt.Errorf("read directory: %w", err)
	}
	if err := w.dir(d, ".", &st); err != nil {
		return err
	}
	if l.sum != nil && !bytes.Equal(l.sum, sum.Sum(nil)) {
		return errChanged
	}
	l.sum = sum.Sum(nil)
	return nil
}

// dir visits d and all that is below.
func (w *dirWalk) dir(d *os.File, name string, st *unix.Stat_t) error {
	h, err := header(d, name, st)
	if err != nil {
		return err
	}
	if err := w.visit(h, nil); err != nil {
		return err
	}
	entries, err := d.ReadDir(-1)
	if err != nil {
		return fmt.Errorf("read directory %q: %w", name, errors.Unwrap(err))
	}
	sort.Slice(entries, func(i, j int) bool { return entries[i].Name() < entries[j].Name() })
	for _, e := range entries {
		if err := w.ctx.Err(); err != nil {
			return err
		}
		if err := w.entry(d, e.Name(), path.Join(name, e.Name()), uint64(st.Dev)); err != nil {
			return err
		}
	}
	return nil
}

// entry visits base in d, which is called name in the tree.
func (w *dirWalk) entry(d *os.File, base, name string, dev uint64) error {
	if w.read != nil {
		w.read(1)
	}
	var st unix.Stat_t
	err := unix.Fstatat(int(d.Fd()), base, &st, unix.AT_SYMLINK_NOFOLLOW)
	if err == unix.ENOENT {
		return nil // gone meanwhile
	}
	if err != nil {
		return fmt.Errorf("read %q: %w", name, err)
	}
	id := fileID{uint64(st.Dev), st.Ino}
	kind := st.Mode & unix.S_IFMT
	if first, ok := w.seen[id]; ok && kind != unix.S_IFDIR {
		return w.visit(&tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: first}, nil)
	}
	if st.Nlink > 1 && kind != unix.S_IFDIR {
		w.seen[id] = name
	}
	switch kind {
	case unix.S_IFSOCK:
		return nil
	case unix.S_IFCHR, unix.S_IFBLK:
		if !w.nodes {
			return nil
		}
		fallthrough
	case unix.S_IFIFO, unix.S_IFLNK:
		h, err := headerAt(d, base, name, &st)
		if err != nil {
			return err
		}
		return w.visit(h, nil)
	}
	f, err := openBelow(d, base, &st)
	if err != nil {
		return fmt.Errorf("read %q: %w", name, err)
	}
	defer f.Close()
	if kind == unix.S_IFDIR {
		if uint64(st.Dev) != dev && kernelFS(f) {
			return w.mountPoint(f, name, &st)
		}
		return w.dir(f, name, &st)
	}
	h, err := header(f, name, &st)
	if err != nil {
		return err
	}
	return w.visit(h, f)
}

// openBelow opens base, which must still be what st says.
func openBelow(d *os.File, base string, st *unix.Stat_t) (*os.File, error) {
	fd, err := unix.Openat(int(d.Fd()), base, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), base)
	var now unix.Stat_t
	if err := unix.Fstat(fd, &now); err != nil {
		f.Close()
		return nil, err
	}
	if now.Dev != st.Dev || now.Ino != st.Ino || now.Mode != st.Mode {
		f.Close()
		return nil, errChanged
	}
	*st = now
	return f, nil
}

// mountPoint visits a directory without its content.
func (w *dirWalk) mountPoint(f *os.File, name string, st *unix.Stat_t) error {
	h, err := header(f, name, st)
	if err != nil {
		return err
	}
	return w.visit(h, nil)
}

// header describes an open file or directory.
func header(f *os.File, name string, st *unix.Stat_t) (*tar.Header, error) {
	h := statHeader(name, st)
	err := readXattrs(h,
		func(b []byte) (int, error) { return unix.Flistxattr(int(f.Fd()), b) },
		func(a string, b []byte) (int, error) { return unix.Fgetxattr(int(f.Fd()), a, b) })
	return h, err
}

// headerAt describes what cannot be opened for reading: a link, fifo or device.
func headerAt(d *os.File, base, name string, st *unix.Stat_t) (*tar.Header, error) {
	h := statHeader(name, st)
	if h.Typeflag == tar.TypeSymlink {
		b := make([]byte, 4097)
		n, err := unix.Readlinkat(int(d.Fd()), base, b)
		if err != nil {
			return nil, fmt.Errorf("read link %q: %w", name, err)
		}
		h.Linkname = string(b[:n])
	}
	p := fmt.Sprintf("/proc/self/fd/%d/%s", d.Fd(), base)
	err := readXattrs(h,
		func(b []byte) (int, error) { return unix.Llistxattr(p, b) },
		func(a string, b []byte) (int, error) { return unix.Lgetxattr(p, a, b) })
	return h, err
}

func statHeader(name string, st *unix.Stat_t) *tar.Header {
	h := &tar.Header{
		Name: name, Mode: int64(st.Mode & 0o7777), Uid: int(st.Uid), Gid: int(st.Gid),
		ModTime: time.Unix(st.Mtim.Unix()),
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		h.Typeflag = tar.TypeDir
	case unix.S_IFLNK:
		h.Typeflag = tar.TypeSymlink
	case unix.S_IFIFO:
		h.Typeflag = tar.TypeFifo
	case unix.S_IFCHR, unix.S_IFBLK:
		h.Typeflag = tar.TypeChar
		if st.Mode&unix.S_IFMT == unix.S_IFBLK {
			h.Typeflag = tar.TypeBlock
		}
		h.Devmajor, h.Devminor = int64(unix.Major(uint64(st.Rdev))), int64(unix.Minor(uint64(st.Rdev)))
	default:
		h.Typeflag, h.Size = tar.TypeReg, st.Size
	}
	return h
}

// readXattrs adds the attributes that the caller may read.
func readXattrs(h *tar.Header, list func([]byte) (int, error), get func(string, []byte) (int, error)) error {
	// 64 KiB is the kernel's limit for the list and for one value.
	const most = 64 << 10
	names := make([]byte, 512)
	n, err := list(names)
	if err == unix.ERANGE {
		names = make([]byte, most)
		n, err = list(names)
	}
	if err == unix.ENOTSUP || err == unix.EPERM || err == unix.EACCES || err == unix.ENOENT || n == 0 && err == nil {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list attributes of %q: %w", h.Name, err)
	}
	var value []byte
	for a := range strings.SplitSeq(strings.TrimRight(string(names[:n]), "\x00"), "\x00") {
		if !keepXattr(a) {
			continue
		}
		if value == nil {
			value = make([]byte, most)
		}
		n, err := get(a, value)
		if err == unix.ENODATA || err == unix.EPERM || err == unix.EACCES || err == unix.ENOTSUP {
			continue
		}
		if err != nil {
			return fmt.Errorf("read attributes of %q: %w", h.Name, err)
		}
		if h.PAXRecords == nil {
			h.PAXRecords = map[string]string{}
		}
		h.PAXRecords[paxXattr+a] = string(value[:n])
	}
	return nil
}
