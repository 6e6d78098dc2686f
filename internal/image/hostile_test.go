package image

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// rawTar returns a tar with one header as given: archive/tar would not write
// some of these.
func rawTar(name string, typ byte, size string, linkname string, body []byte) []byte {
	var b [512]byte
	copy(b[0:100], name)
	copy(b[100:], "0000644\x000000000\x000000000\x00")
	copy(b[124:136], size)
	copy(b[136:], "00000000000\x00")
	b[156] = typ
	copy(b[157:257], linkname)
	copy(b[257:], "ustar\x0000")
	copy(b[148:], "        ")
	sum := 0
	for _, c := range b {
		sum += int(c)
	}
	copy(b[148:], fmt.Sprintf("%06o\x00 ", sum))
	out := append(b[:], body...)
	return append(out, make([]byte, (512-len(out)%512)%512+1024)...)
}

// gnuSparse returns a tar with one sparse file (old GNU format) that claims
// size bytes and has none.
func gnuSparse(name string, size int64) []byte {
	var b [512]byte
	copy(b[0:100], name)
	copy(b[100:], "0000644\x000000000\x000000000\x0000000000000\x0000000000000\x00")
	b[156] = tar.TypeGNUSparse
	copy(b[257:], "ustar  \x00")
	big := func(p []byte, n int64) { // base-256
		p[0] = 0x80
		for i := 11; i > 3; i-- {
			p[i] = byte(n)
			n >>= 8
		}
	}
	big(b[386:398], size) // one empty extent at the end
	big(b[398:410], 0)
	big(b[483:495], size)
	copy(b[148:], "        ")
	sum := 0
	for _, c := range b {
		sum += int(c)
	}
	copy(b[148:], fmt.Sprintf("%06o\x00 ", sum))
	return append(b[:], make([]byte, 1024)...)
}

func many(n int) []byte {
	var b bytes.Buffer
	tw := tar.NewWriter(&b)
	for i := range n {
		tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: fmt.Sprintf("f%d", i), Mode: 0o644})
	}
	tw.Close()
	return b.Bytes()
}

// E6: hostile layers are refused, each as a lone root file system and as a
// layer above a harmless one, and nothing stays behind.
func TestHostile(t *testing.T) {
	limits := Limits{Entries: 1000, FileBytes: 1 << 20, TotalBytes: 3 << 20}
	big := strings.Repeat("x", 900<<10)
	deep := strings.Repeat("d/", 1100) + "f"
	tests := []struct {
		name string
		data []byte
		want string
	}{
		{"dot-dot", tarOf(t, file("../../etc/passwd", "x")), `has ".."`},
		{"dot-dot inside", tarOf(t, dir("a"), file("a/../../b", "x")), `has ".."`},
		{"dot-dot that stays inside", tarOf(t, dir("a"), file("a/../b", "x")), `has ".."`},
		{"absolute dot-dot", tarOf(t, file("/../b", "x")), `has ".."`},
		{"through a link", tarOf(t, symlink("a", "/etc"), file("a/passwd", "x")), "passes through the symbolic link"},
		{"through a relative link", tarOf(t, dir("d"), symlink("a", "d"), file("a/b/c", "x")), "passes through the symbolic link"},
		{"through a file", tarOf(t, file("a", "x"), file("a/b", "x")), "not a directory"},
		{"hard link to nothing", tarOf(t, hardlink("a", "etc/shadow")), "does not exist"},
		{"hard link to the host", tarOf(t, hardlink("a", "/etc/shadow")), "does not exist"},
		{"hard link out", tarOf(t, hardlink("a", "../../etc/shadow")), `has ".."`},
		{"hard link through a link", tarOf(t, symlink("a", "/etc"), hardlink("b", "a/shadow")), "passes through the symbolic link"},
		{"hard link to a directory", tarOf(t, dir("a"), hardlink("b", "a")), "leads to the directory"},
		{"hard link to the root", tarOf(t, hardlink("b", "/")), "leads to the directory"},
		{"root is a file", tarOf(t, file("./.", "x")), "root is not a directory"},
		{"root is a link", tarOf(t, symlink(".", "/")), "root is not a directory"},
		{"file over a directory of its layer", tarOf(t, file("a/b", "x"), file("a", "x")), "same layer"},
		{"directory over a file of its layer", tarOf(t, file("a", "x"), dir("a")), "same layer"},
		{"lost+found is a file", tarOf(t, file("lost+found", "x")), "lost+found"},
		{"empty link target", rawTar("a", tar.TypeSymlink, "00000000000\x00", "", nil), "impossible target"},
		{"long component", tarOf(t, file(strings.Repeat("n", 256), "x")), "longer than 255"},
		{"long name", tarOf(t, file(strings.Repeat("n/", 2048)+"f", "x")), "longer than 4095"},
		{"implied directories", tarOf(t, file(deep, "x")), "more than the limit of 1000 files"},
		{"too many entries", many(1001), "more than the limit of 1000 files"},
		{"file claims too much", tarOf(t, entry{typ: tar.TypeReg, name: "a", body: strings.Repeat("x", 1<<20+1)}), "more than the limit of 1048576"},
		{"files together", tarOf(t, file("a", big), file("b", big), file("c", big), file("d", big)), "more than the limit of 3145728"},
		{"overwritten file counts", tarOf(t, file("a", big), file("a", big), file("a", big), file("a", big)), "more than the limit"},
		{"1 TB that is not there", rawTar("a", tar.TypeReg, "\x80\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00", "", nil), "more than the limit"},
		{"1 TB sparse", gnuSparse("a", 1<<40), "more than the limit"},
		{"negative size", rawTar("a", tar.TypeReg, "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", "", nil), "not a whole tar"},
		{"device out of range", tarOf(t, entry{typ: tar.TypeChar, name: "a", major: 1 << 12}), "device number"},
		{"unknown type", rawTar("a", 'V', "00000000000\x00", "", nil), "unknown type"},
		{"large attributes", tarOf(t, entry{name: "a", body: "x", xattrs: map[string]string{"user.a": strings.Repeat("v", 5000)}}), "extended attributes"},
		{"bad access list", tarOf(t, entry{name: "a", body: "x", xattrs: map[string]string{"system.posix_acl_access": "\x02\x00\x00\x00\x99\x00\x00\x00\x00\x00\x00\x00"}}), "access control list"},
		{"cut short", tarOf(t, file("a", big))[:1<<19], "not a whole tar"},
		{"not a tar", []byte(strings.Repeat("text\n", 500)), "not a whole tar"},
	}
	ctx := context.Background()
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s := newStore(t)
			s.Limits = limits
			_, err := s.Import(ctx, "x", write(t, test.data), nil)
			if !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), test.want) {
				t.Errorf("alone: error %v, want a refusal with %q", err, test.want)
			}
			leftovers(t, s)
			if _, err := s.Lookup(context.Background(), "x", nil); !errors.Is(err, ErrNotFound) {
				t.Errorf("found after refusal: %v", err)
			}
			_, err = flatten(t, limits, tarOf(t, dir("base"), file("base/a", "1")), test.data)
			if !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), test.want) {
				t.Errorf("as upper layer: error %v, want a refusal with %q", err, test.want)
			}
		})
	}
}

