package kernel

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// testModule is an ELF object with nothing but a .modinfo section.
func testModule(info ...string) []byte {
	text := []byte(strings.Join(info, "\x00") + "\x00")
	names := []byte("\x00.modinfo\x00.shstrtab\x00")
	var b bytes.Buffer
	h := elf.Header64{
		Type: uint16(elf.ET_REL), Machine: uint16(elf.EM_X86_64), Version: 1,
		Shoff: uint64(64 + len(text) + len(names)), Ehsize: 64, Shentsize: 64, Shnum: 3, Shstrndx: 2,
	}
	copy(h.Ident[:], elf.ELFMAG+"\x02\x01\x01")
	binary.Write(&b, binary.LittleEndian, h)
	b.Write(text)
	b.Write(names)
	binary.Write(&b, binary.LittleEndian, elf.Section64{})
	binary.Write(&b, binary.LittleEndian, elf.Section64{Name: 1, Type: uint32(elf.SHT_PROGBITS), Off: 64, Size: uint64(len(text)), Addralign: 1})
	binary.Write(&b, binary.LittleEndian, elf.Section64{Name: 10, Type: uint32(elf.SHT_STRTAB), Off: uint64(64 + len(text)), Size: uint64(len(names)), Addralign: 1})
	return b.Bytes()
}

func testTree(t *testing.T, files map[string][]byte) string {
	t.Helper()
	dir := t.TempDir()
	for name, data := range files {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestResolve(t *testing.T) {
	compress := func(name string, data []byte) []byte {
		var b bytes.Buffer
		z := compressors[name](&b)
		z.Write(data)
		z.Close()
		return b.Bytes()
	}
	dir := testTree(t, map[string][]byte{
		"modules.builtin":         []byte("kernel/fs/ext4/ext4.ko\nkernel/lib/built-in.ko\n"),
		"kernel/virtio.ko":        testModule("depends="),
		"kernel/virtio_ring.ko":   testModule("depends=virtio"),
		"kernel/net.ko.xz":        compress("xz", testModule("name=net", "depends=virtio_ring,built_in,fail-over")),
		"kernel/fail-over.ko.zst": compress("zstd", testModule("depends=")),
		"kernel/fs.ko.gz":         compress("gzip", testModule("depends=", "softdep=pre: crc absent post: late")),
		"kernel/crc_generic.ko":   testModule(),
		"kernel/late.ko":          testModule(),
		"kernel/loop1.ko":         testModule("depends=loop2"),
		"kernel/loop2.ko":         testModule("depends=loop1"),
		"kernel/broken.ko":        []byte("no ELF"),
		"kernel/orphan.ko":        testModule("depends=nowhere"),
		"build/kernel/shadow.ko":  testModule(),
	})
	for _, tt := range []struct {
		want  string
		names []string
		err   string
	}{
		{want: "virtio virtio_ring fail_over net crc_generic fs", names: []string{"net", "fs", "ext4", "virtio"}},
		{want: "", names: []string{"ext4", "built-in"}},
		{want: "", names: []string{"virtio_rng"}}, // optional
		{names: []string{"nothing"}, err: "no module nothing"},
		{names: []string{"orphan"}, err: "no module nowhere"},
		{names: []string{"loop1"}, err: "depends on itself"},
		{names: []string{"broken"}, err: "read kernel module broken"},
		{names: []string{"shadow"}, err: "no module shadow"},
	} {
		mods, err := Resolve(dir, tt.names)
		if tt.err != "" {
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%v: error %v", tt.names, err)
			}
			continue
		}
		var got []string
		for _, m := range mods {
			got = append(got, m.Name)
		}
		if err != nil || strings.Join(got, " ") != tt.want {
			t.Errorf("%v: %v, %v", tt.names, got, err)
		}
	}
	if mods, err := Resolve("", Modules); err != nil || len(mods) != 0 {
		t.Errorf("without modules: %v, %v", mods, err)
	}
	if _, err := Resolve(filepath.Join(dir, "nowhere"), Modules); err == nil {
		t.Error("a directory that does not exist")
	}
}

func TestInstall(t *testing.T) {
	dir := testTree(t, map[string][]byte{
		"6.1.0-test/modules.builtin": []byte("kernel/ext4.ko\nkernel/virtio_mmio.ko\nkernel/virtio_blk.ko\nkernel/virtio_console.ko\nkernel/overlay.ko\n"),
		"6.1.0-test/virtio_net.ko":   testModule("depends=failover"),
		"6.1.0-test/failover.ko":     testModule(),
		"other/modules.builtin":      nil,
	})
	image := testELF(xenElfnotePhys32Entry)
	vmlinuz := filepath.Join(t.TempDir(), "vmlinuz")
	if err := os.WriteFile(vmlinuz, bzImage(packed("zstd", image)), 0o600); err != nil {
		t.Fatal(err)
	}
	dst := filepath.Join(t.TempDir(), "kernel")
	if _, err := Open(dst); !errors.Is(err, ErrNotInstalled) {
		t.Errorf("before: %v", err)
	}
	for range 2 { // again over itself
		k, err := Install(dst, vmlinuz, filepath.Join(dir, "6.1.0-test"))
		if err != nil {
			t.Fatal(err)
		}
		want := &Installed{
			Vmlinux: filepath.Join(dst, "vmlinux"), Release: "6.1.0-test",
			Modules: []string{filepath.Join(dst, "modules/failover.ko"), filepath.Join(dst, "modules/virtio_net.ko")},
		}
		if diff := cmp.Diff(want, k); diff != "" {
			t.Error(diff)
		}
	}
	if _, err := Install(filepath.Join(t.TempDir(), "k"), vmlinuz, filepath.Join(dir, "other")); err == nil {
		t.Error("modules of another release are accepted")
	}
	if err := os.Remove(filepath.Join(dst, "modules/failover.ko")); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dst); err == nil || errors.Is(err, ErrNotInstalled) {
		t.Errorf("incomplete: %v", err)
	}
}

