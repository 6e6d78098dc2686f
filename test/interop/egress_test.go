//go:build linux

package interop

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cutoutdev/cutout/internal/egress"
	"github.com/cutoutdev/cutout/internal/splice"
	"github.com/cutoutdev/cutout/internal/testnet"
	"github.com/cutoutdev/cutout/internal/testnet/boundary"
)

// upstreamAddr is where the proxies find good.test: they have an /etc/hosts of
// their own.
var upstreamAddr = netip.MustParseAddr("127.0.83.1")

// TestProxies: curl gets the value to the server through the boundary and the
// upstream proxies that people run, with and without a credential.
func TestProxies(t *testing.T) {
	need(t, "tinyproxy", "microsocks", "unshare", "curl")
	const login = "me:pr0xy-p4ssword"
	dir := t.TempDir()
	hosts := filepath.Join(dir, "hosts")
	conf := func(more string) func(port int) []string {
		return func(port int) []string {
			file := filepath.Join(dir, fmt.Sprint(port))
			text := fmt.Sprintf("Port %d\nListen 127.0.0.1\nTimeout 60\nMaxClients 20\nConnectPort 443\n%s", port, more)
			if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
			return []string{"tinyproxy", "-d", "-c", file}
		}
	}
	socks := func(args ...string) func(port int) []string {
		return func(port int) []string {
			return append([]string{"microsocks", "-i", "127.0.0.1", "-p", fmt.Sprint(port)}, args...)
		}
	}
	if err := os.WriteFile(hosts, fmt.Appendf(nil, "%s good.test\n", upstreamAddr), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		scheme, login string
		command       func(port int) []string
		want          string
	}{
		"tinyproxy":                 {"http", "", conf(""), "ok"},
		"tinyproxy, credential":     {"http", login, conf("BasicAuth me pr0xy-p4ssword\n"), "ok"},
		"tinyproxy, no credential":  {"http", "", conf("BasicAuth me pr0xy-p4ssword\n"), "proxy_auth_failed"},
		"tinyproxy, another":        {"http", "me:guess", conf("BasicAuth me pr0xy-p4ssword\n"), "proxy_auth_failed"},
		"tinyproxy, refuses":        {"http", "", conf("Filter \"" + hosts + "\"\nFilterType fnmatch\nFilterDefaultDeny Yes\n"), "proxy_refused"},
		"microsocks":                {"socks5", "", socks(), "ok"},
		"microsocks, credential":    {"socks5", login, socks("-u", "me", "-P", "pr0xy-p4ssword"), "ok"},
		"microsocks, no credential": {"socks5", "", socks("-u", "me", "-P", "pr0xy-p4ssword"), "proxy_auth_failed"},
		"microsocks, another":       {"socks5", "me:guess", socks("-u", "me", "-P", "pr0xy-p4ssword"), "proxy_auth_failed"},
	} {
		t.Run(name, func(t *testing.T) {
			at := serveProxy(t, hosts, tt.command)
			g := newGuest(t, func(b *boundary.Boundary) {
				s, err := egress.Parse(tt.scheme + "://" + at)
				if err != nil {
					t.Fatal(err)
				}
				p := egress.New(s)
				if tt.login != "" {
					p.Store, p.Login = b.Store, boundary.Must(testnet.Value(b.Store, tt.login))
				}
				b.Config.Egress = p
			})
			l, err := net.Listen("tcp", netip.AddrPortFrom(upstreamAddr, 443).String())
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			go forwardTo(l, g.Good.Addr())
			out, err := g.run("", "curl", "-sS", "-m", "20", "-H", "Authorization: Bearer "+boundary.Placeholder, "https://good.test/ok")
			if !strings.Contains(out, tt.want) {
				t.Errorf("curl got %q, %v", out, err)
			}
			g.clean(t, out)
			got := ""
			for _, r := range g.Good.Requests() {
				got += r.Text()
			}
			if strings.Contains(got, boundary.Value) != (tt.want == "ok") {
				t.Errorf("good.test got %q", got)
			}
			if dialed := g.Routes.Dialed(); len(dialed) != 0 {
				t.Errorf("%v was dialled", dialed)
			}
		})
	}
}

// serveProxy starts a proxy that has hosts in place of /etc/hosts, at a free
// port.
func serveProxy(t *testing.T, hosts string, command func(port int) []string) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := l.Addr().(*net.TCPAddr)
	l.Close()
	args := append([]string{"-m", "sh", "-c", `mount --bind "$0" /etc/hosts && exec "$@"`, hosts}, command(at.Port)...)
	cmd := exec.Command("unshare", args...)
	var said strings.Builder
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	for range 100 {
		if c, err := net.Dial("tcp", at.String()); err == nil {
			c.Close()
			return at.String()
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatalf("%v did not start: %s", args, said.String())
	return ""
}

// forwardTo relays what comes to l.
func forwardTo(l net.Listener, to netip.AddrPort) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		up, err := net.Dial("tcp", to.String())
		if err != nil {
			c.Close()
			continue
		}
		go splice.Join(c, up)
	}
}
