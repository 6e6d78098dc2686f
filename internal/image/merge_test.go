package image

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// bytesLayer is a layer of an image.
func bytesLayer(data []byte, limits Limits) *tarLayer {
	return &tarLayer{
		open:  func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil },
		bytes: int64(len(data)), marks: true, oci: true, limits: limits.withDefaults(),
	}
}

// flatten merges layers and returns what the writer is given, one line for
// each name: "path type mode content", hard links as "path = first name".
func flatten(t testing.TB, limits Limits, layers ...[]byte) ([]string, error) {
	t.Helper()
	var ls []layer
	for _, data := range layers {
		ls = append(ls, bytesLayer(data, limits))
	}
	ctx := context.Background()
	p, err := merge(ctx, ls, limits.withDefaults(), nil)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	if err := p.emit(ctx, tar.NewWriter(&out), ls, nil); err != nil {
		t.Fatalf("emit: %v", err)
	}
	var lines []string
	tr := tar.NewReader(&out)
	for {
		h, err := tr.Next()
		if err == io.EOF {
			return lines, nil
		}
		if err != nil {
			t.Fatalf("read what was emitted: %v", err)
		}
		body, err := io.ReadAll(tr)
		if err != nil {
			t.Fatalf("read what was emitted: %v", err)
		}
		switch h.Typeflag {
		case tar.TypeLink:
			lines = append(lines, fmt.Sprintf("%s = %s", h.Name, h.Linkname))
		case tar.TypeSymlink:
			lines = append(lines, fmt.Sprintf("%s -> %s", h.Name, h.Linkname))
		case tar.TypeDir:
			lines = append(lines, fmt.Sprintf("%s %o", h.Name, h.Mode))
		default:
			lines = append(lines, fmt.Sprintf("%s %q", h.Name, body))
		}
	}
}

