package debian

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/md5"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// closed is a set of packages that exercises every part of the build.
func closed(t *testing.T, sources ...string) *repo {
	r := newRepo(t, sources...)
	r.add("base-files", "1", "Essential: yes\n", map[string]string{
		"bin/.keep": "", "sbin/.keep": "", "lib/.keep": "", "var/run/.keep": "", "var/lock/.keep": "",
		"usr/lib/os-release": "ID=debian\nVERSION_CODENAME=\"testing\"\n", "etc/os-release": "-> ../usr/lib/os-release",
		"usr/share/base-files/dot.profile": "root's\n", "usr/share/base-files/profile": "everyone's\n",
	})
	r.add("base-passwd", "1", "Essential: yes\n", map[string]string{
		"usr/share/base-passwd/passwd.master": "root:*:0:0:root:/root:/bin/bash\nnobody:*:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
		"usr/share/base-passwd/group.master":  "root:*:0:\nshadow:*:42:\n",
	})
	r.add("dash", "1:2-3", "Essential: yes\nDepends: libx\n", map[string]string{
		"bin/dash": "shell", "bin/sh": "-> dash", "usr/share/debianutils/shells.d/dash": "/bin/dash\n",
	})
	r.add("libx", "1", "Multi-Arch: same\n", map[string]string{
		"lib/x86_64-linux-gnu/libx.so.1": "library", "lib64/ld.so": "-> /lib/x86_64-linux-gnu/ld.so",
		"DEBIAN/triggers":              "activate-noawait ldconfig\n",
		"usr/share/doc/libx/copyright": "licence", "usr/share/doc/libx/changelog.gz": "x", "usr/share/man/man1/x.1": "x",
	})
	r.add("mawk", "1", "", map[string]string{
		"usr/bin/mawk": "awk", "etc/mawk.conf": "conf\n", "DEBIAN/conffiles": "/etc/mawk.conf\n",
		"DEBIAN/postinst": "#!/bin/sh\ntouch /tmp/maintainer-script-ran\n", "DEBIAN/triggers": "interest-noawait /usr/share/x\ninterest ldconfig\n",
	})
	return r
}

// tree reads a tar into lines by name.
func tree(t *testing.T, r io.Reader) map[string]string {
	t.Helper()
	out := map[string]string{}
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if err == io.EOF {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		name := strings.TrimSuffix(h.Name, "/")
		if _, ok := out[name]; ok {
			t.Errorf("%q twice", name)
		}
		body, err := io.ReadAll(tr)
		if err != nil {
			t.Fatal(err)
		}
		switch h.Typeflag {
		case tar.TypeSymlink:
			out[name] = "-> " + h.Linkname
		case tar.TypeDir:
			out[name] = fmt.Sprintf("dir %o %d:%d", h.Mode, h.Uid, h.Gid)
		default:
			out[name] = fmt.Sprintf("%o %d:%d %s", h.Mode, h.Uid, h.Gid, body)
		}
	}
}

