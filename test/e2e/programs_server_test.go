//go:build linux

package e2e

import (
	"archive/zip"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cutoutdev/cutout/internal/testnet"
)

// serveShell starts an sshd that runs cat for whoever has the key that is
// returned.
func (n *internet) serveShell() (key string) {
	n.t.Helper()
	dir := n.t.TempDir()
	for _, name := range []string{"host", "user"} {
		out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", filepath.Join(dir, name)).CombinedOutput()
		if err != nil {
			n.t.Fatalf("%v: %s", err, out)
		}
	}
	public := n.read(filepath.Join(dir, "user.pub"))
	n.write(filepath.Join(dir, "keys"), `restrict,command="cat" `+public)
	n.write(filepath.Join(dir, "conf"), fmt.Sprintf(`ListenAddress %s:22
HostKey %s/host
AuthorizedKeysFile %[2]s/keys
PermitRootLogin forced-commands-only
PasswordAuthentication no
KbdInteractiveAuthentication no
StrictModes no
PidFile none
`, world4, dir))
	if err := os.MkdirAll("/run/sshd", 0o755); err != nil { // which sshd wants to be there
		n.t.Fatal(err)
	}
	n.serve(22, "/usr/sbin/sshd", "-D", "-e", "-f", filepath.Join(dir, "conf"))
	return n.read(filepath.Join(dir, "user"))
}

// serveApt starts an nginx with a repository of one package, cutout-greeting.
func (n *internet) serveApt() {
	n.t.Helper()
	dir, tree := n.t.TempDir(), n.t.TempDir()
	control := "Package: cutout-greeting\nVersion: 1.0\nArchitecture: all\nMaintainer: nobody <nobody@example.test>\nDescription: greets\n"
	for _, sub := range []string{"DEBIAN", "usr/bin"} {
		if err := os.MkdirAll(filepath.Join(tree, sub), 0o755); err != nil {
			n.t.Fatal(err)
		}
	}
	n.write(filepath.Join(tree, "DEBIAN", "control"), control)
	n.write(filepath.Join(tree, "usr/bin/cutout-greeting"), "#!/bin/sh\necho hello from a package\n")
	for _, step := range []error{
		os.Chmod(tree, 0o755), os.Chmod(dir, 0o755), os.Chmod(filepath.Join(tree, "usr/bin/cutout-greeting"), 0o755),
		exec.Command("dpkg-deb", "--root-owner-group", "-b", tree, filepath.Join(dir, "greeting.deb")).Run(),
	} {
		if step != nil {
			n.t.Fatal(step)
		}
	}
	deb := n.read(filepath.Join(dir, "greeting.deb"))
	packages := fmt.Sprintf("%sFilename: ./greeting.deb\nSize: %d\nSHA256: %x\n", control, len(deb), sha256.Sum256([]byte(deb)))
	n.write(filepath.Join(dir, "Packages"), packages)
	n.write(filepath.Join(dir, "Release"), fmt.Sprintf("Date: Thu, 01 Jan 2026 00:00:00 UTC\nSHA256:\n %x %d Packages\n", sha256.Sum256([]byte(packages)), len(packages)))
	n.write(filepath.Join(dir, "conf"), fmt.Sprintf(`daemon off; worker_processes 1; user root; pid %[1]s/pid; error_log stderr crit;
events {}
http {
	access_log off; default_type application/octet-stream;
	client_body_temp_path %[1]s/body; proxy_temp_path %[1]s/p; fastcgi_temp_path %[1]s/f; uwsgi_temp_path %[1]s/u; scgi_temp_path %[1]s/s;
	server { listen 80; listen [::]:80; root %[1]s; }
}
`, dir))
	n.serve(80, "nginx", "-c", filepath.Join(dir, "conf"), "-e", "stderr")
}

// serveUploads takes what comes to port 2121 until its end, and then says how
// much it was, as FTP's data connections do.
func (n *internet) serveUploads() {
	n.t.Helper()
	var l net.Listener
	n.in(n.world, func() (err error) {
		l, err = net.Listen("tcp", netip.AddrPortFrom(world4, 2121).String())
		return err
	})
	n.t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				sum := sha256.New()
				size, err := io.Copy(sum, c)
				fmt.Fprintf(c, "226 %d %x %v\n", size, sum.Sum(nil), err)
			}()
		}
	}()
}

// serveIndexes starts pypi.example.test and npm.example.test, whose every
// request needs the value: as a password, as a bearer token.
func (n *internet) serveIndexes(ca *testnet.CA, value string) {
	n.t.Helper()
	cert, err := ca.Cert("pypi.example.test", "npm.example.test")
	if err != nil {
		n.t.Fatal(err)
	}
	wheel, tarball := wheel(n.t), bytes.Repeat([]byte("an npm package\n"), 50_000)
	integrity := sha512.Sum512(tarball)
	mux := http.NewServeMux()
	mux.HandleFunc("pypi.example.test/simple/greeting/", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, `<a href="/greeting-1.0-py3-none-any.whl#sha256=%x">greeting-1.0-py3-none-any.whl</a>`, sha256.Sum256(wheel))
	})
	mux.HandleFunc("pypi.example.test/greeting-1.0-py3-none-any.whl", func(w http.ResponseWriter, r *http.Request) { w.Write(wheel) })
	mux.HandleFunc("npm.example.test/greeting", func(w http.ResponseWriter, r *http.Request) {
		json.NewEncoder(w).Encode(map[string]any{
			"tarball": "https://npm.example.test/greeting/-/greeting-1.0.0.tgz", "sha512": hex.EncodeToString(integrity[:]),
		})
	})
	mux.HandleFunc("npm.example.test/greeting/-/greeting-1.0.0.tgz", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		z := gzip.NewWriter(w)
		z.Write(tarball)
		z.Close()
	})
	allowed := map[string]bool{
		"Bearer " + value: true,
		"Basic " + base64.StdEncoding.EncodeToString([]byte("me:"+value)): true,
	}
	var u *testnet.Upstream
	n.in(n.world, func() (err error) {
		u, err = testnet.StartUpstream(testnet.UpstreamConfig{
			Addr: netip.AddrPortFrom(world4, 443), Cert: &cert, HTTP1: true, // as both programs speak
			Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if !allowed[r.Header.Get("Authorization")] {
					http.Error(w, "who are you?", http.StatusUnauthorized)
					return
				}
				mux.ServeHTTP(w, r)
			}),
		})
		return err
	})
	n.t.Cleanup(func() { u.Close() })
}

// wheel is a Python package with one module.
func wheel(t *testing.T) []byte {
	t.Helper()
	var out bytes.Buffer
	z := zip.NewWriter(&out)
	for _, f := range []struct{ name, text string }{
		{"greeting.py", "text = 'hello from a wheel'\n"},
		{"greeting-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: greeting\nVersion: 1.0\n"},
		{"greeting-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"},
		{"greeting-1.0.dist-info/RECORD", "greeting.py,,\ngreeting-1.0.dist-info/METADATA,,\ngreeting-1.0.dist-info/WHEEL,,\ngreeting-1.0.dist-info/RECORD,,\n"},
	} {
		w, err := z.Create(f.name)
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(w, f.text)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func (n *internet) read(path string) string {
	n.t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		n.t.Fatal(err)
	}
	return string(text)
}

func (n *internet) write(path, text string) {
	n.t.Helper()
	if err := os.WriteFile(path, []byte(strings.TrimLeft(text, "\n")), 0o644); err != nil {
		n.t.Fatal(err)
	}
}
