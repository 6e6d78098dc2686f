package dns

import (
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestResolvConf(t *testing.T) {
	compare := cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })
	tests := map[string]struct {
		text string
		want []string
	}{
		"usual":    {"# comment\nsearch x\nnameserver 192.0.2.1\nnameserver  2001:db8::1 # two\noptions ndots:5\n", []string{"192.0.2.1:53", "[2001:db8::1]:53"}},
		"zone":     {"nameserver fe80::1%eth0\n", []string{"[fe80::1%eth0]:53"}},
		"bad line": {"nameserver\nnameserver nonsense\nnameserver 127.0.0.53", []string{"127.0.0.53:53"}},
		"empty":    {"", []string{"127.0.0.1:53"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "resolv.conf")
			os.WriteFile(path, []byte(test.text), 0o600)
			var c resolvConf
			var want []netip.AddrPort
			for _, s := range test.want {
				want = append(want, netip.MustParseAddrPort(s))
			}
			if diff := cmp.Diff(want, c.resolvers(path), compare); diff != "" {
				t.Error(diff)
			}
		})
	}
	t.Run("missing", func(t *testing.T) {
		var c resolvConf
		if got := c.resolvers("/nonexistent/resolv.conf"); !cmp.Equal(got, fallback, compare) {
			t.Errorf("%v", got)
		}
	})
}

func TestResolvConfReload(t *testing.T) {
	path := filepath.Join(t.TempDir(), "resolv.conf")
	os.WriteFile(path, []byte("nameserver 192.0.2.1\n"), 0o600)
	var c resolvConf
	if got := c.resolvers(path)[0].String(); got != "192.0.2.1:53" {
		t.Fatal(got)
	}
	os.WriteFile(path, []byte("nameserver 192.0.2.2\n"), 0o600)
	os.Chtimes(path, time.Now(), time.Now().Add(time.Hour))
	c.checked = time.Time{} // a second later
	if got := c.resolvers(path)[0].String(); got != "192.0.2.2:53" {
		t.Errorf("still %s after a change", got)
	}
	os.Remove(path)
	c.checked = time.Time{}
	if got := c.resolvers(path)[0].String(); got != "192.0.2.2:53" {
		t.Errorf("%s: the list was forgotten when the file went", got)
	}
}