func TestRootfs(t *testing.T) {
	// The second source does not answer, and must not be in the way.
	closed(t, "deb [trusted=yes] http://127.0.0.1:1/ ./")
	work := t.TempDir()
	var out bytes.Buffer
	stages := map[string]bool{}
	if err := Rootfs(context.Background(), work, []string{"mawk"}, &out, func(s string, _, _ int64) { stages[s] = true }); err != nil {
		t.Fatal(err)
	}
	got := tree(t, &out)
	for name, want := range map[string]string{
		"bin": "-> usr/bin", "lib": "-> usr/lib", "lib64": "-> usr/lib64", "usr/bin/sh": "-> dash", "usr/bin/dash": "755 0:0 shell",
		"usr/lib/x86_64-linux-gnu/libx.so.1": "644 0:0 library", "usr/share/doc/libx/copyright": "644 0:0 licence",
		"etc/passwd":  "644 0:0 root:x:0:0:root:/root:/bin/bash\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n_apt:x:42:65534::/nonexistent:/usr/sbin/nologin\n",
		"etc/group":   "644 0:0 root:x:0:\nshadow:x:42:\n",
		"etc/gshadow": "640 0:42 root:*::\nshadow:*::\n",
		"tmp":         "dir 1777 0:0", "var/run": "-> /run", "var/lock": "-> /run/lock",
		"root/.profile": "644 0:0 root's\n", "etc/profile": "644 0:0 everyone's\n",
		"etc/shells":                            "644 0:0 # /etc/shells: valid login shells\n/bin/dash\n/usr/bin/dash\n",
		"usr/bin/awk":                           "-> /etc/alternatives/awk",
		"usr/bin/nawk":                          "-> /etc/alternatives/nawk",
		"etc/alternatives/awk":                  "-> /usr/bin/mawk",
		"var/lib/dpkg/alternatives/awk":         "644 0:0 auto\n/usr/bin/awk\nnawk\n/usr/bin/nawk\n\n/usr/bin/mawk\n5\n/usr/bin/mawk\n\n",
		"var/lib/dpkg/info/dash.list":           "644 0:0 /.\n/bin\n/bin/dash\n/usr\n/usr/share\n/usr/share/debianutils\n/usr/share/debianutils/shells.d\n/usr/share/debianutils/shells.d/dash\n/bin/sh\n",
		"var/lib/dpkg/info/mawk.conffiles":      "644 0:0 /etc/mawk.conf\n",
		"var/lib/dpkg/info/libx:amd64.triggers": "644 0:0 activate-noawait ldconfig\n",
		"var/lib/dpkg/info/mawk.postinst":       "755 0:0 #!/bin/sh\ntouch /tmp/maintainer-script-ran\n",
		"var/lib/dpkg/triggers/File":            "644 0:0 /usr/share/x mawk/noawait\n",
		"var/lib/dpkg/triggers/ldconfig":        "644 0:0 mawk\n",
		"var/lib/apt/extended_states":           "644 0:0 Package: libx\nArchitecture: amd64\nAuto-Installed: 1\n\n",
	} {
		if got[name] != want {
			t.Errorf("%s (-want +got):\n%s", name, cmp.Diff(want, got[name]))
		}
	}
	for _, name := range []string{"usr/share/doc/libx/changelog.gz", "usr/share/man/man1/x.1", "bin/dash", "var/lib/dpkg/info/mawk.control"} {
		if _, ok := got[name]; ok {
			t.Errorf("%s is there", name)
		}
	}
	status := got["var/lib/dpkg/status"]
	for _, want := range []string{
		"Package: dash\nStatus: install ok installed\nVersion: 1:2-3\n",
		fmt.Sprintf("Conffiles:\n /etc/mawk.conf %x\n", md5.Sum([]byte("conf\n"))),
	} {
		if !strings.Contains(status, want) {
			t.Errorf("status lacks %q:\n%s", want, status)
		}
	}
	for _, s := range []string{StageLists, StageDownload, StageUnpack} {
		if !stages[s] {
			t.Errorf("no progress for %s", s)
		}
	}
	if _, err := os.Stat("/tmp/maintainer-script-ran"); err == nil {
		t.Error("a maintainer script ran on the host")
	}
}

func TestUnavailable(t *testing.T) {
	closed(t)
	err := Rootfs(context.Background(), t.TempDir(), []string{"no-such-package"}, io.Discard, nil)
	if !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "no-such-package") {
		t.Errorf("error %v, want ErrUnavailable with apt's words", err)
	}
	for _, name := range []string{"-o", "a/b", "A", "a=1", "", "a b", "?x(y)"} {
		if err := Rootfs(context.Background(), t.TempDir(), []string{name}, io.Discard, nil); err == nil || errors.Is(err, ErrUnavailable) {
			t.Errorf("package %q: error %v", name, err)
		}
	}
}

func TestNoApt(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	if err := Rootfs(context.Background(), t.TempDir(), nil, io.Discard, nil); !errors.Is(err, ErrNoApt) {
		t.Errorf("Rootfs: %v", err)
	}
	if _, err := Kernel(context.Background(), t.TempDir(), nil); !errors.Is(err, ErrNoApt) {
		t.Errorf("Kernel: %v", err)
	}
}

