// Package file reads values from files: one file, one value. One line end
// at its end is not part of it.
package file

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/cutoutdev/cutout/internal/source"
)

// A Source reads files. A relative path is one from the working directory.
type Source struct {
	Home string // what ~ stands for
}

// Read returns what the file ref holds. It refuses what is not a regular
// file, and warns of one that others can read.
func (s *Source) Read(_ context.Context, ref string) (source.Value, error) {
	f, info, err := Open(Expand(ref, s.Home))
	if err != nil {
		return source.Value{}, err
	}
	defer f.Close()
	if info.Size() > source.Limit {
		return source.Value{}, source.ErrTooLong
	}
	b, err := source.NewBuffer()
	if err != nil {
		return source.Value{}, err
	}
	if _, err := b.ReadFrom(f); err != nil {
		b.Close()
		return source.Value{}, err
	}
	b.DropLineEnd()
	v := source.Value{Data: b}
	if info.Mode().Perm()&0o077 != 0 {
		v.Warning = fmt.Sprintf("other users can read %s (mode %04o): chmod 600 it", ref, info.Mode().Perm())
	}
	return v, nil
}

// Expand replaces a leading ~ by home, as a shell does where it stands
// first in a word.
func Expand(path, home string) string {
	if rest, ok := strings.CutPrefix(path, "~"); ok && home != "" && (rest == "" || rest[0] == '/') {
		return filepath.Join(home, rest)
	}
	return path
}

// Open opens a regular file. It does not wait for the other end of a pipe.
func Open(path string) (*os.File, fs.FileInfo, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		hint := ""
		if errors.Is(err, fs.ErrNotExist) {
			hint = "check the path; a relative one begins at the working directory"
		}
		return nil, nil, source.Errorf(hint, "%w", err)
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = source.Errorf("name a file that holds the value and nothing else", "%s is not a regular file", path)
	}
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	return f, info, nil
}