// Entries of an upper layer do not pass through links of a lower one.
func TestHostileAcrossLayers(t *testing.T) {
	lower := tarOf(t, symlink("lib", "/usr/lib"), symlink("d", "."), file("f", "1"))
	for name, upper := range map[string]entry{
		"file":          file("lib/x", "2"),
		"white-out":     file("lib/.wh.x", ""),
		"opaque":        file("lib/.wh..wh..opq", ""),
		"opaque file":   file("f/.wh..wh..opq", ""),
		"hard link":     hardlink("y", "d/f"),
		"below a file":  file("f/x", "2"),
		"empty mark":    file(".wh.", ""),
		"dot mark":      file("x/.wh..", ""),
		"dot-dot mark":  file("x/.wh...", ""),
		"below a mark":  file(".wh.x/y", "2"),
		"dot-dot above": file("../.wh.x", ""),
	} {
		t.Run(name, func(t *testing.T) {
			if lines, err := flatten(t, Limits{}, lower, tarOf(t, upper)); !errors.Is(err, ErrRefused) {
				t.Errorf("got %q, error %v, want a refusal", lines, err)
			}
		})
	}
}

func TestTooManyLinks(t *testing.T) {
	var links, dirs bytes.Buffer
	lw, dw := tar.NewWriter(&links), tar.NewWriter(&dirs)
	lw.WriteHeader(file("a", "").header())
	for i := range linkMax {
		lw.WriteHeader(hardlink(fmt.Sprintf("l%d", i), "a").header())
		dw.WriteHeader(dir(fmt.Sprintf("d%d", i)).header())
	}
	lw.Close()
	dw.Close()
	for want, data := range map[string][]byte{"names": links.Bytes(), "subdirectories": dirs.Bytes()} {
		if _, err := flatten(t, Limits{}, data); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want a refusal with %q", err, want)
		}
	}
}

func TestMetadataLimit(t *testing.T) {
	tr := newTree(Limits{}.withDefaults())
	tr.begin(true)
	h := file("a", "").header()
	h.PAXRecords["comment"] = strings.Repeat("c", 1<<20)
	var err error
	for range metadataMax>>20 + 1 {
		if err = tr.add(h); err != nil {
			break
		}
	}
	if !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "attributes") {
		t.Errorf("error %v, want a refusal", err)
	}
}

