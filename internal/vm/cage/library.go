package cage

import (
	"bufio"
	"debug/elf"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

// A loader finds shared libraries as ld.so would (ld.so(8)): RPATH or
// RUNPATH, then the directories of ld.so.conf, which its cache stands for,
// then the built-in ones. It runs nothing, unlike ldd.
type loader struct {
	dirs       []string // searched in order
	interp     string   // ld.so itself
	needsCache bool     // a library lies where ld.so looks only through its cache
	libs       []string
}

// triplet names Debian's directories.
var triplet = map[string]string{"amd64": "x86_64-linux-gnu", "arm64": "aarch64-linux-gnu"}[runtime.GOARCH]

// builtin are the directories that ld.so searches by itself.
var builtin = []string{"/lib/" + triplet, "/usr/lib/" + triplet, "/lib64", "/usr/lib64", "/lib", "/usr/lib"}

// Libraries lists what dynamically linked files need to run: their loader, if
// they have one, and their shared libraries.
func Libraries(files ...string) (interp string, libs []string, err error) {
	l := &loader{dirs: libraryDirs()}
	libs, err = l.closure(slices.Clone(files))
	return l.interp, libs, err
}

func libraryDirs() []string {
	dirs := slices.Clone(builtin)
	readLibraryConf("/etc/ld.so.conf", 0, &dirs)
	return dirs
}

// readLibraryConf appends the directories of an ld.so.conf.
func readLibraryConf(path string, depth int, dirs *[]string) {
	f, err := os.Open(path)
	if err != nil || depth > 4 {
		return
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		line, _, _ := strings.Cut(s.Text(), "#")
		line = strings.TrimSpace(line)
		if glob, ok := strings.CutPrefix(line, "include "); ok {
			glob = strings.TrimSpace(glob)
			if !filepath.IsAbs(glob) {
				glob = filepath.Join(filepath.Dir(path), glob)
			}
			files, _ := filepath.Glob(glob)
			for _, f := range files {
				readLibraryConf(f, depth+1, dirs)
			}
		} else if filepath.IsAbs(line) {
			*dirs = append(*dirs, line)
		}
	}
}

// closure returns the paths of all libraries that the files need, not the
// files themselves. Scripts and static programs need none.
func (l *loader) closure(files []string) ([]string, error) {
	seen := map[string]bool{}
	for i := 0; i < len(files); i++ {
		needs, paths, err := l.needs(files[i])
		if err != nil {
			return nil, err
		}
		for _, name := range needs {
			if seen[name] {
				continue
			}
			seen[name] = true
			lib := l.find(name, paths)
			if lib == "" {
				return nil, fmt.Errorf("%s needs %s, which is not found", files[i], name)
			}
			if lib != l.interp {
				l.libs = append(l.libs, lib)
				files = append(files, lib)
			}
		}
	}
	return l.libs, nil
}

// needs reads a file's needed libraries and its own search path.
func (l *loader) needs(file string) (libs, paths []string, err error) {
	f, err := elf.Open(file)
	if err != nil {
		return nil, nil, fmt.Errorf("read %s: %w", file, err)
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP && l.interp == "" && p.Filesz < 4096 {
			b := make([]byte, p.Filesz)
			if _, err := p.ReadAt(b, 0); err != nil {
				return nil, nil, err
			}
			l.interp = strings.TrimRight(string(b), "\x00")
		}
	}
	if libs, err = f.ImportedLibraries(); err != nil {
		return nil, nil, fmt.Errorf("read %s: %w", file, err)
	}
	for _, tag := range []elf.DynTag{elf.DT_RPATH, elf.DT_RUNPATH} {
		lists, _ := f.DynString(tag)
		for _, list := range lists {
			for _, p := range filepath.SplitList(list) {
				origin := filepath.Dir(file)
				p = strings.NewReplacer("${ORIGIN}", origin, "$ORIGIN", origin).Replace(p)
				if filepath.IsAbs(p) {
					paths = append(paths, filepath.Clean(p))
				}
			}
		}
	}
	return libs, paths, nil
}

func (l *loader) find(name string, paths []string) string {
	if strings.Contains(name, "/") {
		return name
	}
	for _, dir := range slices.Concat(paths, l.dirs) {
		p := filepath.Join(dir, name)
		if st, err := os.Stat(p); err == nil && st.Mode().IsRegular() {
			if !slices.Contains(paths, dir) && !slices.Contains(builtin, dir) {
				l.needsCache = true
			}
			return p
		}
	}
	return ""
}
