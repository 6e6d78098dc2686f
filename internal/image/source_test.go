package image

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// ociImage returns an image of the given layers for a platform.
func ociImage(t testing.TB, arch string, layers ...[]entry) v1.Image {
	t.Helper()
	img := mutate.MediaType(empty.Image, types.OCIManifestSchema1)
	img = mutate.ConfigMediaType(img, types.OCIConfigJSON)
	for _, l := range layers {
		data := tarOf(t, l...)
		layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil },
			tarball.WithMediaType(types.OCILayer))
		if err != nil {
			t.Fatal(err)
		}
		if img, err = mutate.AppendLayers(img, layer); err != nil {
			t.Fatal(err)
		}
	}
	cf, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	cf = cf.DeepCopy()
	cf.OS, cf.Architecture = "linux", arch
	cf.Config = v1.Config{
		Env: []string{"PATH=/bin", "A=b"}, Entrypoint: []string{"/entry"}, Cmd: []string{"arg"}, WorkingDir: "/srv", User: "1:2",
	}
	if img, err = mutate.ConfigFile(img, cf); err != nil {
		t.Fatal(err)
	}
	return img
}

var wantConfig = Config{
	Env: []string{"PATH=/bin", "A=b"}, Entrypoint: []string{"/entry"}, Cmd: []string{"arg"}, WorkingDir: "/srv", User: "1:2",
}

var twoLayers = [][]entry{
	{dir("d"), file("d/keep", "kept"), file("d/gone", "x"), file("a", "lower")},
	{file("d/.wh.gone", ""), file("a", "upper"), hardlink("b", "d/keep")},
}

// checkTwoLayers compares a disk with what twoLayers merge to.
func checkTwoLayers(t testing.TB, img Image) {
	t.Helper()
	fsck(t, img.Disk)
	if got := debugfs(t, img.Disk, "cat /a") + debugfs(t, img.Disk, "cat /b"); got != "upperkept" {
		t.Errorf("a and b hold %q", got)
	}
	if got := debugfs(t, img.Disk, "ls -p /d"); strings.Contains(got, "gone") || !strings.Contains(got, "keep") {
		t.Errorf("d holds %s", got)
	}
	if d := cmp.Diff(wantConfig, img.Config); d != "" {
		t.Errorf("config (-want +got):\n%s", d)
	}
}

func digestOf(t testing.TB, img v1.Image) string {
	t.Helper()
	h, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return h.String()
}

func tarDir(t testing.TB, dir string) []byte {
	t.Helper()
	out, err := exec.Command("tar", "-C", dir, "-c", ".").Output()
	if err != nil {
		t.Fatalf("tar: %v", err)
	}
	return out
}

func TestImportArchives(t *testing.T) {
	img := ociImage(t, "amd64", twoLayers...)
	ociDir := filepath.Join(t.TempDir(), "oci")
	lp, err := layout.Write(ociDir, empty.Index)
	if err != nil {
		t.Fatal(err)
	}
	if err := lp.AppendImage(img); err != nil {
		t.Fatal(err)
	}
	indexDir := filepath.Join(t.TempDir(), "index")
	index := mutate.AppendManifests(empty.Index,
		mutate.IndexAddendum{Add: ociImage(t, "arm64", []entry{file("arm", "x")}), Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "arm64"}}},
		mutate.IndexAddendum{Add: img, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "amd64"}}},
		mutate.IndexAddendum{Add: ociImage(t, "unknown", []entry{file("attestation", "x")}), Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "unknown", Architecture: "unknown"}}},
	)
	lp, err = layout.Write(indexDir, empty.Index)
	if err != nil {
		t.Fatal(err)
	}
	if err := lp.AppendIndex(index); err != nil {
		t.Fatal(err)
	}
	saved := filepath.Join(t.TempDir(), "saved.tar")
	tag, _ := name.NewTag("example.test/app:1")
	if err := tarball.WriteToFile(saved, tag, img); err != nil {
		t.Fatal(err)
	}
	savedData, err := os.ReadFile(saved)
	if err != nil {
		t.Fatal(err)
	}
	id, err := img.ConfigName()
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct{ path, digest string }{
		"OCI directory":             {ociDir, digestOf(t, img)},
		"OCI directory with index":  {indexDir, digestOf(t, img)},
		"OCI tar":                   {write(t, tarDir(t, ociDir)), digestOf(t, img)},
		"OCI tar, compressed":       {write(t, compress(t, "zstd", bytes.NewReader(tarDir(t, indexDir)))), digestOf(t, img)},
		"docker save":               {saved, id.String()},
		"docker save, compressed":   {write(t, compress(t, "gzip", bytes.NewReader(savedData))), id.String()},
		"docker save, old, by hand": {write(t, oldDockerSave(t)), ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStore(t)
			got, err := s.Import(context.Background(), "x", test.path, nil)
			if err != nil {
				t.Fatal(err)
			}
			checkTwoLayers(t, got)
			if test.digest != "" && got.Digest != test.digest {
				t.Errorf("digest %s, want %s", got.Digest, test.digest)
			}
			if l, err := s.Lookup(context.Background(), "x", nil); err != nil || l.Disk != got.Disk {
				t.Errorf("Lookup = %v, %v", l, err)
			}
		})
	}
}

