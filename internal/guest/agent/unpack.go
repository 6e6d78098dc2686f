package agent

import (
	"archive/tar"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// unpack extracts below dir. Every name is resolved inside of it, symbolic
// links too, so that no entry can lead elsewhere.
func unpack(dir string, r io.Reader) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	type made struct {
		name  string
		mtime time.Time
	}
	var dirs []made // their times are set last, since filling them changes them
	buf := make([]byte, 128<<10)
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		name := path.Clean(strings.TrimLeft(h.Name, "/"))
		if name == "." {
			continue
		}
		if err := extract(root, name, h, tr, buf); err != nil {
			return err
		}
		if h.Typeflag == tar.TypeDir && len(dirs) < 1<<16 {
			dirs = append(dirs, made{name, h.ModTime})
		}
	}
	for i := len(dirs) - 1; i >= 0; i-- {
		root.Chtimes(dirs[i].name, dirs[i].mtime, dirs[i].mtime)
	}
	_, err = io.CopyBuffer(io.Discard, r, buf) // padding after the end
	return err
}

// extract makes one entry.
func extract(root *os.Root, name string, h *tar.Header, r io.Reader, buf []byte) error {
	if parent := path.Dir(name); parent != "." {
		if err := root.MkdirAll(parent, 0o755); err != nil {
			return err
		}
	}
	if h.Typeflag == tar.TypeDir {
		if fi, err := root.Stat(name); err != nil || !fi.IsDir() {
			if err := root.Mkdir(name, 0o700); err != nil {
				return err
			}
		}
		return own(root, name, h)
	}
	if fi, err := root.Lstat(name); err == nil {
		if fi.IsDir() {
			return &fs.PathError{Op: "replace", Path: name, Err: syscall.EISDIR}
		}
		if err := root.Remove(name); err != nil {
			return err
		}
	}
	switch h.Typeflag {
	case tar.TypeReg:
		return extractFile(root, name, h, r, buf)
	case tar.TypeSymlink:
		if err := root.Symlink(h.Linkname, name); err != nil {
			return err
		}
		return root.Lchown(name, h.Uid, h.Gid)
	case tar.TypeLink:
		return root.Link(path.Clean(strings.TrimLeft(h.Linkname, "/")), name)
	case tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
		if err := mknod(root, name, h); err != nil {
			return err
		}
		return own(root, name, h)
	case tar.TypeXGlobalHeader:
		return nil
	}
	return &fs.PathError{Op: "unpack", Path: name, Err: errors.New("unknown kind of entry")}
}

func extractFile(root *os.Root, name string, h *tar.Header, r io.Reader, buf []byte) error {
	f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	// Hide File.ReadFrom, which would copy in smaller pieces.
	if _, err := io.CopyBuffer(struct{ io.Writer }{f}, struct{ io.Reader }{r}, buf); err != nil {
		return err
	}
	if err := f.Chown(h.Uid, h.Gid); err != nil { // before the mode, which it would strip of setuid
		return err
	}
	if err := f.Chmod(h.FileInfo().Mode()); err != nil {
		return err
	}
	for key, v := range h.PAXRecords {
		if attr, ok := strings.CutPrefix(key, "SCHILY.xattr."); ok {
			unix.Fsetxattr(int(f.Fd()), attr, []byte(v), 0) // not every file system has them
		}
	}
	return root.Chtimes(name, h.ModTime, h.ModTime)
}

func own(root *os.Root, name string, h *tar.Header) error {
	if err := root.Chown(name, h.Uid, h.Gid); err != nil {
		return err
	}
	return root.Chmod(name, h.FileInfo().Mode())
}

func mknod(root *os.Root, name string, h *tar.Header) error {
	parent, err := root.Open(path.Dir(name))
	if err != nil {
		return err
	}
	defer parent.Close()
	kind := map[byte]uint32{tar.TypeChar: unix.S_IFCHR, tar.TypeBlock: unix.S_IFBLK, tar.TypeFifo: unix.S_IFIFO}[h.Typeflag]
	dev := unix.Mkdev(uint32(h.Devmajor), uint32(h.Devminor))
	return unix.Mknodat(int(parent.Fd()), path.Base(name), kind|0o600, int(dev))
}
