package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"sync"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"golang.org/x/sync/errgroup"
)

// Pull fetches ref from its registry, linux/amd64, and calls it by ref as
// written. Credentials are docker's; only a registry on this machine is
// spoken to without TLS. ErrNotFound and ErrUnauthorized are the registry's
// answers.
func (s *Store) Pull(ctx context.Context, ref string, progress Progress) (Image, error) {
	if err := validName(ref); err != nil {
		return Image{}, err
	}
	if err := s.prepare(); err != nil {
		return Image{}, err
	}
	img, err := s.pull(ctx, ref, progress)
	if err != nil {
		return Image{}, fmt.Errorf("pull image %q: %w", ref, err)
	}
	return img, nil
}

func (s *Store) pull(ctx context.Context, ref string, progress Progress) (Image, error) {
	parsed, err := name.ParseReference(ref)
	if err != nil {
		return Image{}, errors.New("not an image reference")
	}
	puller, err := remote.NewPuller(
		remote.WithContext(ctx), remote.WithAuthFromKeychain(keychain{s.Environ}),
		remote.WithPlatform(v1.Platform{OS: "linux", Architecture: "amd64"}),
		remote.WithTransport(secureTransport{remote.DefaultTransport}), remote.WithUserAgent("cutout"))
	if err != nil {
		return Image{}, fmt.Errorf("prepare to pull: %w", err)
	}
	p := &pulling{store: s, puller: puller, repo: parsed.Context(), progress: progress, limits: s.Limits.withDefaults()}
	defer p.close()
	doc, err := p.manifest(ctx, parsed)
	if err != nil {
		return Image{}, err
	}
	m, err := parseManifest(doc)
	if err != nil {
		return Image{}, err
	}
	if img, _, ok := s.have(ctx, sha256String(doc)); ok {
		// The disk is here under another name, or was pulled before.
		return s.build(ctx, ref, &source{digest: img.Digest, config: img.Config, created: img.Created}, progress)
	}
	if err := p.fetchAll(ctx, m); err != nil {
		return Image{}, err
	}
	src, err := manifestSource(p, doc, p.limits)
	if err != nil {
		return Image{}, err
	}
	return s.build(ctx, ref, src, progress)
}

// pulling is a pull on its way. As blobs it is what was fetched.
type pulling struct {
	store  *Store
	puller *remote.Puller
	repo   name.Repository
	limits Limits

	mu                sync.Mutex
	files             map[string]*os.File // by blobName, without names on disk
	done, told, total int64
	progress          Progress
}

func (p *pulling) close() {
	for _, f := range p.files {
		f.Close()
	}
}

// manifest returns the manifest of ref's image for this platform.
func (p *pulling) manifest(ctx context.Context, ref name.Reference) ([]byte, error) {
	p.progress.report(StageDownload, 0, 0)
	desc, err := p.puller.Get(ctx, ref)
	if err != nil {
		return nil, registryError(err)
	}
	if d, ok := ref.(name.Digest); ok && sha256String(desc.Manifest) != d.DigestStr() {
		return nil, refuse("the registry's manifest is not what the digest says")
	}
	for range 4 {
		if !desc.MediaType.IsIndex() {
			return desc.Manifest, nil
		}
		child, err := choosePlatform(desc.Manifest)
		if err != nil {
			return nil, err
		}
		if desc, err = p.puller.Get(ctx, p.repo.Digest(child.Digest.String())); err != nil {
			return nil, registryError(err)
		}
		if sha256String(desc.Manifest) != child.Digest.String() {
			return nil, refuse("the registry's manifest is not what its digest says")
		}
	}
	return nil, refuse("the index is nested too deep")
}

// fetchAll downloads what m names, three parts at a time as docker does.
func (p *pulling) fetchAll(ctx context.Context, m *v1.Manifest) error {
	parts := append([]v1.Descriptor{m.Config}, m.Layers...)
	p.files = map[string]*os.File{}
	want := map[string]int64{}
	for _, d := range parts {
		if d.Size < 0 || d.Size > p.limits.TotalBytes {
			return refuse("a layer claims an impossible size")
		}
		want[d.Digest.String()] = d.Size
	}
	for _, size := range want {
		p.total += size
	}
	if m.Config.Size > maxDocument || p.total > p.limits.TotalBytes {
		return refuse("the download is larger than the limit")
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(3)
	for digest, size := range want {
		g.Go(func() error { return p.fetch(ctx, digest, size) })
	}
	return g.Wait()
}

// fetch downloads one part into a file without a name.
func (p *pulling) fetch(ctx context.Context, digest string, size int64) error {
	file, err := blobName(digest)
	if err != nil {
		return err
	}
	f, err := p.store.temp("blob-*")
	if err != nil {
		return err
	}
	os.Remove(f.Name())
	p.mu.Lock()
	p.files[file] = f
	p.mu.Unlock()
	if err := checkSpace(f, size); err != nil {
		return err
	}
	l, err := p.puller.Layer(ctx, p.repo.Digest(digest))
	if err != nil {
		return registryError(err)
	}
	r, err := l.Compressed() // fails at its end if the digest is wrong
	if err != nil {
		return registryError(err)
	}
	defer r.Close()
	n, err := io.Copy(f, &meter{ctx: ctx, r: io.LimitReader(r, size+1), read: p.count})
	if err != nil {
		return fmt.Errorf("download layer: %w", registryError(err))
	}
	if n != size {
		return refuse("a layer is larger or smaller than the manifest says")
	}
	return nil
}

func (p *pulling) count(n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.done += n; p.done-p.told >= reportEvery || p.done == p.total {
		p.told = p.done
		p.progress.report(StageDownload, p.done, p.total)
	}
}

func (p *pulling) open(name string) (io.ReadCloser, int64, error) {
	f, ok := p.files[name]
	if !ok {
		return nil, 0, os.ErrNotExist
	}
	st, err := f.Stat()
	if err != nil {
		return nil, 0, err
	}
	return io.NopCloser(io.NewSectionReader(f, 0, st.Size())), st.Size(), nil
}

// registryError names the answers that a user can act on. The registry's own
// words are left out: they are a stranger's text.
func registryError(err error) error {
	var te *transport.Error
	if errors.As(err, &te) {
		switch te.StatusCode {
		case http.StatusNotFound:
			return fmt.Errorf("%w: the registry does not have it", ErrNotFound)
		case http.StatusUnauthorized, http.StatusForbidden:
			return ErrUnauthorized
		}
		return fmt.Errorf("the registry answered with status %d", te.StatusCode)
	}
	if errors.Is(err, errPlainRegistry) {
		return errPlainRegistry
	}
	return err
}

var errPlainRegistry = errors.New("the registry does not speak TLS and is not on this machine")

// secureTransport keeps credentials and images off plain connections, which
// the registry client would otherwise try for private addresses.
type secureTransport struct{ http.RoundTripper }

func (t secureTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Scheme != "https" && !loopback(r.URL.Hostname()) {
		return nil, errPlainRegistry
	}
	return t.RoundTripper.RoundTrip(r)
}

func loopback(host string) bool {
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	a, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err == nil && a.Unmap().IsLoopback()
}