// The archive is what the system's cpio reads.
func TestInitramfs(t *testing.T) {
	dir := testTree(t, map[string][]byte{"agent": []byte("#!agent"), "a_mod.ko": []byte("module a"), "b.ko": []byte("b")})
	var b bytes.Buffer
	mods := []string{filepath.Join(dir, "b.ko"), filepath.Join(dir, "a_mod.ko")}
	if err := Initramfs(&b, filepath.Join(dir, "agent"), mods); err != nil {
		t.Fatal(err)
	}
	if _, err := exec.LookPath("cpio"); err != nil {
		checkNewc(t, b.Bytes())
		return
	}
	out := t.TempDir()
	cmd := exec.Command("cpio", "-idm", "--quiet")
	cmd.Dir, cmd.Stdin = out, bytes.NewReader(b.Bytes())
	if msg, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, msg)
	}
	for name, want := range map[string]string{
		"init": "#!agent", "mods/a_mod.ko": "module a", "mods/b.ko": "b", "mods/order": "b.ko\na_mod.ko\n",
	} {
		got, err := os.ReadFile(filepath.Join(out, name))
		if err != nil || string(got) != want {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	if st, err := os.Stat(filepath.Join(out, "init")); err != nil || st.Mode().Perm() != 0o755 {
		t.Errorf("init: %v, %v", st, err)
	}
	if err := Initramfs(&b, filepath.Join(dir, "nothing"), nil); err == nil {
		t.Error("no agent, no error")
	}
}

// checkNewc is for hosts without cpio: every header where it should be.
func checkNewc(t *testing.T, b []byte) {
	t.Helper()
	if !bytes.HasPrefix(b, []byte("070701")) || bytes.Count(b, []byte("070701")) != 9 || !bytes.Contains(b, []byte("TRAILER!!!\x00")) || len(b)%4 != 0 {
		t.Errorf("no archive: %q", b)
	}
}
