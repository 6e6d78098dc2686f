package image

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"time"
)

// A Store is a directory of images. Several processes may use one at a time.
//
//	disks/HEX.ext4   read-only disks, named by image digest
//	names/HEX.json   one record per name, named by the name's sha256
//	tmp/             what is being built; each file locked by its builder
type Store struct {
	// Dir is created when needed, mode 0700.
	Dir string

	// Limits bounds what is accepted.
	Limits Limits

	// Environ is the environment of docker's credential helpers. Nil gives
	// them PATH, HOME and where their session is, and nothing else: the
	// caller's environment may hold secrets.
	Environ []string
}

// builder is part of a record: a disk made by another version of the ext4
// writer is built anew.
const builder = 1

// A record is what names/ holds.
type record struct {
	Name    string    `json:"name"`
	Digest  string    `json:"digest"`
	Builder int       `json:"builder"`
	Size    int64     `json:"size"`
	SHA256  string    `json:"sha256"`
	Created time.Time `json:"created"`
	Config  Config    `json:"config"`
	Stamp   stamp     `json:"stamp"` // of the disk when it was last known to be whole
}

func (s *Store) disk(digest string) string {
	return filepath.Join(s.Dir, "disks", strings.TrimPrefix(digest, "sha256:")+".ext4")
}

func (s *Store) nameFile(name string) string {
	sum := sha256.Sum256([]byte(name))
	return filepath.Join(s.Dir, "names", hex.EncodeToString(sum[:])+".json")
}

func (s *Store) image(r record) Image {
	return Image{
		Name: r.Name, Digest: r.Digest, Disk: s.disk(r.Digest), Size: r.Size,
		SHA256: r.SHA256, Created: r.Created, Config: r.Config,
	}
}

// Lookup returns the image called name if its disk is what was built:
// ErrNotFound or ErrCorrupt otherwise. A disk that nobody has touched is known
// by its stamp; any other, such as a copy, is read once.
func (s *Store) Lookup(ctx context.Context, name string, progress Progress) (Image, error) {
	for {
		r, err := readRecord(s.nameFile(name))
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, errOtherBuilder) {
			return Image{}, fmt.Errorf("%w: %q", ErrNotFound, name)
		}
		if err != nil {
			return Image{}, fmt.Errorf("look up image %q: %w", name, err)
		}
		img := s.image(r)
		if err = s.check(ctx, r, progress); err == nil {
			return img, nil
		}
		// An import may have replaced record and disk in between.
		if now, rerr := readRecord(s.nameFile(name)); !errors.Is(err, ErrCorrupt) || rerr != nil || now.same(r) {
			return Image{}, err
		}
	}
}

// List returns every image by name, those with a damaged disk too. Damaged
// records are left out.
func (s *Store) List() ([]Image, error) {
	paths, err := filepath.Glob(filepath.Join(globEscape(s.Dir), "names", "*.json"))
	if err != nil {
		return nil, fmt.Errorf("list images: %w", err)
	}
	var images []Image
	for _, p := range paths {
		r, err := readRecord(p)
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, ErrCorrupt) || errors.Is(err, errOtherBuilder) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("list images: %w", err)
		}
		images = append(images, s.image(r))
	}
	sort.Slice(images, func(i, j int) bool { return images[i].Name < images[j].Name })
	return images, nil
}

// Remove forgets name, and deletes the disk when no other name has it.
// Sandboxes that have the disk open keep it.
func (s *Store) Remove(name string) error {
	if _, err := os.Lstat(s.nameFile(name)); err != nil {
		return fmt.Errorf("%w: %q", ErrNotFound, name)
	}
	if err := s.prepare(); err != nil {
		return err
	}
	unlock, err := s.lock(context.Background(), "store")
	if err != nil {
		return err
	}
	defer unlock()
	if err := os.Remove(s.nameFile(name)); errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%w: %q", ErrNotFound, name)
	} else if err != nil {
		return fmt.Errorf("remove image: %w", err)
	}
	return s.dropDisks()
}

// dropDisks deletes the disks that no name has. The store must be locked.
func (s *Store) dropDisks() error {
	images, err := s.List()
	if err != nil {
		return err
	}
	used := map[string]bool{}
	for _, i := range images {
		used[i.Disk] = true
	}
	disks, err := os.ReadDir(filepath.Join(s.Dir, "disks"))
	if err != nil {
		return fmt.Errorf("list disks: %w", err)
	}
	for _, d := range disks {
		p := filepath.Join(s.Dir, "disks", d.Name())
		if used[p] {
			continue
		}
		if err := os.Remove(p); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("remove disk: %w", err)
		}
	}
	return nil
}

// Verify reads the whole disk and compares it with what was built.
func (s *Store) Verify(ctx context.Context, img Image, progress Progress) error {
	_, err := s.verify(ctx, img, progress)
	return err
}

// verify is Verify; the stamp is of what it has read.
func (s *Store) verify(ctx context.Context, img Image, progress Progress) (stamp, error) {
	f, err := img.Open()
	if err != nil {
		return stamp{}, err
	}
	defer f.Close()
	st, err := stampOf(f)
	if err != nil {
		return stamp{}, err
	}
	sum, err := sumFile(ctx, f, img.Size, progress)
	if err != nil {
		return stamp{}, err
	}
	if sum != img.SHA256 {
		return stamp{}, fmt.Errorf("verify image %q: %w: the disk has changed since it was built", img.Name, ErrCorrupt)
	}
	return st, nil
}

func sumFile(ctx context.Context, f *os.File, size int64, progress Progress) (string, error) {
	h := sha256.New()
	r := &countReader{ctx: ctx, r: io.NewSectionReader(f, 0, size), stage: StageSum, total: size, progress: progress}
	n, err := io.CopyBuffer(struct{ io.Writer }{h}, r, make([]byte, 1<<20))
	if err != nil {
		return "", fmt.Errorf("read disk: %w", err)
	}
	if n != size {
		return "", fmt.Errorf("read disk: %w: short file", ErrCorrupt)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

var errOtherBuilder = errors.New("image was built by another version")

// readRecord reads a record and checks it, since its digest names a file.
func readRecord(path string) (record, error) {
	var r record
	b, err := os.ReadFile(path)
	if err != nil {
		return r, fmt.Errorf("read record: %w", err)
	}
	if err := json.Unmarshal(b, &r); err != nil || !validDigest(r.Digest) || r.Size <= 0 {
		return r, fmt.Errorf("%w: its record is damaged", ErrCorrupt)
	}
	if r.Builder != builder {
		return r, errOtherBuilder
	}
	return r, nil
}

func validDigest(d string) bool {
	h, ok := strings.CutPrefix(d, "sha256:")
	b, err := hex.DecodeString(h)
	return ok && err == nil && len(b) == sha256.Size && h == strings.ToLower(h)
}

// globEscape quotes what Glob would expand.
func globEscape(s string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(s)
}