func TestMerge(t *testing.T) {
	root := "./ 755"
	tests := []struct {
		name   string
		layers [][]entry
		want   []string
	}{
		{
			"upper wins",
			[][]entry{{file("a", "1"), file("b", "1")}, {file("a", "2")}},
			[]string{root, `b "1"`, `a "2"`},
		},
		{
			"leading slash is the image's root",
			[][]entry{{dir("/d/"), file("/d/a", "1")}, {file("d/a", "2"), file("./d//b", "3")}},
			[]string{root, "d/ 755", `d/a "2"`, `d/b "3"`},
		},
		{
			"white-out removes a lower file",
			[][]entry{{file("d/a", "1"), file("d/b", "1")}, {file("d/.wh.a", "")}},
			[]string{root, "d/ 755", `d/b "1"`},
		},
		{
			"white-out removes a lower directory",
			[][]entry{{file("d/e/a", "1"), file("x", "1")}, {file(".wh.d", "")}},
			[]string{root, `x "1"`},
		},
		{
			"white-out does not touch its own layer, before or after",
			[][]entry{{file("a", "1"), file("b", "1")}, {file("a", "2"), file(".wh.a", ""), file(".wh.b", ""), file("b", "2")}},
			[]string{root, `a "2"`, `b "2"`},
		},
		{
			"white-out of a directory keeps what its own layer adds",
			[][]entry{{file("d/old", "1")}, {file("d/new", "2"), file(".wh.d", "")}},
			[]string{root, "d/ 755", `d/new "2"`},
		},
		{
			"white-out of nothing",
			[][]entry{{file("a", "1")}, {file(".wh.nothing", ""), file("no/.wh.where", "")}},
			[]string{root, `a "1"`},
		},
		{
			"opaque hides lower content, wherever it stands",
			[][]entry{{file("d/a", "1"), file("d/e/f", "1")}, {file("d/b", "2"), file("d/.wh..wh..opq", ""), file("d/c", "2")}},
			[]string{root, "d/ 755", `d/b "2"`, `d/c "2"`},
		},
		{
			"opaque root",
			[][]entry{{file("a", "1"), file("d/e", "1")}, {file(".wh..wh..opq", ""), file("b", "2")}},
			[]string{root, `b "2"`},
		},
		{
			"opaque reaches through all lower layers",
			[][]entry{{file("d/a", "1")}, {file("d/b", "2")}, {dir("d"), file("d/.wh..wh..opq", "")}},
			[]string{root, "d/ 755"},
		},
		{
			"AUFS's other marks are nothing",
			[][]entry{{dir(".wh..wh.plnk"), file(".wh..wh.aufs", ""), file("a", "1")}},
			[]string{root, `a "1"`},
		},
		{
			"whited-out name comes back in a third layer",
			[][]entry{{file("a", "1")}, {file(".wh.a", "")}, {file("a", "3")}},
			[]string{root, `a "3"`},
		},
		{
			"file replaces directory",
			[][]entry{{file("d/e/a", "1")}, {file("d", "2")}},
			[]string{root, `d "2"`},
		},
		{
			"directory replaces file",
			[][]entry{{file("d", "1")}, {dir("d"), file("d/a", "2")}},
			[]string{root, "d/ 755", `d/a "2"`},
		},
		{
			"directory replaces symbolic link",
			[][]entry{{symlink("d", "/etc")}, {dir("d"), file("d/a", "2")}},
			[]string{root, "d/ 755", `d/a "2"`},
		},
		{
			"symbolic link replaces directory",
			[][]entry{{file("d/a", "1")}, {symlink("d", "/etc")}},
			[]string{root, "d -> /etc"},
		},
		{
			"directory keeps content and takes attributes",
			[][]entry{{dir("d"), file("d/a", "1")}, {entry{typ: tar.TypeDir, name: "d", mode: 0o2750}}},
			[]string{root, "d/ 2750", `d/a "1"`},
		},
		{
			"implied parent gets attributes later",
			[][]entry{{file("d/e/a", "1"), entry{typ: tar.TypeDir, name: "d", mode: 0o700}}},
			[]string{root, "d/ 700", "d/e/ 755", `d/e/a "1"`},
		},
		{
			"later entry of one layer wins",
			[][]entry{{file("a", "1"), file("a", "2")}},
			[]string{root, `a "2"`},
		},
		{
			"hard link in one layer",
			[][]entry{{file("b", "1"), hardlink("a", "b"), hardlink("c", "/b")}},
			[]string{root, `a "1"`, "b = a", "c = a"},
		},
		{
			"hard link to a lower layer",
			[][]entry{{file("a", "1")}, {hardlink("b", "a")}},
			[]string{root, `a "1"`, "b = a"},
		},
		{
			"hard link keeps what its target was",
			[][]entry{{file("a", "1")}, {hardlink("b", "a"), file("a", "2")}},
			[]string{root, `b "1"`, `a "2"`},
		},
		{
			"hard link keeps what a higher layer replaces",
			[][]entry{{file("a", "1"), hardlink("b", "a"), hardlink("c", "a")}, {file("a", "2"), file(".wh.b", "")}},
			[]string{root, `c "1"`, `a "2"`},
		},
		{
			"hard link to a hard link to a lower file that goes",
			[][]entry{{file("a", "1")}, {hardlink("b", "a")}, {hardlink("c", "b")}, {file(".wh.a", ""), file(".wh.b", "")}},
			[]string{root, `c "1"`},
		},
		{
			"hard link to itself",
			[][]entry{{file("a", "1")}, {hardlink("a", "a")}},
			[]string{root, `a "1"`},
		},
		{
			"hard link to a symbolic link",
			[][]entry{{symlink("a", "x"), hardlink("b", "a")}},
			[]string{root, "a -> x", "b = a"},
		},
		{
			"replaced content is not written",
			[][]entry{{file("a", strings.Repeat("x", 10))}, {hardlink("b", "a")}, {file(".wh.b", ""), file(".wh.a", ""), file("z", "")}},
			[]string{root, `z ""`},
		},
		{
			"names that are bytes",
			[][]entry{{file("\xff\xfe", "1"), file("a\nb", "2")}},
			[]string{root, "\xff\xfe \"1\"", "a\nb \"2\""},
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var layers [][]byte
			for _, l := range test.layers {
				layers = append(layers, tarOf(t, l...))
			}
			got, err := flatten(t, Limits{}, layers...)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(test.want, got); d != "" {
				t.Errorf("merged (-want +got):\n%s", d)
			}
		})
	}
}