func TestCancel(t *testing.T) {
	closed(t)
	for _, stage := range []string{StageLists, StageDownload, StageUnpack} {
		ctx, cancel := context.WithCancel(context.Background())
		err := Rootfs(ctx, t.TempDir(), []string{"mawk"}, io.Discard, func(now string, _, _ int64) {
			if now == stage {
				cancel()
			}
		})
		cancel()
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s: error %v, want canceled", stage, err)
		}
	}
}

// Who waits for the state of another process stops when told.
func TestLock(t *testing.T) {
	needApt(t)
	dir := t.TempDir()
	a, err := Open(context.Background(), dir)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 150*time.Millisecond)
	defer cancel()
	if _, err := Open(ctx, dir); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("second Open: %v", err)
	}
	a.Close()
	b, err := Open(context.Background(), dir)
	if err != nil {
		t.Fatal(err)
	}
	b.Close()
}

// A package's file that leads out of the root is refused.
func TestHostilePackage(t *testing.T) {
	r := newRootfs(io.Discard, nil)
	for _, h := range []tar.Header{
		{Typeflag: tar.TypeReg, Name: "../../etc/passwd"},
		{Typeflag: tar.TypeLink, Name: "a", Linkname: "../../etc/passwd"},
		{Typeflag: tar.TypeReg, Name: ".."},
	} {
		if err := r.add(&h, strings.NewReader("")); err == nil {
			t.Errorf("%+v was taken", h)
		}
	}
}

