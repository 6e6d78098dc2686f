package image

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestImportDirectory(t *testing.T) {
	d := t.TempDir()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	at := func(p string) string { return filepath.Join(d, p) }
	must(os.Mkdir(at("bin"), 0o755))
	must(os.WriteFile(at("bin/su"), []byte("set-uid"), 0o755))
	must(os.Chmod(at("bin/su"), os.ModeSetuid|0o755))
	must(os.Link(at("bin/su"), at("bin/su2")))
	must(os.Symlink("/etc/passwd", at("link")))
	must(os.Symlink("..", at("up")))
	must(unix.Mkfifo(at("fifo"), 0o600))
	must(os.WriteFile(at(".wh.literal"), []byte("a file"), 0o600))
	must(os.Chtimes(at("bin/su"), time.Unix(1, 0), time.Unix(1_600_000_000, 123)))
	l, err := net.Listen("unix", at("socket"))
	must(err)
	defer l.Close()
	xattr := unix.Setxattr(at("bin/su"), "user.test", []byte("value"), 0) == nil
	if !xattr {
		t.Log("not tested: this file system has no user attributes")
	}
	root := os.Geteuid() == 0
	if root {
		must(unix.Mknod(at("null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
		must(os.Chown(at("bin"), 12, 34))
		must(unix.Setxattr(at("bin/su2"), "security.capability",
			[]byte("\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"), 0))
	} else {
		t.Log("not tested: owners, devices and capabilities need root")
	}
	s := newStore(t)
	img, err := s.Import(context.Background(), "x", d, nil)
	must(err)
	fsck(t, img.Disk)
	checks := map[string]string{
		"stat /bin/su": "Mode:  04755", "stat /bin/su2": "Links: 2", "stat /bin/su ": "mtime: 0x5f5e1000",
		"stat /link": `"/etc/passwd"`, "stat /up": `".."`, "stat /fifo": "FIFO", "cat /.wh.literal": "a file",
	}
	if xattr {
		checks["ea_list /bin/su2"] = `user.test (5) = "value"`
	}
	if root {
		checks["stat /null"] = "01:03"
		checks["stat /bin"] = "User:    12   Group:    34"
		checks["ea_list /bin/su"] = "security.capability (20)"
	}
	for command, want := range checks {
		if got := debugfs(t, img.Disk, strings.TrimSpace(command)); !strings.Contains(got, want) {
			t.Errorf("debugfs %s lacks %q:\n%s", command, want, got)
		}
	}
	if got := debugfs(t, img.Disk, "ls -p /"); strings.Contains(got, "socket") {
		t.Errorf("the socket is in the image: %s", got)
	}

	disk := tempDisk(t)
	must(WriteDir(context.Background(), disk, d, Limits{}, nil))
	fsck(t, disk.Name())
	if got := debugfs(t, disk.Name(), "ls -p /"); strings.Contains(got, "null") || strings.Contains(got, "socket") || !strings.Contains(got, "link") {
		t.Errorf("the volume holds %s", got)
	}
}

func TestWriteDirEmpty(t *testing.T) {
	disk := tempDisk(t)
	if err := WriteDir(context.Background(), disk, t.TempDir(), Limits{}, nil); err != nil {
		t.Fatal(err)
	}
	fsck(t, disk.Name())
	if st, _ := disk.Stat(); st.Size() > 256<<10 {
		t.Errorf("an empty directory takes %d bytes", st.Size())
	}
	if _, err := newStore(t).Import(context.Background(), "x", t.TempDir(), nil); !errors.Is(err, ErrRefused) {
		t.Errorf("an empty image: %v", err)
	}
	if err := WriteDir(context.Background(), tempDisk(t), filepath.Join(t.TempDir(), "none"), Limits{}, nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no directory: %v", err)
	}
}

// A memory file may be the disk of a volume.
func TestWriteDirMemory(t *testing.T) {
	fd, err := unix.MemfdCreate("volume", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "volume")
	defer f.Close()
	d := t.TempDir()
	os.WriteFile(filepath.Join(d, "a"), []byte("x"), 0o644)
	if err := WriteDir(context.Background(), f, d, Limits{}, nil); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/self/fd/%d", fd))
	if err != nil {
		t.Fatal(err)
	}
	fsck(t, write(t, b))
}

// A directory that turns into a link while it is read is not followed.
func TestDirectoryRace(t *testing.T) {
	outside := t.TempDir()
	os.WriteFile(filepath.Join(outside, "f"), []byte("the host's"), 0o600)
	d := t.TempDir()
	os.Mkdir(filepath.Join(d, "sub"), 0o700)
	os.WriteFile(filepath.Join(d, "sub", "f"), []byte("the dir's"), 0o600)
	f, err := os.Open(d)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstatat(int(f.Fd()), "sub", &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		t.Fatal(err)
	}
	os.Rename(filepath.Join(d, "sub"), filepath.Join(d, "was"))
	os.Symlink(outside, filepath.Join(d, "sub"))
	if g, err := openBelow(f, "sub", &st); err == nil {
		g.Close()
		t.Error("a link was followed")
	}
	os.Remove(filepath.Join(d, "sub"))
	os.Mkdir(filepath.Join(d, "sub"), 0o700)
	if g, err := openBelow(f, "sub", &st); !errors.Is(err, errChanged) {
		g.Close()
		t.Errorf("another directory was taken: %v", err)
	}
}

// Access lists reach the guest in ext4's form, and the attributes of one
// block in the order in which the kernel looks them up.
func TestMountedAttributes(t *testing.T) {
	acl := "\x02\x00\x00\x00" + "\x01\x00\x07\x00\xff\xff\xff\xff" + "\x02\x00\x05\x00\x39\x30\x00\x00" +
		"\x04\x00\x05\x00\xff\xff\xff\xff" + "\x10\x00\x05\x00\xff\xff\xff\xff" + "\x20\x00\x00\x00\xff\xff\xff\xff"
	x := map[string]string{"system.posix_acl_access": acl, "user.empty": ""}
	for i := range 9 {
		x[fmt.Sprintf("user.%0*d", 9-i, i)] = strings.Repeat("u", 40+i)
		x[fmt.Sprintf("trusted.%0*d", i+1, i)] = strings.Repeat("t", 40+i)
		x[fmt.Sprintf("security.%0*d", (i*5)%9+1, i)] = strings.Repeat("s", 40+i)
	}
	img, err := newStore(t).Import(context.Background(), "x", write(t, tarOf(t, entry{name: "f", body: "x", mode: 0o750, xattrs: x})), nil)
	if err != nil {
		t.Fatal(err)
	}
	fsck(t, img.Disk)
	f := filepath.Join(mount(t, img.Disk), "f")
	for name, want := range x {
		b := make([]byte, 4096)
		n, err := unix.Getxattr(f, name, b)
		if err != nil || string(b[:n]) != want {
			t.Errorf("%s: %q, %v, want %q", name, b[:max(n, 0)], err, want)
		}
	}
}