// A root file system is not a layer: its .wh. names are files.
func TestRootfsHasNoWhiteouts(t *testing.T) {
	s := newStore(t)
	img, err := s.Import(context.Background(), "x", write(t, tarOf(t, file("a", "1"), file(".wh.a", "2"))), nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := debugfs(t, img.Disk, "cat /.wh.a"); got != "2" {
		t.Errorf(".wh.a holds %q", got)
	}
}

// FuzzTar feeds bytes that may be tars: nothing but one clean tree is written.
func FuzzTar(f *testing.F) {
	for _, s := range [][]entry{
		{file("d/a", "1"), hardlink("b", "d/a"), symlink("l", "d")},
		{file("d/.wh.a", ""), file("d/.wh..wh..opq", ""), dir("b")},
		{entry{typ: tar.TypeChar, name: "dev/null", major: 1, minor: 3}, entry{name: "x", body: "y", xattrs: map[string]string{"user.a": "b"}}},
	} {
		f.Add(tarOf(f, s...))
	}
	limits := Limits{Entries: 2000, FileBytes: 1 << 20, TotalBytes: 4 << 20}
	f.Fuzz(func(t *testing.T, data []byte) {
		checkMerged(t, limits, tarOf(t, file("d/a", "0"), file("e", "0")), data)
	})
}

// checkMerged merges layers and, if they are accepted, checks that what comes
// out is one tree: each name once, after its parent, below the root, links
// after their targets, and that the ext4 writer takes it.
func checkMerged(t *testing.T, limits Limits, layers ...[]byte) (lines []string, ok bool) {
	t.Helper()
	lines, err := flatten(t, limits, layers...)
	if err != nil {
		return nil, false
	}
	seen := map[string]bool{}
	for _, h := range emitted(t, limits, layers...) {
		name := strings.TrimSuffix(h.Name, "/")
		if seen[name] {
			t.Fatalf("%q twice in %q", name, lines)
		}
		seen[name] = true
		if name == "." {
			continue
		}
		parent := "."
		if i := strings.LastIndexByte(name, '/'); i >= 0 {
			parent = name[:i]
		}
		if !seen[parent] {
			t.Fatalf("%q before its parent in %q", name, lines)
		}
		for part := range strings.SplitSeq(name, "/") {
			if part == "" || part == "." || part == ".." {
				t.Fatalf("emitted %q", name)
			}
		}
		if h.Typeflag == tar.TypeLink && !seen[h.Linkname] {
			t.Fatalf("link %q before %q", name, h.Linkname)
		}
	}
	var ls []layer
	for _, data := range layers {
		ls = append(ls, bytesLayer(data, limits))
	}
	p, err := merge(context.Background(), ls, limits.withDefaults(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := writeDisk(context.Background(), tempDisk(t), p, ls, nil); err != nil {
		t.Fatalf("accepted but not written: %v: %q", err, lines)
	}
	return lines, true
}

// FuzzMerge compares the tree with a slow and obvious merge. Each two bytes
// are an entry of up to four layers.
func FuzzMerge(f *testing.F) {
	f.Add([]byte("\x00\x00\x10\x01\x04\x00\x20\x02"))
	f.Add([]byte{1, 2, 0, 3, 0x84, 0, 2, 2, 3, 1, 0x80, 4, 0, 5})
	names := []string{"a", "b", "a/a", "a/b", "b/a", "a/a/a", "a/a/b", "b/b/c"}
	f.Fuzz(func(t *testing.T, program []byte) {
		if len(program) > 64 {
			return
		}
		layers := [][]entry{nil}
		for ; len(program) >= 2; program = program[2:] {
			if program[0]&0x80 != 0 && len(layers) < 4 {
				layers = append(layers, nil)
			}
			name := names[program[1]%8]
			parent, base := path.Split(name)
			e := file(name, fmt.Sprintf("%d", len(program)))
			switch program[0] & 7 {
			case 1, 5:
				e = dir(name)
			case 2:
				e = file(parent+".wh."+base, "")
			case 3:
				e = file(name+"/.wh..wh..opq", "")
			case 4:
				e = symlink(name, "target")
			case 6:
				e = hardlink(name, names[program[1]/8%8])
			}
			layers[len(layers)-1] = append(layers[len(layers)-1], e)
		}
		var data [][]byte
		for _, l := range layers {
			data = append(data, tarOf(t, l...))
		}
		got, ok := checkMerged(t, Limits{}, data...)
		if !ok {
			return
		}
		var names []string
		for _, line := range got {
			name, _, _ := strings.Cut(line, " ")
			if name = strings.TrimSuffix(name, "/"); name != "." {
				names = append(names, name)
			}
		}
		slices.Sort(names)
		if want := obviousMerge(layers); !slices.Equal(want, names) {
			t.Fatalf("merged %q, want %q, of %+v", names, want, layers)
		}
	})
}

// obviousMerge returns the names that accepted layers leave.
func obviousMerge(layers [][]entry) []string {
	type set = map[string]bool // name to whether it is a directory
	under := func(name, dir string) bool { return strings.HasPrefix(name, dir+"/") }
	lower := set{}
	for _, l := range layers {
		upper, hidden, opaque := set{}, set{}, set{}
		for _, e := range l {
			parent, base := path.Split(e.name)
			if base == ".wh..wh..opq" {
				opaque[path.Clean(parent)] = true
			} else if mark, ok := strings.CutPrefix(base, ".wh."); ok {
				hidden[parent+mark] = true
			} else {
				for d := path.Dir(e.name); d != "."; d = path.Dir(d) {
					upper[d] = true
				}
				upper[e.name] = e.typ == tar.TypeDir
			}
		}
		merged := set{}
		for name, isDir := range lower {
			gone := hidden[name]
			for q := range hidden {
				gone = gone || under(name, q)
			}
			for q := range opaque {
				gone = gone || under(name, q)
			}
			for q, qDir := range upper {
				gone = gone || !qDir && under(name, q)
			}
			if !gone {
				merged[name] = isDir
			}
		}
		for name, isDir := range upper {
			merged[name] = isDir
		}
		lower = merged
	}
	var names []string
	for name := range lower {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func emitted(t testing.TB, limits Limits, layers ...[]byte) []*tar.Header {
	t.Helper()
	var ls []layer
	for _, data := range layers {
		ls = append(ls, bytesLayer(data, limits))
	}
	p, err := merge(context.Background(), ls, limits.withDefaults(), nil)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := p.emit(context.Background(), tar.NewWriter(&out), ls, nil); err != nil {
		t.Fatal(err)
	}
	var headers []*tar.Header
	tr := tar.NewReader(&out)
	for {
		h, err := tr.Next()
		if err == io.EOF {
			return headers
		}
		if err != nil {
			t.Fatal(err)
		}
		headers = append(headers, h)
	}
}
