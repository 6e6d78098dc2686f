package agent

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/cutoutdev/cutout/internal/guest/wire"
	"github.com/google/go-cmp/cmp"
)

// What the agent does to an image's files is tested with a directory as the
// root, in a process of its own.
const rootVariable = "CUTOUT_TEST_ROOT"

func TestMain(m *testing.M) {
	if root := os.Getenv(rootVariable); root != "" {
		if err := inside(root, os.Args[1], os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// inside is the process that has root as its root.
func inside(root, what string, args []string) error {
	if err := syscall.Chroot(root); err != nil {
		return err
	}
	if err := os.Chdir("/"); err != nil {
		return err
	}
	out := json.NewEncoder(os.Stdout)
	switch what {
	case "trust":
		var t trust
		need, err := t.add([]byte("CA\n"))
		if err == nil && need {
			err = t.addRoots([]byte("ROOTS"))
		}
		out.Encode(t.environ())
		return err
	case "names":
		return writeNames(wire.Config{Hostname: "box", Net: &wire.Net{
			Addr4: netip.MustParsePrefix("10.0.0.2/24"), Gateway4: netip.MustParseAddr("10.0.0.1"),
			DNS: []netip.Addr{netip.MustParseAddr("10.0.0.53")},
		}})
	case "user":
		u, err := lookup(args[0])
		out.Encode([]any{u.uid, u.gid, u.groups, u.home})
		return err
	}
	return fmt.Errorf("nothing called %s", what)
}

// enter runs inside in a new process, as root of a user namespace if need be.
func enter(t *testing.T, root, what string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", append([]string{what}, args...)...)
	cmd.Env = []string{rootVariable + "=" + root}
	if os.Getuid() != 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags:  syscall.CLONE_NEWUSER,
			UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
		}
	}
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if exit, ok := err.(*exec.ExitError); err != nil && (!ok || strings.Contains(stderr.String(), "operation not permitted")) {
		t.Skipf("skipped: needs root or user namespaces (%v, %v)", err, exit)
	}
	if err != nil {
		err = fmt.Errorf("%s", strings.TrimSpace(stderr.String()))
	}
	return string(out), err
}

// tree makes a directory: names that end in / are directories, contents that
// begin with -> are links, "|" is a pipe.
func tree(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, content := range files {
		file := filepath.Join(root, name)
		os.MkdirAll(filepath.Dir(file), 0o755)
		var err error
		switch link, isLink := strings.CutPrefix(content, "->"); {
		case strings.HasSuffix(name, "/"):
			err = os.MkdirAll(file, 0o755)
		case isLink:
			err = os.Symlink(link, file)
		case content == "|":
			err = syscall.Mkfifo(file, 0o644)
		default:
			err = os.WriteFile(file, []byte(content), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// contents reads files below root without leaving it.
func contents(t *testing.T, root string, names []string) map[string]string {
	t.Helper()
	r, err := os.OpenRoot(root)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	got := make(map[string]string)
	for _, name := range names {
		if fi, err := r.Lstat(name); err == nil && fi.Mode().IsRegular() {
			b, _ := r.ReadFile(name)
			got[name] = string(b)
		}
	}
	return got
}

func TestTrust(t *testing.T) {
	const (
		debian = "etc/ssl/certs/ca-certificates.crt"
		redhat = "etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem"
		tls    = "etc/pki/tls/certs/ca-bundle.crt"
		alpine = "etc/ssl/cert.pem"
		suse   = "var/lib/ca-certificates/ca-bundle.pem"
		own    = "usr/local/share/ca-certificates/cutout.crt"
	)
	for name, test := range map[string]struct {
		image  map[string]string
		bundle string
		want   map[string]string
	}{
		"debian": {map[string]string{debian: "A\n"}, debian, map[string]string{debian: "A\nCA\n", own: "CA\n"}},
		"no end of line": {
			map[string]string{debian: "A"},
			debian,
			map[string]string{debian: "A\nCA\n", own: "CA\n"},
		},
		"red hat": {
			map[string]string{redhat: "A\n", tls: "->/" + redhat, "etc/pki/ca-trust/source/anchors/": ""},
			tls,
			map[string]string{redhat: "A\nCA\n", own: "CA\n", "etc/pki/ca-trust/source/anchors/cutout.pem": "CA\n"},
		},
		"fedora, several names": {
			map[string]string{redhat: "A\n", tls: "->/" + redhat, debian: "->/" + redhat, alpine: "->../pki/ca-trust/extracted/pem/tls-ca-bundle.pem"},
			debian,
			map[string]string{redhat: "A\nCA\n", own: "CA\n"},
		},
		"alpine": {
			map[string]string{alpine: "A\n", debian: "->../cert.pem"},
			debian,
			map[string]string{alpine: "A\nCA\n", own: "CA\n"},
		},
		"two that differ": {
			map[string]string{alpine: "A\n", debian: "B\n"},
			debian,
			map[string]string{alpine: "A\nCA\n", debian: "B\nCA\n", own: "CA\n"},
		},
		"suse": {
			map[string]string{suse: "A\n", "etc/ssl/ca-bundle.pem": "->/" + suse, "etc/pki/trust/anchors/": ""},
			"etc/ssl/ca-bundle.pem",
			map[string]string{suse: "A\nCA\n", own: "CA\n", "etc/pki/trust/anchors/cutout.pem": "CA\n"},
		},
		"none":       {nil, debian, map[string]string{debian: "ROOTS\nCA\n", own: "CA\n"}},
		"empty":      {map[string]string{debian: ""}, debian, map[string]string{debian: "ROOTS\nCA\n", own: "CA\n"}},
		"a pipe":     {map[string]string{debian: "|"}, debian, map[string]string{debian: "ROOTS\nCA\n", own: "CA\n"}},
		"a loop":     {map[string]string{debian: "->ca-certificates.crt"}, debian, map[string]string{debian: "ROOTS\nCA\n", own: "CA\n"}},
		"dangling":   {map[string]string{debian: "->/nowhere"}, debian, map[string]string{debian: "ROOTS\nCA\n", own: "CA\n"}},
		"out of it":  {map[string]string{debian: "->../../../../../../../../../../../../../victim"}, debian, map[string]string{debian: "ROOTS\nCA\n", own: "CA\n"}},
		"linked dir": {map[string]string{"etc/ssl/certs": "->/other", "other/ca-certificates.crt": "A\n"}, debian, map[string]string{"other/ca-certificates.crt": "A\nCA\n", own: "CA\n"}},
	} {
		t.Run(name, func(t *testing.T) {
			root := tree(t, test.image)
			out, err := enter(t, root, "trust")
			if err != nil {
				t.Fatal(err)
			}
			all := []string{debian, redhat, tls, alpine, suse, own, "etc/pki/ca-trust/source/anchors/cutout.pem", "etc/pki/trust/anchors/cutout.pem", "other/ca-certificates.crt", "nowhere", "victim"}
			if diff := cmp.Diff(test.want, contents(t, root, all)); diff != "" {
				t.Error(diff)
			}
			if !strings.Contains(out, `"SSL_CERT_FILE=/`+test.bundle+`"`) || !strings.Contains(out, `"NODE_EXTRA_CA_CERTS=/`+own+`"`) {
				t.Error(out)
			}
		})
	}
}

func TestNames(t *testing.T) {
	root := tree(t, map[string]string{
		"etc/resolv.conf": "->/victim", "victim": "untouched", "etc/hosts": "|", "etc/hostname": "->../../../../../../../etc/hostname",
	})
	if _, err := enter(t, root, "names"); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"etc/resolv.conf": "nameserver 10.0.0.53\n", "etc/hostname": "box\n", "victim": "untouched",
		"etc/hosts": "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n10.0.0.2\tbox\n",
	}
	if diff := cmp.Diff(want, contents(t, root, []string{"etc/resolv.conf", "etc/hosts", "etc/hostname", "victim"})); diff != "" {
		t.Error(diff)
	}
}

func TestLookup(t *testing.T) {
	root := tree(t, map[string]string{
		"etc/passwd": "root:x:0:0:root:/root:/bin/sh\n#bob:x:1:1::/:/\nbob:x:1000:1001:Bob:/home/bob:/bin/sh\nshort:x\nbad:x:-1:70000000000::/:/\nneg:x:x:x::/:/\n99:x:5:6::/odd:/\nlast:x:7:8::/end:/bin/sh",
		"etc/group":  "root:x:0:\nbob:x:1001:bob\naudio:x:29:alice,bob\nvideo:x:44:bob\nroots:x:50:root\n",
	})
	for spec, want := range map[string]string{
		"":          `[0,0,[0,50],"/root"]`,
		"root":      `[0,0,[0,50],"/root"]`,
		"bob":       `[1000,1001,[1001,29,44],"/home/bob"]`,
		"1000":      `[1000,1001,[1001,29,44],"/home/bob"]`,
		"1000:29":   `[1000,29,null,"/home/bob"]`,
		"bob:video": `[1000,44,null,"/home/bob"]`,
		"bob:7777":  `[1000,7777,null,"/home/bob"]`,
		"4242":      `[4242,0,[0],"/"]`,
		"last":      `[7,8,[8],"/end"]`,
	} {
		if got, err := enter(t, root, "user", spec); strings.TrimSpace(got) != want || err != nil {
			t.Errorf("%q: %s, %v", spec, got, err)
		}
	}
	for _, spec := range []string{"nobody", "#bob", "short", "bad", "neg", "-1", "4294967296", "bob:none", "bob:-1", "bob:"} {
		if got, err := enter(t, root, "user", spec); err == nil {
			t.Errorf("%q is %s", spec, got)
		}
	}
	if got, err := enter(t, tree(t, nil), "user", "0"); strings.TrimSpace(got) != `[0,0,[0],"/root"]` || err != nil {
		t.Errorf("no files: %s, %v", got, err)
	}
}
