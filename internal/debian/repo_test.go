package debian

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// needApt skips where there is no apt, and fails where tests must not be lost.
func needApt(t *testing.T) {
	t.Helper()
	for _, tool := range []string{"apt-get", "dpkg-deb"} {
		if _, err := exec.LookPath(tool); err != nil {
			if os.Getenv("CI") != "" {
				t.Fatalf("%s is not installed", tool)
			}
			t.Skipf("skipped: %s is not installed, this machine has no packages to test with", tool)
		}
	}
}

// A repo is a directory of packages that apt uses instead of the host's.
type repo struct {
	t     *testing.T
	dir   string
	index strings.Builder
}

// newRepo makes the tests' apt read only dir, and whatever other sources.
func newRepo(t *testing.T, sources ...string) *repo {
	t.Helper()
	needApt(t)
	r := &repo{t: t, dir: t.TempDir()}
	list := filepath.Join(r.dir, "sources.list")
	conf := filepath.Join(r.dir, "apt.conf")
	sources = append([]string{"deb [trusted=yes] file:" + r.dir + " ./"}, sources...)
	write(t, list, strings.Join(sources, "\n")+"\n")
	write(t, conf, fmt.Sprintf(`
Dir::Etc::main "/dev/null";
Dir::Etc::parts "/dev/null";
Dir::Etc::sourcelist "%s";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
Acquire::http::Timeout "2";
`, list))
	t.Setenv("APT_CONFIG", conf)
	r.publish()
	return r
}

func write(t *testing.T, path, body string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(body), 0o644); err != nil {
		t.Fatal(err)
	}
}

// add publishes a package: control fields beyond the usual ones, and files by
// name; those below DEBIAN/ are control files, "-> x" makes a symbolic link.
func (r *repo) add(name, version, fields string, files map[string]string) {
	r.t.Helper()
	root := filepath.Join(r.dir, "build", name)
	control := fmt.Sprintf("Package: %s\nVersion: %s\nArchitecture: amd64\nMaintainer: Test <test@example.test>\nDescription: test\n%s", name, version, fields)
	write(r.t, filepath.Join(root, "DEBIAN/control"), control)
	for f, body := range files {
		path := filepath.Join(root, f)
		if to, ok := strings.CutPrefix(body, "-> "); ok {
			os.MkdirAll(filepath.Dir(path), 0o755)
			if err := os.Symlink(to, path); err != nil {
				r.t.Fatal(err)
			}
			continue
		}
		write(r.t, path, body)
		if base := filepath.Base(f); base == "postinst" || base == "preinst" || strings.Contains(f, "bin/") {
			os.Chmod(path, 0o755)
		}
	}
	deb := name + "_" + strings.ReplaceAll(version, ":", "%3a") + "_amd64.deb"
	out, err := exec.Command("dpkg-deb", "--root-owner-group", "-Zgzip", "-b", root, filepath.Join(r.dir, deb)).CombinedOutput()
	if err != nil {
		r.t.Fatalf("dpkg-deb: %v\n%s", err, out)
	}
	st, err := os.Stat(filepath.Join(r.dir, deb))
	if err != nil {
		r.t.Fatal(err)
	}
	sum, err := exec.Command("sha256sum", filepath.Join(r.dir, deb)).Output()
	if err != nil {
		r.t.Fatal(err)
	}
	fmt.Fprintf(&r.index, "%sFilename: ./%s\nSize: %d\nSHA256: %s\n\n", control, deb, st.Size(), strings.Fields(string(sum))[0])
	r.publish()
}

func (r *repo) publish() { write(r.t, filepath.Join(r.dir, "Packages"), r.index.String()) }
