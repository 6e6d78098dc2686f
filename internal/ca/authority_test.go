package ca

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cutoutdev/cutout/internal/hostname"
)

func anyName(hostname.Name) bool { return true }

func newAuthority(t testing.TB, cfg Config) *Authority {
	t.Helper()
	a, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func leaf(t testing.TB, a *Authority, name hostname.Name) *tls.Certificate {
	t.Helper()
	c, err := a.Leaf(name)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestLeafOnlyForAllowedNames(t *testing.T) {
	a := newAuthority(t, Config{Allow: func(n hostname.Name) bool { return n == "good.test" }})
	if _, err := a.Leaf("good.test"); err != nil {
		t.Errorf("good.test: %v", err)
	}
	for _, name := range []hostname.Name{"evil.test", "a.good.test", ""} {
		if _, err := a.Leaf(name); !errors.Is(err, ErrNotAllowed) {
			t.Errorf("%q: error = %v", name, err)
		}
	}
	if _, err := newAuthority(t, Config{}).Leaf("good.test"); !errors.Is(err, ErrNotAllowed) {
		t.Errorf("without Allow: error = %v", err)
	}
}

func TestAllowIsAskedForCachedLeafs(t *testing.T) {
	allowed := true
	a := newAuthority(t, Config{Allow: func(hostname.Name) bool { return allowed }})
	leaf(t, a, "good.test")
	allowed = false
	if _, err := a.Leaf("good.test"); !errors.Is(err, ErrNotAllowed) {
		t.Errorf("a name that is no longer allowed: error = %v", err)
	}
}

func TestLeafIsForOneNameAndTime(t *testing.T) {
	now := time.Now()
	a := newAuthority(t, Config{Allow: anyName, Now: func() time.Time { return now }})
	long := hostname.Name(strings.Repeat("a", 60) + "." + strings.Repeat("b", 60) + ".test")
	for _, name := range []hostname.Name{"good.test", long} {
		c := leaf(t, a, name).Leaf
		if !slices.Equal(c.DNSNames, []string{string(name)}) || len(c.IPAddresses) != 0 || c.IsCA {
			t.Errorf("%s: names %q, CA %v", name, c.DNSNames, c.IsCA)
		}
		if d := now.Sub(c.NotBefore); d < 24*time.Hour-time.Second || d > 24*time.Hour+time.Second {
			t.Errorf("%s: valid from %v ago", name, d)
		}
		if !c.NotAfter.Equal(a.NotAfter()) {
			t.Errorf("%s: expires %v, root %v", name, c.NotAfter, a.NotAfter())
		}
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(a.CertPEM())
		for _, at := range []time.Time{now.Add(-23 * time.Hour), now, now.Add(29 * 24 * time.Hour)} {
			if _, err := c.Verify(x509.VerifyOptions{Roots: roots, DNSName: string(name), CurrentTime: at}); err != nil {
				t.Errorf("%s at %v: %v", name, at, err)
			}
		}
	}
	now = now.Add(31 * 24 * time.Hour)
	if _, err := a.Leaf("good.test"); err == nil {
		t.Error("an expired authority still gave a leaf")
	}
}

func TestAuthoritiesDoNotTrustEachOther(t *testing.T) {
	a, b := newAuthority(t, Config{Allow: anyName}), newAuthority(t, Config{Allow: anyName})
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(b.CertPEM())
	if _, err := leaf(t, a, "good.test").Leaf.Verify(x509.VerifyOptions{Roots: roots}); err == nil {
		t.Error("a leaf of one sandbox verified in another")
	}
}

func TestCacheIsCappedAndKeepsTheRecent(t *testing.T) {
	full := 0
	a := newAuthority(t, Config{Allow: anyName, MaxLeafs: 3, Full: func() { full++ }})
	kept := leaf(t, a, "kept.test")
	for i := range 20 {
		leaf(t, a, hostname.Name(fmt.Sprintf("n%d.test", i)))
		if leaf(t, a, "kept.test") != kept {
			t.Fatal("the leaf used last was dropped")
		}
	}
	if n := len(a.leafs.names); n != 3 || a.leafs.order.Len() != 3 {
		t.Errorf("%d leafs are kept", n)
	}
	if full != 18 {
		t.Errorf("full was told %d times", full)
	}
}

func TestConcurrentCallersShareOneSignature(t *testing.T) {
	a := newAuthority(t, Config{Allow: anyName})
	var wg sync.WaitGroup
	got := make([]*tls.Certificate, 32)
	for i := range got {
		wg.Go(func() { got[i], _ = a.Leaf("good.test") })
	}
	wg.Wait()
	for _, c := range got {
		if c == nil || c != got[0] {
			t.Fatal("callers got different certificates")
		}
	}
}

// files writes root and leaf as PEM files.
func files(t *testing.T, a *Authority, name hostname.Name) (root, cert string) {
	dir := t.TempDir()
	root, cert = filepath.Join(dir, "root.pem"), filepath.Join(dir, "leaf.pem")
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: leaf(t, a, name).Certificate[0]})
	for path, text := range map[string][]byte{root: a.CertPEM(), cert: block} {
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return root, cert
}

func tool(t *testing.T, name string) string {
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("%s is not installed", name)
	}
	return path
}

