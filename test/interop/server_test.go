//go:build linux

package interop

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cutoutdev/cutout/internal/testnet"
	"github.com/cutoutdev/cutout/internal/testnet/boundary"
)

// certificate writes a certificate and its key as files.
func certificate(t *testing.T, ca *testnet.CA, name string) (certFile, keyFile string) {
	t.Helper()
	cert, err := ca.Cert(name)
	if err != nil {
		t.Fatal(err)
	}
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	certFile, keyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for file, block := range map[string]*pem.Block{
		certFile: {Type: "CERTIFICATE", Bytes: cert.Certificate[0]}, keyFile: {Type: "PRIVATE KEY", Bytes: key},
	} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return certFile, keyFile
}

// Git clones from and pushes to a real git server with a placeholder as its
// token, in the URL and from a credential helper.
func TestGit(t *testing.T) {
	need(t, "git")
	backend, err := testnet.GitServer(t.TempDir(), "repo", "me", boundary.Value)
	if err != nil {
		t.Fatal(err)
	}
	for _, protocol := range []string{"HTTP/1.1", "HTTP/2.0"} {
		t.Run(protocol, func(t *testing.T) {
			g := newGuest(t, nil)
			g.Answer(backend.ServeHTTP)
			branch := "b" + protocol[5:6]
			work := fmt.Sprintf(`set -e
git config --global http.version %s
git config --global user.email me@good.test
git config --global user.name me
git config --global protocol.version 2
git clone -q "https://me:$API_KEY@good.test/repo.git" work
cd work
git checkout -q -b %s
head -c 3000000 /dev/urandom >big
git add big
git commit -q -m first
git push -q origin HEAD
cd ..
git config --global credential.helper '!f() { echo username=me; echo "password=$API_KEY"; }; f'
git clone -q -b %[2]s https://good.test/repo.git again
cmp work/big again/big
echo done
`, protocol[:6]+map[string]string{"HTTP/1.1": ".1", "HTTP/2.0": ""}[protocol], branch)
			out, err := g.run(work, "sh")
			if err != nil || !strings.HasSuffix(out, "done\n") {
				t.Fatalf("%v\n%s", err, out)
			}
			g.clean(t, out)
			carried := 0
			for _, r := range g.Good.Requests() {
				if user, token, ok := basic(r); ok && user == "me" && token == boundary.Value && r.Proto == protocol {
					carried++
				}
			}
			if carried < 5 {
				t.Errorf("%d requests with the value", carried)
			}
		})
	}
}

func basic(r testnet.Request) (user, token string, ok bool) {
	return (&http.Request{Header: r.Header}).BasicAuth()
}

// nginx, another server than Go's: compressed answers are searched, HTTP/2
// and HTTP/1 alike, and its log says what it got.
func TestNginx(t *testing.T) {
	need(t, "nginx", "curl")
	for protocol, listen := range map[string]string{"--http1.1": "ssl", "--http2": "ssl http2"} {
		t.Run(protocol[2:], func(t *testing.T) {
			g := newGuest(t, nil)
			log := startNginx(t, g, listen)
			for _, tt := range []struct {
				name string
				args []string
				want string
			}{
				{"an echo", []string{"https://good.test/echo"}, "Bearer $MSB_API_KEY"},
				{"a compressed echo", []string{"--compressed", "https://good.test/gzip"}, "Bearer $MSB_API_KEY"},
				{"a file", []string{"https://good.test/file"}, strings.Repeat("line\n", 10)},
				{"a file, compressed", []string{"--compressed", "https://good.test/file"}, strings.Repeat("line\n", 10)},
				{"an error page", []string{"https://good.test/absent"}, "404 Not Found"},
				{"upload", []string{"-d", "x=1", "https://good.test/echo"}, "Bearer $MSB_API_KEY"},
			} {
				out, err := g.run("", "curl", append([]string{"-sS", protocol, "-H", auth}, tt.args...)...)
				if err != nil || !strings.Contains(out, tt.want) {
					t.Errorf("%s: %v\n%.500s", tt.name, err, out)
				}
				g.clean(t, out)
			}
			resumed(t, g, protocol)
			text, err := os.ReadFile(log)
			if n := strings.Count(string(text), "Bearer "+boundary.Value); err != nil || n != 8 {
				t.Errorf("%d requests with the value, %v:\n%s", n, err, text)
			}
		})
	}
}

// resumed goes on with a download that was broken off, and then with one that
// was not.
func resumed(t *testing.T, g *guest, protocol string) {
	t.Helper()
	file, whole := filepath.Join(t.TempDir(), "part"), strings.Repeat("line\n", 10000)
	if err := os.WriteFile(file, []byte(whole[:20_001]), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		out, err := g.run("", "curl", "-sS", protocol, "-H", auth, "-C", "-", "-o", file, "https://good.test/file")
		if got, _ := os.ReadFile(file); err != nil || string(got) != whole {
			t.Errorf("resumed: %v\n%s\n%d bytes", err, out, len(got))
		}
	}
}

// startNginx makes good.test an nginx and returns its log.
func startNginx(t *testing.T, g *guest, listen string) (log string) {
	t.Helper()
	dir := t.TempDir()
	log = filepath.Join(dir, "log")
	cert, key := certificate(t, g.CA, "good.test")
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := free.Addr().String()
	free.Close()
	if err := os.WriteFile(filepath.Join(dir, "file"), []byte(strings.Repeat("line\n", 10000)), 0o644); err != nil {
		t.Fatal(err)
	}
	conf := fmt.Sprintf(`daemon off; worker_processes 1; user root; pid %[1]s/pid; error_log stderr crit;
events {}
http {
	log_format got '$server_protocol $http_authorization'; access_log %[1]s/log got;
	client_body_temp_path %[1]s/body; proxy_temp_path %[1]s/p; fastcgi_temp_path %[1]s/f; uwsgi_temp_path %[1]s/u; scgi_temp_path %[1]s/s;
	gzip on; gzip_min_length 1; gzip_types *; default_type text/plain;
	server {
		listen %[2]s %[3]s; ssl_certificate %[4]s; ssl_certificate_key %[5]s; root %[1]s;
		location /echo { gzip off; return 200 "$http_authorization\n"; }
		location /gzip { return 200 "$http_authorization\n"; }
	}
}
`, dir, addr, listen, cert, key)
	if err := os.WriteFile(filepath.Join(dir, "conf"), []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	server := exec.Command("nginx", "-c", filepath.Join(dir, "conf"), "-e", "stderr")
	server.Stderr = os.Stderr
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Process.Signal(os.Interrupt); server.Wait() })
	for range 200 {
		if c, err := net.Dial("tcp", addr); err == nil {
			c.Close()
			g.Routes.Set(netip.AddrPortFrom(boundary.GoodAddr, 443), netip.MustParseAddrPort(addr))
			return log
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal("nginx does not listen")
	return ""
}
