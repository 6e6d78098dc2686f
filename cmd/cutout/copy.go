package main

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/cutoutdev/cutout/internal/config"
	"github.com/cutoutdev/cutout/internal/keeper"
	"github.com/cutoutdev/cutout/internal/term"
)

// A copySpec is one --copy SRC:DST: the guest gets SRC under the name DST,
// or inside DST if that ends with a slash.
type copySpec struct {
	src string // on the host
	dst string // absolute, in the guest
}

func parseCopies(texts []string) ([]copySpec, error) {
	var out []copySpec
	for _, text := range texts {
		c, err := parseCopy(text)
		if err != nil {
			return nil, config.In("copy", text, err)
		}
		out = append(out, c)
	}
	return out, nil
}

func parseCopy(text string) (copySpec, error) {
	i := strings.LastIndex(text, ":")
	if i <= 0 || !path.IsAbs(text[i+1:]) {
		return copySpec{}, term.WithHint(usageError{fmt.Errorf("invalid --copy %q", text)}, "write --copy SRC:/DST")
	}
	c := copySpec{src: text[:i], dst: path.Clean(text[i+1:])}
	if _, err := os.Stat(c.src); err != nil {
		return c, term.WithHint(fmt.Errorf("--copy %q: %w", text, err), "check the path")
	}
	if strings.HasSuffix(text, "/") {
		abs, err := filepath.Abs(c.src)
		if err != nil {
			return c, fmt.Errorf("--copy %q: %w", text, err)
		}
		c.dst = path.Join(c.dst, filepath.Base(abs))
	}
	if c.dst == "/" {
		return c, term.WithHint(usageError{fmt.Errorf("--copy %q would replace the guest's root", text)}, "name a directory in it")
	}
	return c, nil
}

// copiedTexts lists the paths: they become visible in the guest.
func copiedTexts(copies []copySpec) []config.Text {
	var texts []config.Text
	for _, c := range copies {
		texts = append(texts, config.Text{Where: "--copy", Text: c.src}, config.Text{Where: "--copy", Text: c.dst})
	}
	return texts
}

// copyIn sends c as a tar stream through the agent.
func (a *app) copyIn(ctx context.Context, client *keeper.Client, c copySpec) error {
	r, w := io.Pipe()
	go func() {
		tw := tar.NewWriter(&countingWriter{w: w, told: func(n int64) { a.out.Progress("copying "+c.src, n, 0) }})
		err := writeTree(tw, c.src, path.Base(c.dst))
		w.CloseWithError(errors.Join(err, tw.Close()))
	}()
	err := client.PutTar(ctx, path.Dir(c.dst), r)
	r.CloseWithError(err)
	a.out.Progress("", 0, 0)
	if err != nil {
		return fmt.Errorf("copy %s into the guest: %w", c.src, err)
	}
	return nil
}

// writeTree writes the file or directory src under the name given. Symbolic
// links inside it stay links; src itself is followed. What is copied belongs
// to root in the guest, with its mode.
func writeTree(tw *tar.Writer, src, name string) error {
	root, err := filepath.EvalSymlinks(src)
	if err != nil {
		return err
	}
	return filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		return writeEntry(tw, p, path.Join(name, filepath.ToSlash(rel)), d)
	})
}

func writeEntry(tw *tar.Writer, p, name string, d fs.DirEntry) error {
	info, err := d.Info()
	if err != nil {
		return err
	}
	link := ""
	switch {
	case info.Mode()&fs.ModeSymlink != 0:
		if link, err = os.Readlink(p); err != nil {
			return err
		}
	case !info.Mode().IsRegular() && !info.IsDir():
		return nil // sockets, pipes and devices mean nothing elsewhere
	}
	h, err := tar.FileInfoHeader(info, link)
	if err != nil {
		return err
	}
	h.Name, h.Uid, h.Gid, h.Uname, h.Gname = name, 0, 0, "", ""
	if info.IsDir() {
		h.Name += "/"
	}
	if err := tw.WriteHeader(h); err != nil || !info.Mode().IsRegular() {
		return err
	}
	f, err := os.Open(p)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(tw, io.LimitReader(f, info.Size())) // a file that grows meanwhile keeps the size announced
	return err
}

// A countingWriter tells how much has gone through it.
type countingWriter struct {
	w    io.Writer
	n    int64
	told func(int64)
}

func (c *countingWriter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	c.told(c.n)
	return n, err
}