func TestOpenSSLStrict(t *testing.T) {
	openssl := tool(t, "openssl")
	a := newAuthority(t, Config{Allow: anyName})
	long := hostname.Name(strings.Repeat("a", 63) + ".good.test")
	for _, name := range []hostname.Name{"good.test", long} {
		root, cert := files(t, a, name)
		for _, args := range [][]string{
			{"verify", "-x509_strict", "-purpose", "sslserver", "-verify_hostname", string(name), "-CAfile", root, cert},
			{"verify", "-x509_strict", "-check_ss_sig", "-CAfile", root, root},
		} {
			if out, err := exec.Command(openssl, args...).CombinedOutput(); err != nil {
				t.Errorf("openssl %s: %v\n%s", strings.Join(args, " "), err, out)
			}
		}
	}
}

const pythonGet = `
import socket, ssl, sys
ctx = ssl.create_default_context(cafile=sys.argv[1])
ctx.verify_flags |= ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_PARTIAL_CHAIN # Python 3.13's defaults
s = ctx.wrap_socket(socket.create_connection(("127.0.0.1", int(sys.argv[2]))), server_hostname="good.test")
s.sendall(b"GET / HTTP/1.0\r\n\r\n")
while s.recv(4096): pass
`

// TestRealClients has real clients complete a handshake.
func TestRealClients(t *testing.T) {
	a := newAuthority(t, Config{Allow: anyName})
	root, _ := files(t, a, "good.test")
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{GetCertificate: func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
		return a.Leaf(hostname.Name(h.ServerName))
	}})
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok") })}
	go srv.Serve(l)
	defer srv.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	for name, args := range map[string][]string{
		"python3": {"-c", pythonGet, root, port},
		"curl":    {"-sS", "--cacert", root, "--resolve", "good.test:" + port + ":127.0.0.1", "https://good.test:" + port + "/"},
		"node": {"-e", `require("https").get({host:"127.0.0.1",port:+process.argv[2],servername:"good.test",ca:require("fs").readFileSync(process.argv[1])},
			r=>{r.resume();r.on("end",()=>process.exit(0))}).on("error",e=>{console.error(e);process.exit(1)})`, root, port},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			if out, err := exec.CommandContext(ctx, tool(t, name), args...).CombinedOutput(); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}

func BenchmarkMint(b *testing.B) {
	a := newAuthority(b, Config{Allow: anyName})
	for b.Loop() {
		if _, err := a.mint("good.test"); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCached(b *testing.B) {
	a := newAuthority(b, Config{Allow: anyName})
	for b.Loop() {
		a.Leaf("good.test")
	}
}
