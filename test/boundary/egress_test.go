//go:build linux

package boundary

import (
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/cutoutdev/cutout/internal/testnet"
)

// TestEgressProxy: what a command asks for goes out through the upstream proxy
// by name, with the value; what the proxy refuses is told; where it is taken
// from a variable a line says so; and its credential is nowhere to be found.
func TestEgressProxy(t *testing.T) {
	p := newPlace(t, os.Geteuid())
	resolver, err := testnet.StartDNS(map[string]testnet.Record{
		"api.example.com":   {Addrs: []netip.Addr{netip.MustParseAddr("93.184.216.34")}},
		"other.example.com": {Addrs: []netip.Addr{netip.MustParseAddr("93.184.216.66")}},
		"inner.example.com": {Addrs: []netip.Addr{netip.MustParseAddr("10.0.0.5")}},
		// Only the proxy knows api.example.test.
		"api.example.test": {RCode: dnsmessage.RCodeNameError},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer resolver.Close()
	at := p.api.Addr()
	proxy, err := testnet.StartProxy(map[string]netip.AddrPort{
		"api.example.com:443": at, "other.example.com:443": at, "inner.example.com:443": at, "api.example.test:443": at,
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer proxy.Close()
	login := []string{"--egress-proxy-auth", "env:PROXY_LOGIN"}
	url := "http://" + proxy.Addr()
	curl := func(host string) string {
		return `curl -sSk -m 20 -H "Authorization: Bearer $API_KEY" https://` + host + `/ok 2>&1`
	}
	for name, tt := range map[string]struct {
		flags []string
		env   []string
		line  string
		want  string // in what the command says
		said  string // in what Cutout says
		asked []string
		value bool // arrives
	}{
		"CONNECT": {append(login, "--egress-proxy", url), nil, curl("api.example.com"), "ok", "", []string{"api.example.com:443"}, true},
		"SOCKS5":  {append(login, "--egress-proxy", "socks5h://"+proxy.Addr()), nil, curl("api.example.com"), "ok", "", []string{"api.example.com:443"}, true},
		"by a variable": {
			login,
			[]string{"HTTPS_PROXY=" + url},
			curl("api.example.com"), "ok",
			"connections go through the proxy that your variable HTTPS_PROXY names",
			[]string{"api.example.com:443"},
			true,
		},
		"no proxy": {
			[]string{"--egress-proxy", "none"}, []string{"HTTPS_PROXY=" + url}, "echo no", "no", "HTTPS_PROXY: not for the command", nil, false,
		},
		"no credential": {
			[]string{"--egress-proxy", url}, nil, curl("api.example.com"), `"reason":"proxy_auth_failed"`, "proxy_auth_failed", nil, false,
		},
		"elsewhere": {
			append(login, "--egress-proxy", url), nil, curl("other.example.com"), "ok", "", []string{"other.example.com:443"}, false,
		},
		"a denied address": {
			append(login, "--egress-proxy", url, "--egress-proxy-dns"), nil, curl("inner.example.com"), "curl:", "address_denied", nil, false,
		},
		"a name that nobody knows": {
			append(login, "--egress-proxy", url), nil, curl("api.example.test"), "curl:", "", nil, false,
		},
		"a name that the proxy knows": {
			append(login, "--egress-proxy", url, "--egress-proxy-dns"), nil, curl("api.example.test"), "ok",
			"names that no resolver here knows",
			[]string{"api.example.test:443"},
			true,
		},
		"its credential": {
			append(login, "--egress-proxy", url), nil, `echo "got ${PROXY_LOGIN-nothing}"`, "got nothing\n", "", nil, false,
		},
	} {
		t.Run(name, func(t *testing.T) {
			before, had := len(proxy.Asked()), p.received()
			args := append([]string{
				"boundary", "--secret", "API_KEY@api.example.com,api.example.test", "--tls-upstream-ca-cert", filepath.Join(p.dir, "ca.pem"),
				"--dns-nameserver", resolver.Addr().String(),
			}, tt.flags...)
			cmd := p.command(append(args, "--", "sh", "-c", tt.line)...)
			cmd.Env = append(slices.Clone(p.env), append(tt.env, "PROXY_LOGIN="+testnet.ProxyLogin)...)
			var said strings.Builder
			cmd.Stderr = &said
			out, _ := cmd.Output()
			if !strings.Contains(string(out), tt.want) || !strings.Contains(said.String(), tt.said) {
				t.Errorf("got %q\n%s", out, said.String())
			}
			if asked := proxy.Asked()[before:]; !slices.Equal(asked, tt.asked) {
				t.Errorf("the proxy was asked for %v", asked)
			}
			if got := p.received() - had; got != map[bool]int{true: 1}[tt.value] {
				t.Errorf("the value arrived %d times", got)
			}
		})
	}
	// The audit logs, with what was said of every run.
	if out, err := exec.Command("grep", "-rlF", "pr0xy-p4ss", p.home).CombinedOutput(); len(out) > 0 {
		t.Errorf("the credential stands in %s: %v", out, err)
	}
}
