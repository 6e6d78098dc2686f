package agent

import (
	"archive/tar"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// pack writes what is at dir as a tar stream with relative names. What goes
// away meanwhile is left out.
func pack(dir string, w io.Writer) error {
	tw := tar.NewWriter(w)
	buf := make([]byte, 128<<10)
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return skipGone(err)
		}
		fi, err := d.Info()
		if err != nil {
			return skipGone(err)
		}
		rel, err := filepath.Rel(dir, name)
		if err != nil || rel == "." && fi.IsDir() {
			return err
		}
		if rel == "." {
			rel = filepath.Base(name)
		}
		return packOne(tw, name, rel, fi, buf)
	})
	if err != nil {
		return err
	}
	return tw.Close()
}

func packOne(tw *tar.Writer, name, rel string, fi fs.FileInfo, buf []byte) error {
	h := &tar.Header{Name: rel, Mode: int64(fi.Mode().Perm()), ModTime: fi.ModTime(), Format: tar.FormatPAX}
	for bit, mode := range map[fs.FileMode]int64{fs.ModeSetuid: 0o4000, fs.ModeSetgid: 0o2000, fs.ModeSticky: 0o1000} {
		if fi.Mode()&bit != 0 {
			h.Mode |= mode
		}
	}
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		h.Uid, h.Gid = int(st.Uid), int(st.Gid)
		h.Devmajor, h.Devminor = int64(unix.Major(st.Rdev)), int64(unix.Minor(st.Rdev))
	}
	switch fi.Mode().Type() {
	case fs.ModeDir:
		h.Typeflag, h.Name = tar.TypeDir, rel+"/"
	case fs.ModeSymlink:
		h.Typeflag = tar.TypeSymlink
		var err error
		if h.Linkname, err = os.Readlink(name); err != nil {
			return skipGone(err)
		}
	case fs.ModeNamedPipe:
		h.Typeflag = tar.TypeFifo
	case fs.ModeDevice:
		h.Typeflag = tar.TypeBlock
	case fs.ModeDevice | fs.ModeCharDevice: // also an overlay's whiteout
		h.Typeflag = tar.TypeChar
	case 0:
		return packFile(tw, name, h, buf)
	default:
		return nil // a socket
	}
	return tw.WriteHeader(h)
}

func packFile(tw *tar.Writer, name string, h *tar.Header, buf []byte) error {
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return skipGone(err)
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil || !fi.Mode().IsRegular() {
		return err
	}
	h.Typeflag, h.Size = tar.TypeReg, fi.Size()
	if err := tw.WriteHeader(h); err != nil {
		return err
	}
	n, err := io.CopyBuffer(struct{ io.Writer }{tw}, struct{ io.Reader }{io.LimitReader(f, h.Size)}, buf)
	for err == nil && n < h.Size { // it has shrunk; the header is out
		clear(buf)
		var m int
		m, err = tw.Write(buf[:min(int64(len(buf)), h.Size-n)])
		n += int64(m)
	}
	return err
}

func skipGone(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
