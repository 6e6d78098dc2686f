package kernel

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/therootcompany/xz"
)

// maxModule bounds one unpacked module; the largest in a distribution's
// kernel are GPU drivers of some 20 MB, none of which is wanted here.
const maxModule = 64 << 20

// A Module is an unpacked kernel module.
type Module struct {
	Name string // with underscores, as the kernel names it
	Data []byte
}

// Resolve finds the named modules and what they depend on in a
// /lib/modules/RELEASE tree and returns them in load order. Modules that are
// built into the kernel are left out. It reads the dependencies from the
// modules themselves, because packages do not ship modules.dep. An empty dir
// stands for a kernel that has everything built in.
func Resolve(dir string, names []string) ([]Module, error) {
	if dir == "" {
		return nil, nil
	}
	t := &tree{files: map[string]string{}, builtin: map[string]bool{}, state: map[string]int{}}
	if err := t.scan(dir); err != nil {
		return nil, fmt.Errorf("read kernel modules: %w", err)
	}
	for _, name := range names {
		if err := t.add(name, optional[name]); err != nil {
			return nil, err
		}
	}
	return t.order, nil
}

type tree struct {
	files   map[string]string // module name to file
	builtin map[string]bool
	state   map[string]int // 1 = being added, 2 = added
	order   []Module
}

func (t *tree) scan(dir string) error {
	list, err := os.ReadFile(filepath.Join(dir, "modules.builtin"))
	if err != nil {
		return err
	}
	for s := bufio.NewScanner(bytes.NewReader(list)); s.Scan(); {
		t.builtin[moduleName(s.Text())] = true
	}
	return filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == "build" || d.Name() == "source") {
			return filepath.SkipDir
		}
		if d.Type().IsRegular() && strings.Contains(d.Name(), ".ko") {
			t.files[moduleName(p)] = p
		}
		return nil
	})
}

// moduleName is the kernel's name for a module file: virtio-rng.ko.xz is
// virtio_rng.
func moduleName(path string) string {
	base, _, _ := strings.Cut(filepath.Base(path), ".ko")
	return strings.ReplaceAll(base, "-", "_")
}

func (t *tree) add(name string, optional bool) error {
	name = strings.ReplaceAll(name, "-", "_")
	switch {
	case t.state[name] == 1:
		return fmt.Errorf("kernel module %s depends on itself", name)
	case t.state[name] == 2 || t.builtin[name]:
		return nil
	}
	file, ok := t.files[name]
	if !ok {
		if optional {
			return nil
		}
		return fmt.Errorf("the kernel has no module %s", name)
	}
	t.state[name] = 1
	data, err := readModule(file)
	if err != nil {
		return fmt.Errorf("read kernel module %s: %w", name, err)
	}
	hard, soft, err := depends(data)
	if err != nil {
		return fmt.Errorf("read kernel module %s: %w", name, err)
	}
	for _, d := range soft {
		// A soft dependency names an alias as often as a module: crc32c is
		// served by crc32c_generic.
		for _, n := range []string{d, d + "_generic"} {
			if err := t.add(n, true); err != nil {
				return err
			}
		}
	}
	for _, d := range hard {
		if err := t.add(d, false); err != nil {
			return err
		}
	}
	t.state[name] = 2
	t.order = append(t.order, Module{name, data})
	return nil
}

// depends reads what a module needs from its .modinfo section.
func depends(data []byte) (hard, soft []string, err error) {
	f, err := elf.NewFile(bytes.NewReader(data))
	if err != nil {
		return nil, nil, err
	}
	s := f.Section(".modinfo")
	if s == nil || s.Size > 1<<20 {
		return nil, nil, errors.New("no module information")
	}
	info, err := s.Data()
	if err != nil {
		return nil, nil, err
	}
	for entry := range strings.SplitSeq(string(info), "\x00") {
		key, value, _ := strings.Cut(entry, "=")
		switch key {
		case "depends":
			hard = strings.FieldsFunc(value, func(r rune) bool { return r == ',' })
		case "softdep":
			pre, _, _ := strings.Cut(value, "post:")
			if _, pre, ok := strings.Cut(pre, "pre:"); ok {
				soft = append(soft, strings.Fields(pre)...)
			}
		}
	}
	return hard, soft, nil
}

func readModule(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var r io.Reader = f
	switch filepath.Ext(path) {
	case ".xz":
		r, err = xz.NewReader(bufio.NewReader(f), xzDict)
	case ".gz":
		r, err = gzip.NewReader(f)
	case ".zst":
		var z *zstd.Decoder
		if z, err = zstd.NewReader(f, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxModule)); err == nil {
			defer z.Close()
			r = z
		}
	}
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(r, maxModule+1))
	if len(data) > maxModule {
		return nil, errors.New("the module is too large")
	}
	return data, err
}
