package image

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// A source is an image before it is built.
type source struct {
	digest  string // "" until the content is known
	layers  []layer
	config  Config
	created time.Time
	cleanup func()
}

func (s *source) close() {
	if s.cleanup != nil {
		s.cleanup()
	}
}

func sha256String(b []byte) string {
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// maxLayers is what docker's overlay driver can stack.
const maxLayers = 127

// archiveSource finds the image in an archive: by its OCI index if it has
// one, else by docker's manifest.json.
func archiveSource(b blobs, limits Limits) (*source, error) {
	if r, _, err := b.open("index.json"); err == nil {
		r.Close()
		return layoutSource(b, limits)
	}
	return dockerSource(b, limits)
}

// dockerSource reads what docker save writes: manifest.json names the
// configuration, whose digest is the image id, and the layers' tars, whose
// digests the configuration has.
func dockerSource(b blobs, limits Limits) (*source, error) {
	doc, err := readDocument(b, "manifest.json", "")
	if err != nil {
		return nil, err
	}
	var manifest []struct {
		Config string
		Layers []string
	}
	if err := json.Unmarshal(doc, &manifest); err != nil {
		return nil, refuse("manifest.json is malformed")
	}
	if len(manifest) != 1 {
		return nil, refuse("the archive holds %d images: save one at a time", len(manifest))
	}
	cfg, err := readDocument(b, manifest[0].Config, "")
	if err != nil {
		return nil, err
	}
	s, diffIDs, err := configSource(cfg, len(manifest[0].Layers))
	if err != nil {
		return nil, err
	}
	s.digest = sha256String(cfg)
	for i, name := range manifest[0].Layers {
		l, err := blobLayer(b, name, limits)
		if err != nil {
			return nil, err
		}
		l.diffID = diffIDs[i]
		s.layers = append(s.layers, l)
	}
	return s, nil
}

// layoutSource follows an OCI index to its linux/amd64 image.
func layoutSource(b blobs, limits Limits) (*source, error) {
	doc, err := readDocument(b, "index.json", "")
	if err != nil {
		return nil, err
	}
	// An index may list indexes; deeper than this is a loop or an attack.
	for range 4 {
		desc, err := choosePlatform(doc)
		if err != nil {
			return nil, err
		}
		name, err := blobName(desc.Digest.String())
		if err != nil {
			return nil, err
		}
		if doc, err = readDocument(b, name, desc.Digest.String()); err != nil {
			return nil, err
		}
		if !desc.MediaType.IsIndex() {
			return manifestSource(b, doc, limits)
		}
	}
	return nil, refuse("the index is nested too deep")
}

// choosePlatform returns the one image of an index that runs here.
func choosePlatform(doc []byte) (v1.Descriptor, error) {
	index, err := v1.ParseIndexManifest(bytes.NewReader(doc))
	if err != nil {
		return v1.Descriptor{}, refuse("the index is malformed")
	}
	var found []v1.Descriptor
	for _, d := range index.Manifests {
		if !d.MediaType.IsImage() && !d.MediaType.IsIndex() {
			continue
		}
		if p := d.Platform; p == nil || p.OS == "linux" && p.Architecture == "amd64" || p.OS == "" && p.Architecture == "" {
			found = append(found, d)
		}
	}
	if len(found) == 0 {
		return v1.Descriptor{}, refuse("no image for linux/amd64")
	}
	for _, d := range found[1:] {
		if d.Platform == nil && d.Digest != found[0].Digest {
			return v1.Descriptor{}, refuse("the layout holds several images: keep one")
		}
	}
	return found[0], nil
}

// manifestSource reads an OCI or docker manifest whose parts are in b.
func manifestSource(b blobs, doc []byte, limits Limits) (*source, error) {
	m, err := parseManifest(doc)
	if err != nil {
		return nil, err
	}
	name, err := blobName(m.Config.Digest.String())
	if err != nil {
		return nil, err
	}
	cfg, err := readDocument(b, name, m.Config.Digest.String())
	if err != nil {
		return nil, err
	}
	s, diffIDs, err := configSource(cfg, len(m.Layers))
	if err != nil {
		return nil, err
	}
	s.digest = sha256String(doc)
	for i, d := range m.Layers {
		name, err := blobName(d.Digest.String())
		if err != nil {
			return nil, err
		}
		l, err := blobLayer(b, name, limits)
		if err != nil {
			return nil, err
		}
		l.digest, l.diffID = d.Digest.String(), diffIDs[i]
		s.layers = append(s.layers, l)
	}
	return s, nil
}

// parseManifest reads a manifest all of whose parts lie beside it: what a
// layer's URLs name is not fetched, they are the image's choice.
func parseManifest(doc []byte) (*v1.Manifest, error) {
	m, err := v1.ParseManifest(bytes.NewReader(doc))
	if err != nil {
		return nil, refuse("the manifest is malformed")
	}
	for _, d := range m.Layers {
		if !d.MediaType.IsLayer() && d.MediaType != "application/vnd.oci.image.layer.v1.tar+zstd" {
			return nil, refuse("a layer is of the unknown type %q", string(d.MediaType))
		}
		if !d.MediaType.IsDistributable() || len(d.URLs) > 0 {
			return nil, refuse("a layer is not in the archive or registry but must be had elsewhere")
		}
	}
	return m, nil
}

// configSource reads an image's configuration and the digests of its layers.
func configSource(doc []byte, layers int) (*source, []string, error) {
	cfg, err := v1.ParseConfigFile(bytes.NewReader(doc))
	if err != nil {
		return nil, nil, refuse("the configuration is malformed")
	}
	if cfg.OS != "" && cfg.OS != "linux" || cfg.Architecture != "" && cfg.Architecture != "amd64" {
		return nil, nil, refuse("the image is for %q/%q, not linux/amd64", cfg.OS, cfg.Architecture)
	}
	if layers > maxLayers {
		return nil, nil, refuse("more than %d layers", maxLayers)
	}
	if len(cfg.RootFS.DiffIDs) != layers {
		return nil, nil, refuse("manifest and configuration disagree about the layers")
	}
	s := &source{created: cfg.Created.Time, config: Config{
		Env: cfg.Config.Env, Entrypoint: cfg.Config.Entrypoint, Cmd: cfg.Config.Cmd,
		WorkingDir: cfg.Config.WorkingDir, User: cfg.Config.User,
	}}
	diffIDs := make([]string, layers)
	for i, d := range cfg.RootFS.DiffIDs {
		if diffIDs[i] = d.String(); !validDigest(diffIDs[i]) {
			return nil, nil, refuse("digest %q is not sha256", diffIDs[i])
		}
	}
	return s, diffIDs, nil
}

// blobLayer is the layer that b calls name.
func blobLayer(b blobs, name string, limits Limits) (*tarLayer, error) {
	r, size, err := b.open(name)
	if err != nil {
		return nil, fmt.Errorf("%w: the archive lacks layer %q", ErrRefused, name)
	}
	r.Close()
	return &tarLayer{
		open:  func() (io.ReadCloser, error) { r, _, err := b.open(name); return r, err },
		bytes: size, marks: true, oci: true, limits: limits,
	}, nil
}
