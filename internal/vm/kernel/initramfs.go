package kernel

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// Initramfs writes the archive that the guest's kernel unpacks at boot: the
// static binary agent as /init, the module files under /mods, and /mods/order
// with their names, one per line, in load order. It is not compressed:
// unpacking would cost an emulated guest what reading saves.
func Initramfs(w io.Writer, agent string, modules []string) error {
	a := &archive{w: w}
	for _, dir := range []string{"dev", "proc", "sys", "mods"} {
		a.add(dir, 0o40755, nil)
	}
	init, err := os.ReadFile(agent)
	if err != nil {
		return fmt.Errorf("read agent: %w", err)
	}
	a.add("init", 0o100755, init)
	var order bytes.Buffer
	for _, m := range modules {
		data, err := os.ReadFile(m)
		if err != nil {
			return fmt.Errorf("read kernel module: %w", err)
		}
		a.add("mods/"+filepath.Base(m), 0o100644, data)
		fmt.Fprintln(&order, filepath.Base(m))
	}
	a.add("mods/order", 0o100644, order.Bytes())
	a.add("TRAILER!!!", 0, nil)
	return a.err
}

// An archive writes a cpio archive in the newc format, the only one that the
// kernel reads (Documentation/driver-api/early-userspace/buffer-format.rst).
// Times are zero and owners root, so that equal input gives equal output.
type archive struct {
	w   io.Writer
	ino int
	err error // the first; nothing is written after it
}

func (a *archive) add(name string, mode int, data []byte) {
	a.ino++
	links := 1
	if mode&0o170000 == 0o40000 {
		links = 2
	}
	// magic, ino, mode, uid, gid, nlink, mtime, filesize, device major and
	// minor, special file's major and minor, namesize, check
	header := fmt.Sprintf("070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x",
		a.ino, mode, 0, 0, links, 0, len(data), 0, 0, 0, 0, len(name)+1, 0)
	a.write([]byte(header + name + "\x00"))
	a.pad(len(header) + len(name) + 1)
	a.write(data)
	a.pad(len(data))
}

// pad fills up to a multiple of four.
func (a *archive) pad(n int) { a.write(make([]byte, -n&3)) }

func (a *archive) write(p []byte) {
	if a.err == nil {
		_, a.err = a.w.Write(p)
	}
}
