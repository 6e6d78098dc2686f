package image

import (
	"archive/tar"
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// need returns the path of an e2fsprogs tool. Where tests must not be lost a
// missing one fails.
func need(t testing.TB, tool string) string {
	t.Helper()
	for _, dir := range []string{"", "/usr/sbin/", "/sbin/"} {
		if p, err := exec.LookPath(dir + tool); err == nil {
			return p
		}
	}
	if os.Getenv("CI") != "" {
		t.Fatalf("%s is not installed (package e2fsprogs)", tool)
	}
	t.Skipf("skipped: %s is not installed (package e2fsprogs), so the disk cannot be read back", tool)
	return ""
}

// fsck fails the test unless e2fsck finds the disk clean.
func fsck(t testing.TB, disk string) {
	t.Helper()
	out, err := exec.Command(need(t, "e2fsck"), "-fn", disk).CombinedOutput()
	if err != nil {
		t.Fatalf("e2fsck -fn: %v\n%s", err, out)
	}
}

// debugfs returns what the command prints about the disk.
func debugfs(t testing.TB, disk, command string) string {
	t.Helper()
	out, err := exec.Command(need(t, "debugfs"), "-R", command, disk).Output()
	if err != nil {
		t.Fatalf("debugfs %s: %v", command, err)
	}
	return string(out)
}

// entry is short for a tar entry.
type entry struct {
	typ    byte // 0 = file
	name   string
	body   string
	target string
	mode   int64 // 0 = 0644 for files, 0755 for directories
	uid    int
	gid    int
	major  int64
	minor  int64
	size   int64 // claimed; 0 = len(body)
	xattrs map[string]string
	mtime  int64
}

func file(name, body string) entry   { return entry{name: name, body: body} }
func dir(name string) entry          { return entry{typ: tar.TypeDir, name: name} }
func symlink(name, to string) entry  { return entry{typ: tar.TypeSymlink, name: name, target: to} }
func hardlink(name, to string) entry { return entry{typ: tar.TypeLink, name: name, target: to} }

func (e entry) header() *tar.Header {
	h := &tar.Header{
		Typeflag: e.typ, Name: e.name, Linkname: e.target, Mode: e.mode, Uid: e.uid, Gid: e.gid,
		Devmajor: e.major, Devminor: e.minor, Size: e.size, PAXRecords: map[string]string{},
	}
	if e.typ == 0 {
		h.Typeflag = tar.TypeReg
	}
	if h.Mode == 0 {
		h.Mode = 0o644
		if e.typ == tar.TypeDir {
			h.Mode = 0o755
		}
	}
	if e.size == 0 {
		h.Size = int64(len(e.body))
	}
	h.ModTime = unixTime(e.mtime)
	for k, v := range e.xattrs {
		h.PAXRecords[paxXattr+k] = v
	}
	return h
}

// tarOf returns a tar of entries.
func tarOf(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	tw := tar.NewWriter(&b)
	for _, e := range entries {
		if err := tw.WriteHeader(e.header()); err != nil {
			t.Fatalf("write %q: %v", e.name, err)
		}
		if _, err := tw.Write([]byte(e.body)); err != nil {
			t.Fatalf("write %q: %v", e.name, err)
		}
	}
	if err := tw.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// write puts data into a new file and returns its path.
func write(t testing.TB, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func unixTime(s int64) time.Time { return time.Unix(s, 0) }

func newStore(t testing.TB) *Store { return &Store{Dir: filepath.Join(t.TempDir(), "images")} }

// leftovers fails the test if the store holds anything but what it should
// after a refusal.
func leftovers(t testing.TB, s *Store) {
	t.Helper()
	for _, d := range []string{"disks", "names", "tmp"} {
		entries, err := os.ReadDir(filepath.Join(s.Dir, d))
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		for _, e := range entries {
			t.Errorf("left behind: %s/%s", d, e.Name())
		}
	}
}

func TestDiskFaithful(t *testing.T) {
	capability := "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
	long := strings.Repeat("d/", 40) + strings.Repeat("n", 255)
	data := tarOf(t,
		entry{typ: tar.TypeDir, name: "./", mode: 0o750, uid: 7, gid: 8, mtime: 1_600_000_000},
		entry{name: "bin/su", body: "set-uid", mode: 0o4755, mtime: 1_700_000_000},
		entry{name: "bin/ping", body: "ping", mode: 0o755, xattrs: map[string]string{"security.capability": capability}},
		entry{typ: tar.TypeDir, name: "srv/shared", mode: 0o2775, uid: 100000, gid: 300000},
		entry{typ: tar.TypeDir, name: "tmp", mode: 0o1777},
		hardlink("bin/su2", "bin/su"),
		symlink("bin/link", "/etc/target"),
		hardlink("bin/link2", "bin/link"),
		hardlink("bin/link3", "bin/link"),
		symlink("long", strings.Repeat("t/", 300)),
		entry{typ: tar.TypeChar, name: "dev/null", major: 1, minor: 3, mode: 0o666},
		entry{typ: tar.TypeBlock, name: "dev/sda", major: 8, minor: 1000, mode: 0o660},
		entry{typ: tar.TypeFifo, name: "run/fifo", mode: 0o600},
		file(long, "deep"),
		file("latin\xe9 name\n", "odd"),
		file("empty", ""),
		entry{name: "attrs", body: "x", xattrs: map[string]string{
			"user.b": strings.Repeat("1", 200), "user.aa": strings.Repeat("2", 200), "user.a": strings.Repeat("3", 100),
			"trusted.zzz": strings.Repeat("4", 100), "security.q": strings.Repeat("5", 100), "user.empty": "",
			"trusted.overlay.redirect": "/etc/shadow", "com.apple.quarantine": "dropped",
		}},
		entry{typ: tar.TypeDir, name: "lost+found", mode: 0o700, uid: 3},
	)
	s := newStore(t)
	img, err := s.Import(context.Background(), "faithful", write(t, data), nil)
	if err != nil {
		t.Fatal(err)
	}
	fsck(t, img.Disk)
	for name, c := range map[string]struct {
		command string
		want    []string
	}{
		"root":       {"stat /", []string{"Mode:  0750", "User:     7", "Group:     8", "mtime: 0x5f5e1000"}},
		"setuid":     {"stat /bin/su", []string{"Mode:  04755", "Links: 2", "Size: 7", "mtime: 0x6553f100"}},
		"hard link":  {"cat /bin/su2", []string{"set-uid"}},
		"capability": {"ea_list /bin/ping", []string{"security.capability (20)"}},
		"setgid":     {"stat /srv/shared", []string{"Mode:  02775", "User: 100000", "Group: 300000"}},
		"sticky":     {"stat /tmp", []string{"Mode:  01777"}},
		"implied":    {"stat /bin", []string{"Mode:  0755", "User:     0"}},
		"symlink":    {"stat /bin/link", []string{"Links: 3", `Fast link dest: "/etc/target"`}},
		"long link":  {"cat /long", []string{strings.Repeat("t/", 300)}},
		"char":       {"stat /dev/null", []string{"Type: character special", "Device major/minor number: 01:03"}},
		"block":      {"stat /dev/sda", []string{"Type: block special", "Device major/minor number: 08:1000"}},
		"fifo":       {"stat /run/fifo", []string{"Type: FIFO"}},
		"long name":  {"cat /" + long, []string{"deep"}},
		"odd name":   {"ls -l /", []string{"latin"}},
		"lost+found": {"stat /lost+found", []string{"Mode:  0700", "User:     3"}},
		"attributes": {"ea_list /attrs", []string{
			"user.a (100)", "user.aa (200)", "user.b (200)", "trusted.zzz (100)", "security.q (100)", "user.empty (0)",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			got := debugfs(t, img.Disk, c.command)
			for _, w := range c.want {
				if !strings.Contains(got, w) {
					t.Errorf("debugfs %s lacks %q:\n%s", c.command, w, got)
				}
			}
			if strings.Contains(got, "overlay") || strings.Contains(got, "apple") {
				t.Errorf("foreign attributes kept:\n%s", got)
			}
		})
	}
	if st, err := os.Stat(img.Disk); err != nil || st.Mode() != 0o400 || st.Size() > 1<<20 {
		t.Errorf("disk is %v %v %v, want 0400 and tight", st.Mode(), st.Size(), err)
	}
}

// tempDisk returns an empty file that goes with the test.
func tempDisk(t testing.TB) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "disk"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}
