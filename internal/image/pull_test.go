package image

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// serve starts a registry, with a password if there is one, and counts blobs.
func serve(t testing.TB, user, password string) (host string, blobs *atomic.Int64) {
	t.Helper()
	blobs = new(atomic.Int64)
	reg := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if u, p, _ := r.BasicAuth(); user != "" && (u != user || p != password) {
			w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/") {
			blobs.Add(1)
		}
		reg.ServeHTTP(w, r)
	}))
	t.Cleanup(srv.Close)
	return strings.TrimPrefix(srv.URL, "http://"), blobs
}

// login puts docker's configuration where the test's process looks for it.
func login(t *testing.T, config string) {
	t.Helper()
	d := t.TempDir()
	if err := os.WriteFile(filepath.Join(d, "config.json"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("DOCKER_CONFIG", d)
}

func push(t *testing.T, ref string, what remote.Taggable) {
	t.Helper()
	r, err := name.ParseReference(ref)
	if err != nil {
		t.Fatal(err)
	}
	opts := []remote.Option{remote.WithAuthFromKeychain(keychain{})}
	switch w := what.(type) {
	case v1.Image:
		err = remote.Write(r, w, opts...)
	case v1.ImageIndex:
		err = remote.WriteIndex(r, w, opts...)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestPull(t *testing.T) {
	host, blobs := serve(t, "me", "password")
	auth := base64.StdEncoding.EncodeToString([]byte("me:password"))
	login(t, `{"auths":{"`+host+`":{"auth":"`+auth+`"}}}`)
	img := ociImage(t, "amd64", twoLayers...)
	push(t, host+"/app:1", img)
	push(t, host+"/app:multi", mutate.AppendManifests(empty.Index,
		mutate.IndexAddendum{Add: ociImage(t, "arm64", []entry{file("arm", "x")}), Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "arm64"}}},
		mutate.IndexAddendum{Add: img, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "amd64"}}}))
	push(t, host+"/arm:1", mutate.AppendManifests(empty.Index,
		mutate.IndexAddendum{Add: ociImage(t, "arm64", []entry{file("arm", "x")}), Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "arm64"}}}))

	ctx := context.Background()
	s := newStore(t)
	var told int64
	got, err := s.Ensure(ctx, host+"/app:1", func(stage string, done, total int64) { told = max(told, done) })
	if err != nil {
		t.Fatal(err)
	}
	checkTwoLayers(t, got)
	if got.Digest != digestOf(t, img) || got.Name != host+"/app:1" || told == 0 {
		t.Errorf("got %s %s, progress up to %d", got.Name, got.Digest, told)
	}
	n := blobs.Load()
	for _, ref := range []string{host + "/app:1", host + "/app:multi", host + "/app@" + got.Digest} {
		again, err := s.Ensure(ctx, ref, nil)
		if err != nil {
			t.Fatal(err)
		}
		if again.Disk != got.Disk || blobs.Load() != n {
			t.Errorf("%s: disk %s, %d blobs fetched anew", ref, again.Disk, blobs.Load()-n)
		}
		if d := cmp.Diff(wantConfig, again.Config); d != "" {
			t.Errorf("config (-want +got):\n%s", d)
		}
	}
	if images, err := s.List(); err != nil || len(images) != 3 {
		t.Errorf("List = %v, %v, want three names", images, err)
	}
	for ref, want := range map[string]error{
		host + "/app:2": ErrNotFound, host + "/none:1": ErrNotFound, host + "/arm:1": ErrRefused,
		host + "/app@sha256:" + strings.Repeat("0", 64): ErrNotFound,
	} {
		if _, err := s.Ensure(ctx, ref, nil); !errors.Is(err, want) {
			t.Errorf("%s: error %v, want %v", ref, err, want)
		}
	}
	login(t, `{}`)
	if _, err := newStore(t).Pull(ctx, host+"/app:1", nil); !errors.Is(err, ErrUnauthorized) {
		t.Errorf("without credentials: error %v", err)
	}
	for _, ref := range []string{"UPPER/case", "a b", "", "x\x00", "http://" + host + "/app"} {
		if _, err := newStore(t).Pull(ctx, ref, nil); err == nil {
			t.Errorf("%q was pulled", ref)
		}
	}
}