func compress(t testing.TB, how string, r io.Reader) []byte {
	t.Helper()
	var b bytes.Buffer
	var w io.WriteCloser
	switch how {
	case "gzip":
		w = gzip.NewWriter(&b)
	case "zstd":
		w, _ = zstd.NewWriter(&b)
	}
	if _, err := io.Copy(w, r); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// A layer that unpacks to far more than its size is refused while it is read.
func TestDecompressionBomb(t *testing.T) {
	bomb := io.MultiReader(bytes.NewReader(tarOf(t, entry{name: "a", body: "x"})), io.LimitReader(zeros{}, 300<<20))
	data := compress(t, "zstd", bomb)
	s := newStore(t)
	_, err := s.Import(context.Background(), "x", write(t, data), nil)
	if !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "times its size") {
		t.Errorf("error %v, want a refusal for the ratio", err)
	}
	s.Limits = Limits{TotalBytes: 1 << 20, Entries: 100, Ratio: 1 << 40}
	small := io.MultiReader(bytes.NewReader(tarOf(t, entry{name: "a", body: "x"})), io.LimitReader(zeros{}, 4<<20))
	_, err = s.Import(context.Background(), "x", write(t, compress(t, "gzip", small)), nil)
	if !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "more than the limit") {
		t.Errorf("error %v, want a refusal for the size", err)
	}
	leftovers(t, s)
}

func TestDamagedCompression(t *testing.T) {
	whole := compress(t, "gzip", bytes.NewReader(tarOf(t, file("a", strings.Repeat("content ", 5000)))))
	flipped := bytes.Clone(whole)
	flipped[len(flipped)-6] ^= 1
	for name, data := range map[string][]byte{
		"cut": whole[:len(whole)/2], "checksum": flipped, "header only": whole[:8],
		"zstd": {0x28, 0xb5, 0x2f, 0xfd, 1, 2, 3}, "xz": []byte("\xfd7zXZ\x00\x00\x04garbage garbage garbage"),
		"bzip2": []byte("BZh9garbage"), "empty": {},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStore(t)
			if _, err := s.Import(context.Background(), "x", write(t, data), nil); !errors.Is(err, ErrRefused) {
				t.Errorf("error %v, want a refusal", err)
			}
			leftovers(t, s)
		})
	}
}

// An archive whose parts are not what their digests say, or that points out
// of itself.
func TestHostileArchives(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "secret")
	os.WriteFile(secret, []byte("{}"), 0o600)
	layer := tarOf(t, file("a", "1"))
	config := func(diffID string) string {
		b, _ := json.Marshal(map[string]any{
			"os": "linux", "architecture": "amd64",
			"rootfs": map[string]any{"type": "layers", "diff_ids": []string{diffID}},
		})
		return string(b)
	}
	good := config(sha256String(layer))
	hex := strings.Repeat("a", 64)
	docker := func(entries ...entry) []byte { return tarOf(t, entries...) }
	manifest := file("manifest.json", fmt.Sprintf(`[{"Config":"%s.json","Layers":["%s/layer.tar"]}]`, hex, hex))
	for name, test := range map[string]struct {
		data []byte
		want string
	}{
		"layer is another":      {docker(file(hex+".json", config(sha256String([]byte("x")))), entry{name: hex + "/layer.tar", body: string(layer)}, manifest), "not what its digest says"},
		"no layer":              {docker(file(hex+".json", good), manifest), "lacks layer"},
		"no config":             {docker(entry{name: hex + "/layer.tar", body: string(layer)}, manifest), "lacks"},
		"link to the host":      {docker(file(hex+".json", good), symlink(hex+"/layer.tar", secret), manifest), "lacks layer"},
		"link up":               {docker(file(hex+".json", good), symlink(hex+"/layer.tar", "../../../../"+secret), manifest), "lacks layer"},
		"config above":          {docker(file("manifest.json", `[{"Config":"../../etc/passwd","Layers":[]}]`)), "lacks"},
		"bad manifest":          {docker(file("manifest.json", `{`)), "malformed"},
		"two images":            {docker(file("manifest.json", `[{},{}]`)), "one at a time"},
		"no images":             {docker(file("manifest.json", `[]`)), "one at a time"},
		"layers do not match":   {docker(file(hex+".json", `{"rootfs":{"diff_ids":[]}}`), entry{name: hex + "/layer.tar", body: string(layer)}, manifest), "disagree"},
		"digest is no digest":   {docker(file(hex+".json", config("sha256:../../x")), entry{name: hex + "/layer.tar", body: string(layer)}, manifest), "malformed"},
		"other architecture":    {docker(file(hex+".json", `{"os":"linux","architecture":"arm64","rootfs":{"diff_ids":["`+sha256String(layer)+`"]}}`), entry{name: hex + "/layer.tar", body: string(layer)}, manifest), "not linux/amd64"},
		"index without image":   {docker(file("oci-layout", "{}"), file("index.json", `{"manifests":[]}`)), "no image for linux/amd64"},
		"index names no blob":   {docker(file("index.json", fmt.Sprintf(`{"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:%s"}]}`, hex))), "lacks"},
		"blob is another":       {docker(file("blobs/sha256/"+hex, "{}"), file("index.json", fmt.Sprintf(`{"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:%s"}]}`, hex))), "not what its digest says"},
		"document is too large": {docker(file("manifest.json", strings.Repeat(" ", maxDocument+1))), "larger than"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStore(t)
			_, err := s.Import(context.Background(), "x", write(t, test.data), nil)
			if !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, want a refusal with %q", err, test.want)
			}
			leftovers(t, s)
		})
	}
}
