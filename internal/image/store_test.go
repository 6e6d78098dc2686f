package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func importOne(t testing.TB, s *Store, name, body string) Image {
	t.Helper()
	img, err := s.Import(context.Background(), name, write(t, tarOf(t, file("a", body))), nil)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func TestStore(t *testing.T) {
	ctx := context.Background()
	s := newStore(t)
	if _, err := s.Lookup(ctx, "a", nil); !errors.Is(err, ErrNotFound) {
		t.Errorf("Lookup in nothing: %v", err)
	}
	if l, err := s.List(); err != nil || len(l) != 0 {
		t.Errorf("List of nothing: %v, %v", l, err)
	}
	if err := s.Remove("a"); !errors.Is(err, ErrNotFound) {
		t.Errorf("Remove from nothing: %v", err)
	}
	a := importOne(t, s, "a", "1")
	b := importOne(t, s, "registry.test:5000/b/c:tag", "1")
	if a.Disk != b.Disk || a.SHA256 != b.SHA256 {
		t.Errorf("equal content has two disks")
	}
	if err := s.Verify(ctx, a, nil); err != nil {
		t.Errorf("Verify: %v", err)
	}
	c := importOne(t, s, "a", "2")
	if c.Disk == a.Disk {
		t.Errorf("another content has the same disk")
	}
	f, err := b.Open()
	if err != nil {
		t.Fatalf("disk that another name has: %v", err)
	}
	defer f.Close()
	if err := s.Remove("registry.test:5000/b/c:tag"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(b.Disk); !os.IsNotExist(err) {
		t.Errorf("the removed image's disk stays: %v", err)
	}
	if _, err := f.ReadAt(make([]byte, 1), b.Size-1); err != nil {
		t.Errorf("a sandbox lost its disk: %v", err)
	}
	if l, err := s.List(); err != nil || len(l) != 1 || l[0].Name != "a" || l[0].Disk != c.Disk {
		t.Errorf("List = %v, %v", l, err)
	}
	for _, name := range []string{"", "a b", "a\nb", "a\x00b", strings.Repeat("a", 513)} {
		if _, err := s.Import(ctx, name, "/nonexistent", nil); err == nil || errors.Is(err, os.ErrNotExist) {
			t.Errorf("name %q: %v", name, err)
		}
	}
	if _, err := s.Import(ctx, "x", filepath.Join(t.TempDir(), "none"), nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("import of nothing: %v", err)
	}
	if _, err := s.Import(ctx, "x", "/dev/zero", nil); err == nil {
		t.Error("a device was imported")
	}
}

// E12: a disk that was changed is found out.
func TestCorrupt(t *testing.T) {
	ctx := context.Background()
	for name, damage := range map[string]func(t *testing.T, s *Store, img Image){
		"missing": func(t *testing.T, s *Store, img Image) { os.Remove(img.Disk) },
		"shorter": func(t *testing.T, s *Store, img Image) { os.Truncate(img.Disk, img.Size-1) },
		"longer":  func(t *testing.T, s *Store, img Image) { os.Truncate(img.Disk, img.Size+1) },
		"changed": func(t *testing.T, s *Store, img Image) { change(t, img) },
		"changed, its times put back": func(t *testing.T, s *Store, img Image) {
			st, err := os.Stat(img.Disk)
			if err != nil {
				t.Fatal(err)
			}
			change(t, img)
			if err := os.Chtimes(img.Disk, st.ModTime(), st.ModTime()); err != nil {
				t.Fatal(err)
			}
		},
		"a link": func(t *testing.T, s *Store, img Image) {
			os.Rename(img.Disk, img.Disk+".x")
			os.Symlink(img.Disk+".x", img.Disk)
		},
		"a directory": func(t *testing.T, s *Store, img Image) { os.Remove(img.Disk); os.Mkdir(img.Disk, 0o700) },
		"record":      func(t *testing.T, s *Store, img Image) { os.WriteFile(s.nameFile("a"), []byte("{"), 0o600) },
		"record names another file": func(t *testing.T, s *Store, img Image) {
			b, _ := os.ReadFile(s.nameFile("a"))
			os.WriteFile(s.nameFile("a"), []byte(strings.Replace(string(b), "sha256:", "sha256:../../../../etc/passwd", 1)), 0o600)
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStore(t)
			img := importOne(t, s, "a", "1")
			os.Chmod(img.Disk, 0o600)
			damage(t, s, img)
			_, err := s.Lookup(ctx, "a", nil)
			if !errors.Is(err, ErrCorrupt) {
				t.Errorf("Lookup: error %v, want ErrCorrupt", err)
			}
			if name == "a directory" {
				return
			}
			if img = importOne(t, s, "a", "1"); s.Verify(ctx, img, nil) != nil {
				t.Error("importing again does not repair it")
			}
		})
	}
}

// change writes one byte into an image's disk.
func change(t *testing.T, img Image) {
	t.Helper()
	f, err := os.OpenFile(img.Disk, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte{1}, img.Size/2); err != nil {
		t.Fatal(err)
	}
}

// A disk that was copied or touched is read once and then known again; one
// that nobody touched is never read.
func TestStamp(t *testing.T) {
	ctx := context.Background()
	s := newStore(t)
	img := importOne(t, s, "a", "1")
	lookup := func(want bool) {
		t.Helper()
		read := false
		if _, err := s.Lookup(ctx, "a", func(string, int64, int64) { read = true }); err != nil || read != want {
			t.Errorf("Lookup: %v, the disk was read: %v, want %v", err, read, want)
		}
	}
	lookup(false)
	content, err := os.ReadFile(img.Disk)
	if err != nil {
		t.Fatal(err)
	}
	os.Remove(img.Disk)
	if err := os.WriteFile(img.Disk, content, 0o400); err != nil {
		t.Fatal(err)
	}
	lookup(true)
	lookup(false)
	if err := os.Chtimes(img.Disk, time.Time{}, time.Now().Add(-time.Hour)); err != nil {
		t.Fatal(err)
	}
	lookup(true)
	lookup(false)
	importOne(t, s, "b", "1") // the same disk
	if _, err := s.Import(ctx, "c", write(t, oldDockerSave(t)), nil); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Import(ctx, "a", write(t, oldDockerSave(t)), nil); err != nil { // found by its digest
		t.Fatal(err)
	}
	lookup(false)
}

func TestConcurrentImports(t *testing.T) {
	dir := t.TempDir()
	saved := write(t, oldDockerSave(t))
	plain := write(t, tarOf(t, file("a", strings.Repeat("x", 1<<20))))
	var wg sync.WaitGroup
	for i := range 12 {
		wg.Go(func() {
			s := &Store{Dir: dir} // another process would have its own
			path := []string{saved, plain}[i%2]
			img, err := s.Import(context.Background(), fmt.Sprintf("n%d", i%4), path, nil)
			if err != nil {
				t.Error(err)
				return
			}
			if err := s.Verify(context.Background(), img, nil); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	s := &Store{Dir: dir}
	images, err := s.List()
	disks, _ := os.ReadDir(filepath.Join(dir, "disks"))
	tmp, _ := os.ReadDir(filepath.Join(dir, "tmp"))
	if err != nil || len(images) != 4 || len(disks) != 2 || len(tmp) != 0 {
		t.Errorf("%d images, %d disks, %d temporary files, error %v; want 4, 2, 0", len(images), len(disks), len(tmp), err)
	}
	for _, i := range images {
		fsck(t, i.Disk)
	}
}

// An interrupted import leaves nothing, in whatever stage it is.
func TestCancel(t *testing.T) {
	data := write(t, tarOf(t, file("a", strings.Repeat("x", 12<<20)), file("b", strings.Repeat("y", 12<<20))))
	for _, stage := range []string{StageRead, StageWrite, StageSum} {
		t.Run(stage, func(t *testing.T) {
			s := newStore(t)
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			_, err := s.Import(ctx, "x", data, func(now string, _, _ int64) {
				if now == stage {
					cancel()
				}
			})
			if !errors.Is(err, context.Canceled) {
				t.Errorf("error %v, want canceled", err)
			}
			leftovers(t, s)
		})
	}
}

// What a killed builder left is swept; what a living one builds is not.
func TestSweep(t *testing.T) {
	s := newStore(t)
	importOne(t, s, "a", "1")
	old := time.Now().Add(-time.Hour)
	for _, name := range []string{"dead", "alive", "young"} {
		p := filepath.Join(s.Dir, "tmp", name)
		if err := os.WriteFile(p, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if name != "young" {
			os.Chtimes(p, old, old)
		}
	}
	f, err := os.Open(filepath.Join(s.Dir, "tmp", "alive"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	importOne(t, s, "b", "2")
	entries, _ := os.ReadDir(filepath.Join(s.Dir, "tmp"))
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if got := strings.Join(names, " "); got != "alive young" {
		t.Errorf("left in tmp: %q, want alive and young", got)
	}
}

// The importer waits for another one of the same image, but not for ever.
func TestLockWait(t *testing.T) {
	s := newStore(t)
	if err := s.prepare(); err != nil {
		t.Fatal(err)
	}
	unlock, err := s.lock(context.Background(), "x")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 120*time.Millisecond)
	defer cancel()
	if _, err := s.lock(ctx, "x"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("second lock: %v", err)
	}
	unlock()
	unlock, err = s.lock(context.Background(), "x")
	if err != nil {
		t.Fatal(err)
	}
	unlock()
}

func TestNoSpace(t *testing.T) {
	f := tempDisk(t)
	if err := checkSpace(f, 1<<60); !errors.Is(err, ErrNoSpace) {
		t.Errorf("an exabyte fits: %v", err)
	}
	if err := checkSpace(f, 4096); err != nil {
		t.Errorf("a block does not fit: %v", err)
	}
}

// Holes cost nothing, and a file whose size is over 8 GiB comes through tar's
// other encoding of sizes whole.
func TestSparse(t *testing.T) {
	s := newStore(t)
	img, err := s.Import(context.Background(), "x", write(t, gnuSparse("hole", 600<<20)), nil)
	if err != nil {
		t.Fatal(err)
	}
	fsck(t, img.Disk)
	if got := debugfs(t, img.Disk, "stat /hole"); !strings.Contains(got, fmt.Sprintf("Size: %d", 600<<20)) {
		t.Errorf("hole is %s", got)
	}
	var st unix.Stat_t
	if err := unix.Stat(img.Disk, &st); err != nil || st.Blocks*512 > 4<<20 {
		t.Errorf("the disk takes %d bytes for nothing, %v", st.Blocks*512, err)
	}
	h := file("a", "").header()
	h.Size = 9 << 30
	tr := newTree(Limits{}.withDefaults())
	tr.begin(true)
	if err := tr.add(h); err != nil {
		t.Errorf("a file of 9 GiB is refused: %v", err)
	}
	h.Size = 33 << 30
	if err := tr.add(h); !errors.Is(err, ErrRefused) {
		t.Errorf("a file of 33 GiB is accepted: %v", err)
	}
}

// The writer's estimate bounds what it writes, for trees of every shape.
func TestEstimate(t *testing.T) {
	long := func(i int) string { return fmt.Sprintf("%0250d", i) }
	shapes := map[string][]entry{"one": {file("a", "x")}}
	for i := range 3000 {
		shapes["long names"] = append(shapes["long names"], file(long(i), ""))
		shapes["directories"] = append(shapes["directories"], dir(fmt.Sprintf("d%d", i)))
		shapes["small files"] = append(shapes["small files"], file(fmt.Sprintf("f%d", i), "x"))
		shapes["long links"] = append(shapes["long links"], symlink(fmt.Sprintf("l%d", i), strings.Repeat("t", 100)))
		shapes["attributes"] = append(shapes["attributes"], entry{
			name: fmt.Sprintf("f%d", i), body: "x",
			xattrs: map[string]string{"user.a": strings.Repeat("v", 1000), "user.b": "x", "security.c": strings.Repeat("w", 90)},
		})
	}
	for name, entries := range shapes {
		t.Run(name, func(t *testing.T) {
			data := tarOf(t, entries...)
			ls := []layer{bytesLayer(data, Limits{})}
			p, err := merge(context.Background(), ls, Limits{}.withDefaults(), nil)
			if err != nil {
				t.Fatal(err)
			}
			f := tempDisk(t)
			if _, err := writeDisk(context.Background(), f, p, ls, nil); err != nil {
				t.Fatal(err)
			}
			st, _ := f.Stat()
			if st.Size() > p.disk || p.disk > 2*st.Size()+4<<20 {
				t.Errorf("estimated %d, took %d", p.disk, st.Size())
			}
			fsck(t, f.Name())
		})
	}
}

// A directory that changes between the two readings is not mixed.
func TestChangedSource(t *testing.T) {
	for name, change := range map[string]func(d string){
		"content grows": func(d string) { os.WriteFile(filepath.Join(d, "b"), []byte("longer than it was"), 0o600) },
		"file added":    func(d string) { os.WriteFile(filepath.Join(d, "a0"), []byte("same"), 0o600) },
		"file removed":  func(d string) { os.Remove(filepath.Join(d, "b")) },
		"renamed":       func(d string) { os.Rename(filepath.Join(d, "b"), filepath.Join(d, "c")) },
	} {
		t.Run(name, func(t *testing.T) {
			d := t.TempDir()
			for _, f := range []string{"a", "b"} {
				os.WriteFile(filepath.Join(d, f), []byte("same"), 0o600)
			}
			ls := []layer{&dirLayer{root: d}}
			p, err := merge(context.Background(), ls, Limits{}.withDefaults(), nil)
			if err != nil {
				t.Fatal(err)
			}
			change(d)
			if _, err := writeDisk(context.Background(), tempDisk(t), p, ls, nil); !errors.Is(err, errChanged) {
				t.Errorf("error %v, want %v", err, errChanged)
			}
		})
	}
	data := tarOf(t, file("a", "one"))
	l := bytesLayer(data, Limits{})
	p, err := merge(context.Background(), []layer{l}, Limits{}.withDefaults(), nil)
	if err != nil {
		t.Fatal(err)
	}
	other := tarOf(t, file("a", "two"))
	l.open = func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(string(other))), nil }
	if _, err := writeDisk(context.Background(), tempDisk(t), p, []layer{l}, nil); err == nil {
		t.Error("a tar that changed between two readings was built")
	}
}

// mount mounts a disk read-only if this process may, and returns where.
func mount(t *testing.T, disk string) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("skipped: mounting the disk needs root")
	}
	d := t.TempDir()
	if out, err := exec.Command("mount", "-o", "loop,ro", disk, d).CombinedOutput(); err != nil {
		t.Skipf("skipped: this machine does not mount ext4 images: %s", out)
	}
	t.Cleanup(func() { exec.Command("umount", d).Run() })
	return d
}
