package image

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// build makes the disk of src unless the store has it, and records name.
func (s *Store) build(ctx context.Context, name string, src *source, progress Progress) (Image, error) {
	digest := src.digest
	if digest != "" { // else two builds of the same content end with the same disk
		unlock, err := s.lock(ctx, digest[len("sha256:"):])
		if err != nil {
			return Image{}, err
		}
		defer unlock()
	}
	rec := record{Name: name, Digest: digest, Builder: builder, Created: src.created, Config: src.config}
	if have, st, ok := s.have(ctx, digest); ok {
		rec.Size, rec.SHA256, rec.Stamp = have.Size, have.SHA256, st
		return s.commit(ctx, rec, "")
	}
	f, err := s.temp("disk-*")
	if err != nil {
		return Image{}, err
	}
	defer func() { os.Remove(f.Name()); f.Close() }()
	p, err := merge(ctx, src.layers, s.Limits.withDefaults(), progress)
	if err != nil {
		return Image{}, err
	}
	if len(p.nodes) == 1 {
		return Image{}, refuse("the image holds no files")
	}
	content, err := writeDisk(ctx, f, p, src.layers, progress)
	if err != nil {
		return Image{}, err
	}
	if rec.Digest == "" {
		rec.Digest = content
	}
	if err := s.seal(ctx, f, &rec, progress); err != nil {
		return Image{}, err
	}
	return s.commit(ctx, rec, f.Name())
}

// seal makes a built disk final: measured, read-only, on the medium.
func (s *Store) seal(ctx context.Context, f *os.File, rec *record, progress Progress) error {
	st, err := f.Stat()
	if err != nil {
		return fmt.Errorf("write disk: %w", err)
	}
	rec.Size = st.Size()
	if rec.SHA256, err = sumFile(ctx, f, rec.Size, progress); err != nil {
		return err
	}
	if err := f.Chmod(0o400); err != nil {
		return fmt.Errorf("write disk: %w", err)
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("write disk: %w", err)
	}
	return nil
}

// have returns a whole image with this digest, whatever its name, and the
// stamp of its disk.
func (s *Store) have(ctx context.Context, digest string) (Image, stamp, bool) {
	if digest == "" {
		return Image{}, stamp{}, false
	}
	images, err := s.List()
	if err != nil {
		return Image{}, stamp{}, false
	}
	for _, i := range images {
		if i.Digest != digest {
			continue
		}
		if st, err := s.verify(ctx, i, nil); err == nil {
			return i, st, true
		}
	}
	return Image{}, stamp{}, false
}

// commit puts the disk, if it is new, and the record where readers look: the
// disk first, each by a rename.
func (s *Store) commit(ctx context.Context, rec record, disk string) (Image, error) {
	unlock, err := s.lock(ctx, "store")
	if err != nil {
		return Image{}, err
	}
	defer unlock()
	if rec.Created.IsZero() {
		rec.Created = time.Now().UTC().Truncate(time.Second)
	}
	img := s.image(rec)
	if disk != "" {
		if err := os.Rename(disk, img.Disk); err != nil {
			return Image{}, fmt.Errorf("keep disk: %w", err)
		}
		if err := syncDir(filepath.Dir(img.Disk)); err != nil {
			return Image{}, err
		}
	}
	f, err := img.Open() // a disk that was there may have been removed since it was found
	if err != nil {
		return Image{}, err
	}
	defer f.Close()
	if disk != "" { // the rename has changed it
		if rec.Stamp, err = stampOf(f); err != nil {
			return Image{}, err
		}
	}
	if err := s.writeRecord(rec); err != nil {
		return Image{}, err
	}
	// The name may have been the last of another disk.
	return img, s.dropDisks()
}

func (s *Store) writeRecord(rec record) error {
	b, err := json.MarshalIndent(rec, "", "\t")
	if err != nil {
		return fmt.Errorf("write image record: %w", err)
	}
	f, err := s.temp("name-*")
	if err != nil {
		return err
	}
	defer func() { os.Remove(f.Name()); f.Close() }()
	if _, err := f.Write(append(b, '\n')); err != nil {
		return fmt.Errorf("write image record: %w", err)
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("write image record: %w", err)
	}
	if err := os.Rename(f.Name(), s.nameFile(rec.Name)); err != nil {
		return fmt.Errorf("write image record: %w", err)
	}
	return syncDir(filepath.Join(s.Dir, "names"))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("sync directory: %w", err)
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("sync directory: %w", err)
	}
	return nil
}
