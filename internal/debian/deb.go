package debian

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path"
	"strings"
	"time"
)

// files calls visit for every entry of an archive's file system, in order.
func (a *Apt) files(ctx context.Context, deb string, visit func(*tar.Header, io.Reader) error) error {
	return a.walk(ctx, "--fsys-tarfile", deb, visit)
}

// control returns the archive's control files by name.
func (a *Apt) control(ctx context.Context, deb string) (map[string]*controlFile, error) {
	out := map[string]*controlFile{}
	err := a.walk(ctx, "--ctrl-tarfile", deb, func(h *tar.Header, r io.Reader) error {
		if h.Typeflag != tar.TypeReg {
			return nil
		}
		b, err := io.ReadAll(io.LimitReader(r, maxControl))
		if err != nil {
			return err
		}
		if len(b) == maxControl {
			return errors.New("a control file is larger than 16 MiB")
		}
		out[path.Base(path.Clean(h.Name))] = &controlFile{body: b, mode: h.Mode & 0o777, mtime: h.ModTime}
		return nil
	})
	return out, err
}

type controlFile struct {
	body  []byte
	mode  int64
	mtime time.Time
}

// maxControl bounds a control file: lists of checksums are a few hundred KB.
const maxControl = 16 << 20

// walk runs dpkg-deb, which only decompresses, and reads the tar it prints.
func (a *Apt) walk(ctx context.Context, what, deb string, visit func(*tar.Header, io.Reader) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	cmd := exec.CommandContext(ctx, a.dpkgDeb, what, deb)
	cmd.Env = environ()
	var complaint bytes.Buffer
	cmd.Stderr = &complaint
	out, err := cmd.StdoutPipe()
	if err != nil {
		return fmt.Errorf("run dpkg-deb: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("run dpkg-deb: %w", err)
	}
	err = readTar(out, visit)
	if err == nil {
		_, err = io.Copy(io.Discard, out)
	} else {
		cancel()
	}
	if e := cmd.Wait(); err == nil && e != nil {
		err = fmt.Errorf("run dpkg-deb: %w: %s", e, strings.TrimSpace(complaint.String()))
	}
	return err
}

func readTar(r io.Reader, visit func(*tar.Header, io.Reader) error) error {
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read package: %w", err)
		}
		if err := visit(h, tr); err != nil {
			return err
		}
	}
}