// oldDockerSave is the format before docker 25: a directory for each layer,
// equal layers as links.
func oldDockerSave(t testing.TB) []byte {
	l1, l2 := tarOf(t, twoLayers[0]...), tarOf(t, twoLayers[1]...)
	config, _ := json.Marshal(map[string]any{
		"os": "linux", "architecture": "amd64",
		"config": map[string]any{
			"Env": wantConfig.Env, "Entrypoint": wantConfig.Entrypoint, "Cmd": wantConfig.Cmd,
			"WorkingDir": wantConfig.WorkingDir, "User": wantConfig.User,
		},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{sha256String(l1), sha256String(l2), sha256String(l2)}},
	})
	hex := func(c string) string { return strings.Repeat(c, 64) }
	manifest := fmt.Sprintf(`[{"Config":"%s.json","RepoTags":["app:1"],"Layers":["%s/layer.tar","%s/layer.tar","%s/layer.tar"]}]`,
		hex("c"), hex("1"), hex("2"), hex("3"))
	return tarOf(t,
		dir(hex("1")+"/"), file(hex("1")+"/VERSION", "1.0"), file(hex("1")+"/json", "{}"), file(hex("1")+"/layer.tar", string(l1)),
		dir(hex("2")+"/"), file(hex("2")+"/layer.tar", string(l2)),
		dir(hex("3")+"/"), symlink(hex("3")+"/layer.tar", "../"+hex("2")+"/layer.tar"),
		file(hex("c")+".json", string(config)), file("manifest.json", manifest), file("repositories", "{}"))
}

func TestImportCompressions(t *testing.T) {
	data := tarOf(t, file("a", "content"), dir("manifest.json"))
	var digest string
	for _, how := range []string{"plain", "gzip", "zstd", "xz", "bzip2"} {
		t.Run(how, func(t *testing.T) {
			path := write(t, data)
			switch how {
			case "gzip", "zstd":
				path = write(t, compress(t, how, bytes.NewReader(data)))
			case "xz", "bzip2":
				if _, err := exec.LookPath(how); err != nil {
					t.Skipf("skipped: %s is not installed", how)
				}
				cmd := exec.Command(how, "-c")
				cmd.Stdin = bytes.NewReader(data)
				out, err := cmd.Output()
				if err != nil {
					t.Fatal(err)
				}
				path = write(t, out)
			}
			img, err := newStore(t).Import(context.Background(), "x", path, nil)
			if err != nil {
				t.Fatal(err)
			}
			if digest == "" {
				digest = img.Digest
			}
			if img.Digest != digest || debugfs(t, img.Disk, "cat /a") != "content" {
				t.Errorf("digest %s, want %s, or other content", img.Digest, digest)
			}
		})
	}
}

// xz asks for memory before it gives anything.
func TestXZDictionary(t *testing.T) {
	// Stream header, block header of size 3*4 with LZMA2 and a 4 GiB dictionary.
	head := append([]byte("\xfd7zXZ\x00\x00\x04\xe6\xd6\xb4\x46"), 2, 0, 0x21, 1, 40)
	_, err := newStore(t).Import(context.Background(), "x", write(t, append(head, make([]byte, 64)...)), nil)
	if !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "dictionary") {
		t.Errorf("error %v, want a refusal", err)
	}
}