// A credential helper gets the registry and nothing of the caller's secrets.
func TestCredentialHelper(t *testing.T) {
	host, _ := serve(t, "helped", "secret")
	bin := t.TempDir()
	seen := filepath.Join(bin, "env")
	script := "#!/bin/sh\nenv > " + seen + "\nread server\n[ \"$server\" = \"" + host + "\" ] || { echo 'credentials not found in native keychain'; exit 1; }\n" +
		"echo '{\"ServerURL\":\"\",\"Username\":\"helped\",\"Secret\":\"secret\"}'\n"
	if err := os.WriteFile(filepath.Join(bin, "docker-credential-test"), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	t.Setenv("CUTOUT_TEST_SECRET", "in the caller's environment")
	login(t, `{"credsStore":"test"}`)
	push(t, host+"/app:1", ociImage(t, "amd64", twoLayers...))
	if _, err := newStore(t).Pull(context.Background(), host+"/app:1", nil); err != nil {
		t.Fatal(err)
	}
	env, err := os.ReadFile(seen)
	if err != nil || !bytes.Contains(env, []byte("PATH=")) {
		t.Fatalf("helper did not run as expected: %v\n%s", err, env)
	}
	if bytes.Contains(env, []byte("CUTOUT_TEST_SECRET")) {
		t.Error("the helper got the caller's whole environment")
	}
	// A helper of the working directory would be a stranger's.
	t.Chdir(bin)
	if err := os.Mkdir("docker-credential-x", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile("docker-credential-x/test", []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	login(t, `{"credsStore":"x/test"}`)
	if _, err := newStore(t).Pull(context.Background(), host+"/app:1", nil); err == nil {
		t.Error("a helper outside of PATH was run")
	}
}

// A registry that serves other bytes than it names, and one without TLS.
func TestHostileRegistry(t *testing.T) {
	reg := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	type change func(path string, body []byte) []byte
	var corrupt atomic.Pointer[change] // connections of an earlier pull may still be served
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rec := httptest.NewRecorder()
		reg.ServeHTTP(rec, r)
		body := rec.Body.Bytes()
		if c := corrupt.Load(); r.Method == http.MethodGet && c != nil {
			body = (*c)(r.URL.Path, body)
			rec.Header().Del("Content-Length")
		}
		for k, v := range rec.Header() {
			w.Header()[k] = v
		}
		w.WriteHeader(rec.Code)
		w.Write(body)
	}))
	defer srv.Close()
	host := strings.TrimPrefix(srv.URL, "http://")
	img := ociImage(t, "amd64", twoLayers...)
	push(t, host+"/app:1", img)
	layers, _ := img.Layers()
	layer, _ := layers[1].Digest()
	config, _ := img.ConfigName()
	for name, test := range map[string]struct {
		ref     string
		corrupt change
	}{
		"layer": {"app:1", func(p string, b []byte) []byte {
			if strings.HasSuffix(p, layer.String()) {
				b = bytes.Clone(b)
				b[len(b)/2] ^= 1
			}
			return b
		}},
		"longer layer": {"app:1", func(p string, b []byte) []byte {
			if strings.HasSuffix(p, layer.String()) {
				b = append(bytes.Clone(b), make([]byte, 1<<20)...)
			}
			return b
		}},
		"shorter layer": {"app:1", func(p string, b []byte) []byte {
			if strings.HasSuffix(p, layer.String()) {
				b = b[:len(b)-1]
			}
			return b
		}},
		"config": {"app:1", func(p string, b []byte) []byte {
			if strings.HasSuffix(p, config.String()) {
				b = bytes.Replace(b, []byte("/entry"), []byte("/other"), 1)
			}
			return b
		}},
		"manifest by digest": {"app@" + digestOf(t, img), func(p string, b []byte) []byte {
			return bytes.Replace(b, []byte(`"schemaVersion":2`), []byte(`"schemaVersion": 2`), 1)
		}},
		"layer elsewhere": {"app:1", func(p string, b []byte) []byte {
			if strings.Contains(p, "/manifests/") {
				b = bytes.Replace(b, []byte(`"layers":[{`), []byte(`"layers":[{"urls":["http://169.254.169.254/"],`), 1)
			}
			return b
		}},
		"giant claim": {"app:1", func(p string, b []byte) []byte {
			if strings.Contains(p, "/manifests/") {
				b = bytes.Replace(b, []byte(`"size":`), []byte(`"size":9999999999999`), -1)
			}
			return b
		}},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStore(t)
			corrupt.Store(&test.corrupt)
			defer corrupt.Store(nil)
			_, err := s.Pull(context.Background(), host+"/"+test.ref, nil)
			if err == nil {
				t.Error("pulled")
			}
			leftovers(t, s)
		})
	}
	for _, ref := range []string{"10.255.255.1:5000/app", "registry.local:5000/app"} {
		tr := secureTransport{http.DefaultTransport}
		req := httptest.NewRequest("GET", "http://"+ref, nil)
		if _, err := tr.RoundTrip(req); !errors.Is(err, errPlainRegistry) {
			t.Errorf("%s: error %v, want a refusal", ref, err)
		}
	}
}