// A package that was exchanged after the lists were read is not used.
func TestTamperedPackage(t *testing.T) {
	r := closed(t)
	f, err := os.OpenFile(filepath.Join(r.dir, "mawk_1_amd64.deb"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	f.WriteAt([]byte("XX"), 300)
	f.Close()
	if err := Rootfs(context.Background(), t.TempDir(), []string{"mawk"}, io.Discard, nil); !errors.Is(err, ErrUnavailable) {
		t.Errorf("error %v, want ErrUnavailable", err)
	}
}

func TestKernel(t *testing.T) {
	r := newRepo(t)
	r.add("linux-image-virtual", "6.8.0.45", "Depends: linux-image-6.8.0-45-generic\n", nil)
	r.add("linux-image-6.8.0-45-generic", "6.8.0-45.45", "Depends: linux-modules-6.8.0-45-generic, kmod\n", map[string]string{
		"boot/vmlinuz-6.8.0-45-generic": "kernel", "boot/config-6.8.0-45-generic": "x",
	})
	r.add("linux-modules-6.8.0-45-generic", "6.8.0-45.45", "", map[string]string{
		"lib/modules/6.8.0-45-generic/kernel/a.ko": "module", "lib/modules/6.8.0-45-generic/build": "-> /etc", "usr/share/doc/x": "x",
	})
	r.add("kmod", "1", "", map[string]string{"usr/bin/kmod": "x"})
	work := t.TempDir()
	for range 2 { // the second finds it unpacked
		k, err := Kernel(context.Background(), work, nil)
		if err != nil {
			t.Fatal(err)
		}
		kernel, err := os.ReadFile(k.Vmlinuz)
		if err != nil || string(kernel) != "kernel" || k.Version != "6.8.0-45-generic" {
			t.Errorf("kernel %q %q, %v", kernel, k.Version, err)
		}
		module, err := os.ReadFile(filepath.Join(k.Modules, "kernel/a.ko"))
		if err != nil || string(module) != "module" {
			t.Errorf("module %q, %v", module, err)
		}
		if _, err := os.Lstat(filepath.Join(k.Modules, "build")); err == nil {
			t.Error("a link was unpacked")
		}
	}
	left, _ := filepath.Glob(filepath.Join(work, "kernel-tmp-*"))
	if len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestKernelMissing(t *testing.T) {
	newRepo(t)
	if _, err := Kernel(context.Background(), t.TempDir(), nil); !errors.Is(err, ErrUnavailable) {
		t.Errorf("error %v, want ErrUnavailable", err)
	}
}

func TestPlace(t *testing.T) {
	for name, want := range map[string]string{
		"./": "", ".": "", "./bin/": "usr/bin", "./bin/sh": "usr/bin/sh", "/lib/x": "usr/lib/x", "lib64/ld": "usr/lib64/ld",
		"./usr/bin/x": "usr/bin/x", "./binary/x": "binary/x", "etc/../bin/x": "usr/bin/x", "../x": "!", "./../../x": "!", "..": "!",
	} {
		got, err := place(name)
		if err != nil {
			got = "!"
		}
		if got != want {
			t.Errorf("place(%q) = %q, want %q", name, got, want)
		}
	}
}

func TestParseURIs(t *testing.T) {
	out := "Reading package lists...\n" +
		"'http://deb.example/pool/libcap2_2.66-4+deb12u3%2bb1_amd64.deb' libcap2_1%3a2.66-4+deb12u3+b1_amd64.deb 41000 SHA256:aa\n" +
		"'file:/srv/My%20Repo/x_1_all.deb' x_1_all.deb 7 \n"
	got, err := parseURIs(out, "/cache")
	want := []Package{
		{Name: "libcap2", Version: "1:2.66-4+deb12u3+b1", Arch: "amd64", Path: "/cache/libcap2_1%3a2.66-4+deb12u3+b1_amd64.deb", Size: 41000},
		{Name: "x", Version: "1", Arch: "all", Path: "/srv/My Repo/x_1_all.deb", Size: 7},
	}
	if d := cmp.Diff(want, got); d != "" || err != nil {
		t.Errorf("error %v (-want +got):\n%s", err, d)
	}
	for _, bad := range []string{"", "'http://x' ../../x_1_all.deb 7\n", "'http://x' x.deb 7\n", "'http://x' x_1_all.deb -7\n", "'http://x\n"} {
		if got, err := parseURIs(bad, "/cache"); err == nil {
			t.Errorf("parseURIs(%q) = %v", bad, got)
		}
	}
}

// The hash is OpenSSL's, also of subjects in odd string types and spacing.
func TestSubjectHash(t *testing.T) {
	if _, err := exec.LookPath("openssl"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("openssl is not installed")
		}
		t.Skip("skipped: openssl is not installed to compare with")
	}
	name := asn1.ObjectIdentifier{2, 5, 4, 3}
	org := asn1.ObjectIdentifier{2, 5, 4, 10}
	type set = pkix.RelativeDistinguishedNameSET
	raw := func(tag int, b string) asn1.RawValue { return asn1.RawValue{Tag: tag, Bytes: []byte(b)} }
	for i, rdns := range []pkix.RDNSequence{
		{set{{Type: name, Value: "Plain Root CA"}}},
		{set{{Type: org, Value: "  Many   Spaces\t Inc.  "}}, set{{Type: name, Value: "UPPER lower"}}},
		{set{{Type: name, Value: "Főtanúsítvány É"}}},
		{set{{Type: name, Value: raw(asn1.TagT61String, "Latin \xe9 A")}}},
		{set{{Type: name, Value: raw(asn1.TagBMPString, "\x00B\x00i\x00g\x01\x51")}}},
		{set{{Type: name, Value: "Z"}, {Type: org, Value: "A"}}, set{{Type: org, Value: raw(asn1.TagIA5String, "IA5 X")}}},
		{},
	} {
		subject, err := asn1.Marshal(rdns)
		if err != nil {
			t.Fatal(err)
		}
		key, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), RawSubject: subject, NotAfter: time.Now().Add(time.Hour)}
		der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("openssl", "x509", "-noout", "-subject_hash")
		cmd.Stdin = bytes.NewReader(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
		want, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		if got, err := subjectHash(der); err != nil || got != strings.TrimSpace(string(want)) {
			t.Errorf("subject %d: %s, %v, openssl says %s", i, got, err, want)
		}
	}
}
