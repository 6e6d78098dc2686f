package cage

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

type kind uint8

const (
	kindLink   kind = iota // a symbolic link of the host's layout (/lib to usr/lib)
	kindRead               // a file to read, or a library to map
	kindExec               // the program and its loader
	kindDevice             // a character device
)

// An entry is one name in the program's root directory.
type entry struct {
	Path   string // absolute, in the cage
	Source string // on the host, links resolved; for a kindLink its target
	Kind   kind
}

// tree lists what the program needs to run and is given to read.
func tree(cfg Config) ([]entry, error) {
	t := &treeBuilder{seen: map[string]bool{}}
	if !filepath.IsAbs(cfg.Path) {
		return nil, errors.New("the program's path is not absolute")
	}
	t.add(cfg.Path, kindExec)
	l := &loader{dirs: libraryDirs()}
	libs, err := l.closure(append([]string{cfg.Path}, cfg.Plugins...))
	if err != nil {
		return nil, fmt.Errorf("find libraries: %w", err)
	}
	if l.interp != "" {
		t.add(l.interp, kindExec)
	}
	for _, lib := range libs {
		t.add(lib, kindRead)
	}
	if l.needsCache {
		t.add("/etc/ld.so.cache", kindRead)
	}
	for _, f := range append(cfg.Plugins, cfg.Read...) {
		t.add(f, kindRead)
	}
	for _, f := range cfg.Devices {
		t.add(f, kindDevice)
	}
	return t.entries, t.err
}

type treeBuilder struct {
	entries []entry
	seen    map[string]bool
	err     error // the first
}

// add enters a file under its name. Links among its directories are made in
// the cage as on the host, so that every spelling of a name works; the file
// itself is resolved.
func (t *treeBuilder) add(path string, k kind) {
	if t.err != nil {
		return
	}
	source, err := filepath.EvalSymlinks(path)
	if err != nil {
		t.err = fmt.Errorf("find file for the cage: %w", err)
		return
	}
	path, err = t.directories(filepath.Clean(path))
	if err != nil {
		t.err = err
		return
	}
	if !t.seen[path] {
		t.seen[path] = true
		t.entries = append(t.entries, entry{path, source, k})
	}
}

// directories enters the links among path's directories and returns the path
// without them.
func (t *treeBuilder) directories(path string) (string, error) {
	at, rest := "/", strings.TrimPrefix(path, "/")
	for range 255 {
		name, more, dir := strings.Cut(rest, "/")
		if !dir {
			return filepath.Join(at, name), nil
		}
		next := filepath.Join(at, name)
		target, err := os.Readlink(next)
		if err != nil { // an ordinary directory
			at, rest = next, more
			continue
		}
		if !t.seen[next] {
			t.seen[next] = true
			t.entries = append(t.entries, entry{next, target, kindLink})
		}
		if filepath.IsAbs(target) {
			at = "/"
		}
		rest = strings.TrimPrefix(filepath.Clean(target), "/") + "/" + more
	}
	return "", fmt.Errorf("too many links in %s", path)
}
