package image

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"regexp"
	"strings"
)

// blobs is where the parts of a docker or OCI archive lie.
type blobs interface {
	// open returns the file called name and its size; os.ErrNotExist if
	// there is none.
	open(name string) (io.ReadCloser, int64, error)
}

// dirBlobs is an OCI layout as a directory; links out of it do not open.
type dirBlobs struct{ root *os.Root }

func (d dirBlobs) open(name string) (io.ReadCloser, int64, error) {
	f, err := d.root.Open(name)
	if err != nil {
		return nil, 0, err
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = refuse("%q in the archive is not a file", name)
	}
	if err != nil {
		f.Close()
		return nil, 0, err
	}
	return f, st.Size(), nil
}

// tarBlobs is an archive as an uncompressed tar, read in place.
type tarBlobs struct {
	f     *os.File
	files map[string]extent
	links map[string]string // docker save wrote equal layers as links
}

type extent struct{ off, size int64 }

func (t *tarBlobs) open(name string) (io.ReadCloser, int64, error) {
	name = path.Clean(name)
	if to, ok := t.links[name]; ok {
		name = to
	}
	e, ok := t.files[name]
	if !ok {
		return nil, 0, fmt.Errorf("open %q: %w", name, os.ErrNotExist)
	}
	return io.NopCloser(io.NewSectionReader(t.f, e.off, e.size)), e.size, nil
}

// archiveEntry matches the names in the output of docker save, old and new,
// and in OCI layouts; a root file system has others.
var archiveEntry = regexp.MustCompile(`^(|oci-layout|index\.json|manifest\.json|repositories|` +
	`blobs(/[a-z0-9]+(/[0-9a-f]+(\.tar\.gz)?)?)?|(sha256:)?[0-9a-f]{64}(\.json|\.tar|\.tar\.gz|/(|layer\.tar|VERSION|json))?)$`)

func cleanEntry(name string) string {
	if name = path.Clean(name); name == "." {
		return ""
	}
	return name
}

// maxArchiveEntries bounds an archive's index: layers are at most 127 for
// docker, and layouts may hold many images.
const maxArchiveEntries = 100_000

// indexTar reads f's headers and returns its blobs, or nil if the tar is not
// an archive of images but a root file system.
func indexTar(ctx context.Context, f *os.File) (*tarBlobs, error) {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	t := &tarBlobs{f: f, files: map[string]extent{}, links: map[string]string{}}
	tr := tar.NewReader(f) // skips by seeking
	for n := 0; ; n++ {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, tarError(err)
		}
		name := cleanEntry(h.Name)
		if !archiveEntry.MatchString(name) {
			return nil, nil
		}
		if n > maxArchiveEntries {
			return nil, refuse("archive has more than %d entries", maxArchiveEntries)
		}
		switch h.Typeflag {
		case tar.TypeReg:
			off, err := f.Seek(0, io.SeekCurrent)
			if err != nil {
				return nil, err
			}
			t.files[name] = extent{off, h.Size}
		case tar.TypeSymlink, tar.TypeLink:
			to := path.Clean(h.Linkname)
			if h.Typeflag == tar.TypeSymlink {
				to = path.Join(path.Dir(name), h.Linkname)
			}
			t.links[name] = to
		}
	}
	if !t.has("manifest.json") && !t.has("index.json") {
		return nil, nil
	}
	return t, nil
}

func (t *tarBlobs) has(name string) bool { _, ok := t.files[name]; return ok }

// maxDocument bounds manifests, indexes and configurations: registries take
// manifests of 4 MiB at most.
const maxDocument = 4 << 20

// readDocument reads a JSON file whole, and checks its digest if there is one.
func readDocument(b blobs, name, digest string) ([]byte, error) {
	r, size, err := b.open(name)
	if errors.Is(err, os.ErrNotExist) {
		return nil, refuse("the archive lacks %q", name)
	}
	if err != nil {
		return nil, fmt.Errorf("read archive: %w", err)
	}
	defer r.Close()
	if size > maxDocument {
		return nil, refuse("%q in the archive is larger than %d bytes", name, maxDocument)
	}
	doc, err := io.ReadAll(io.LimitReader(r, maxDocument))
	if err != nil {
		return nil, fmt.Errorf("read archive: %w", err)
	}
	if digest != "" && sha256String(doc) != digest {
		return nil, refuse("%q in the archive is not what its digest says", name)
	}
	return doc, nil
}

// blobName is where an OCI layout has the blob called digest.
func blobName(digest string) (string, error) {
	if !validDigest(digest) {
		return "", refuse("digest %q is not sha256", digest)
	}
	return "blobs/sha256/" + strings.TrimPrefix(digest, "sha256:"), nil
}
