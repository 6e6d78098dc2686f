package debian

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The default image for real: it downloads some 60 MB and runs what is in it.
func TestDefaultImage(t *testing.T) {
	if os.Getenv("CUTOUT_TEST_DEBIAN") == "" {
		t.Skip("skipped: set CUTOUT_TEST_DEBIAN to a directory for downloads (or to 1) to build the default image, 60 MB")
	}
	needApt(t)
	work := t.TempDir()
	if d := os.Getenv("CUTOUT_TEST_DEBIAN"); filepath.IsAbs(d) {
		work = d
	}
	tarball := filepath.Join(t.TempDir(), "root.tar")
	f, err := os.Create(tarball)
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	err = Rootfs(context.Background(), work, nil, f, nil)
	took := time.Since(start)
	if e := f.Close(); err == nil {
		err = e
	}
	if err != nil {
		t.Fatal(err)
	}
	st, _ := os.Stat(tarball)
	t.Logf("default image: %d MB in %v", st.Size()>>20, took.Round(100*time.Millisecond))
	if os.Geteuid() != 0 {
		t.Skip("skipped: running what is in the image needs root for chroot")
	}
	root := t.TempDir()
	if out, err := exec.Command("tar", "--numeric-owner", "--xattrs", "-C", root, "-xpf", tarball).CombinedOutput(); err != nil {
		t.Fatalf("tar: %v\n%s", err, out)
	}
	for name, test := range map[string]struct{ command, want string }{
		"curl":         {"curl --version", "https"},
		"python":       {"python3 -c 'import ssl, urllib.request, json, sqlite3, ctypes, hashlib; print(len(ssl.create_default_context().get_ca_certs()) > 100)'", "True"},
		"git":          {"cd /tmp && git init -q x && cd x && git -c user.name=n -c user.email=e commit -q --allow-empty -m message && git log --oneline", "message"},
		"openssl":      {"openssl verify -CApath /etc/ssl/certs $(ls /etc/ssl/certs/ISRG*X1.pem)", "OK"},
		"dpkg":         {"dpkg -l python3", "ii"},
		"dpkg audit":   {"dpkg --audit && dpkg --configure -a && echo clean", "clean"},
		"apt":          {"apt-get --version && apt-get check", "apt"},
		"awk":          {"awk 'BEGIN { print 1 + 1 }'", "2"},
		"alternatives": {"update-alternatives --query awk", "Status: auto"},
		"users":        {"id _apt && id nobody && su nobody -s /bin/sh -c 'id -un'", "nobody"},
		"useradd":      {"useradd -m tester && echo tester:x | chpasswd && id tester", "tester"},
		"tmp":          {"stat -c %a /tmp /var/tmp", "1777\n1777"},
		"layout":       {"readlink /bin /lib64 /var/run", "usr/bin\nusr/lib64\n/run"},
		"roots":        {"update-ca-certificates --fresh 2>&1 | grep -c 'removed; done'", "1"},
		"ldconfig":     {"ldconfig && ls /etc/ld.so.cache", "ld.so.cache"},
		"processes":    {"ps --version && free --version", "procps"},
	} {
		t.Run(name, func(t *testing.T) {
			out, err := exec.Command("unshare", "-m", "env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root",
				"sh", "-c", `mount -t proc proc "$0/proc" && mount --bind /dev "$0/dev" && exec chroot "$0" sh -c "$1"`, root, test.command).CombinedOutput()
			if err != nil || !strings.Contains(string(out), test.want) {
				t.Errorf("%s: %v, want %q in\n%s", test.command, err, test.want, out)
			}
		})
	}
}
