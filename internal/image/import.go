package image

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// Import builds the image at path and calls it name, replacing what had that
// name. Path is a directory with a root file system, a tar of one (plain, gzip,
// zstd, xz or bzip2), the output of docker save, or an OCI image layout as a
// directory or tar.
func (s *Store) Import(ctx context.Context, name, path string, progress Progress) (Image, error) {
	if err := validName(name); err != nil {
		return Image{}, err
	}
	if err := s.prepare(); err != nil {
		return Image{}, err
	}
	src, err := s.open(ctx, path, progress)
	if err != nil {
		return Image{}, fmt.Errorf("import image %q: %w", name, err)
	}
	defer src.close()
	img, err := s.build(ctx, name, src, progress)
	if err != nil {
		return Image{}, fmt.Errorf("import image %q: %w", name, err)
	}
	return img, nil
}

// Ensure returns the image called ref, pulling it if the store does not hold
// it or holds it damaged.
func (s *Store) Ensure(ctx context.Context, ref string, progress Progress) (Image, error) {
	img, err := s.Lookup(ctx, ref, progress)
	if err == nil || !errors.Is(err, ErrNotFound) && !errors.Is(err, ErrCorrupt) {
		return img, err
	}
	return s.Pull(ctx, ref, progress)
}

// WriteDir writes a read-only ext4 file system with the content of dir into
// dst, which must be empty. Symbolic links stay links and are never followed;
// sockets and devices are left out.
func WriteDir(ctx context.Context, dst *os.File, dir string, limits Limits, progress Progress) error {
	layers := []layer{&dirLayer{root: dir}}
	p, err := merge(ctx, layers, limits.withDefaults(), progress)
	if err == nil {
		_, err = writeDisk(ctx, dst, p, layers, progress)
	}
	if err != nil {
		return fmt.Errorf("make disk of a directory: %w", err)
	}
	return nil
}

// open finds out what is at path.
func (s *Store) open(ctx context.Context, path string, progress Progress) (*source, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("open: %w", err)
	}
	limits := s.Limits.withDefaults()
	if st.IsDir() {
		if !isFile(filepath.Join(path, "oci-layout")) || !isFile(filepath.Join(path, "index.json")) {
			return &source{layers: []layer{&dirLayer{root: path, nodes: true}}}, nil
		}
		root, err := os.OpenRoot(path)
		if err != nil {
			return nil, fmt.Errorf("open: %w", err)
		}
		src, err := archiveSource(dirBlobs{root}, limits)
		if err != nil {
			root.Close()
			return nil, err
		}
		src.cleanup = func() { root.Close() }
		return src, nil
	}
	if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("open %q: neither a file nor a directory", path)
	}
	return s.openFile(ctx, path, limits, progress)
}

// openFile finds out what a tar is.
func (s *Store) openFile(ctx context.Context, path string, limits Limits, progress Progress) (*source, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open: %w", err)
	}
	var head [32]byte
	n, err := io.ReadFull(f, head[:])
	if err != nil && err != io.ErrUnexpectedEOF && err != io.EOF {
		f.Close()
		return nil, fmt.Errorf("read: %w", err)
	}
	if n == 0 {
		f.Close()
		return nil, refuse("the file is empty")
	}
	st, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("read: %w", err)
	}
	rootfs := &source{cleanup: func() { f.Close() }, layers: []layer{&tarLayer{
		open:  func() (io.ReadCloser, error) { return io.NopCloser(io.NewSectionReader(f, 0, st.Size())), nil },
		bytes: st.Size(), limits: limits,
	}}}
	tarFile := f
	if sniff(head[:n]) != plain {
		is, err := looksLikeArchive(ctx, rootfs.layers[0])
		if err != nil || !is {
			if err != nil {
				f.Close()
				return nil, err
			}
			return rootfs, nil
		}
		// An archive is read in no order: it has to lie unpacked.
		tarFile, err = s.unpackTemp(ctx, f, st.Size(), limits, progress)
		f.Close()
		if err != nil {
			return nil, err
		}
	}
	blobs, err := indexTar(ctx, tarFile)
	if err == nil && blobs == nil {
		return rootfs, nil
	}
	var src *source
	if err == nil {
		src, err = archiveSource(blobs, limits)
	}
	if err != nil {
		tarFile.Close()
		return nil, err
	}
	src.cleanup = func() { tarFile.Close() }
	return src, nil
}

// looksLikeArchive reports whether every name in a tar is one of an archive.
func looksLikeArchive(ctx context.Context, l layer) (bool, error) {
	stop := errors.New("no archive")
	err := l.walk(ctx, func(h *tar.Header, _ io.Reader) error {
		if name := cleanEntry(h.Name); !archiveEntry.MatchString(name) {
			return stop
		}
		return nil
	})
	if errors.Is(err, stop) {
		return false, nil
	}
	return err == nil, err
}

// unpackTemp decompresses f into a file without a name.
func (s *Store) unpackTemp(ctx context.Context, f *os.File, size int64, limits Limits, progress Progress) (*os.File, error) {
	tmp, err := s.temp("archive-*")
	if err != nil {
		return nil, err
	}
	os.Remove(tmp.Name())
	stored := &meter{ctx: ctx, r: io.NewSectionReader(f, 0, size)}
	r, done, err := decompress(stored, false)
	if err == nil {
		defer done()
		guard := &bombGuard{r: r, stored: stored, ratio: limits.Ratio, left: limits.TotalBytes}
		c := &countReader{ctx: ctx, r: guard, stage: StageUnpack, progress: progress}
		_, err = io.Copy(tmp, c)
	}
	if err != nil {
		tmp.Close()
		return nil, fmt.Errorf("unpack archive: %w", err)
	}
	return tmp, nil
}

func isFile(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.Mode().IsRegular()
}
