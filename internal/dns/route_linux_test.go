package dns

import (
	"net/netip"
	"os"
	"testing"

	"github.com/cutoutdev/cutout/internal/testnet/netns"
)

// TestLacks looks for ways in namespaces with networks of one family, of both
// and of none.
func TestLacks(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root, to make network namespaces")
	}
	four, six := netip.MustParseAddr("8.8.8.8"), netip.MustParseAddr("2606:4700::1")
	near := netip.MustParseAddr("fd00:77::5") // of a network of its own
	add4 := [][]string{{"ip", "addr", "add", "198.51.100.2/24", "dev", "out"}, {"ip", "route", "add", "default", "via", "198.51.100.1"}}
	add6 := [][]string{{"ip", "addr", "add", "2001:db8::2/64", "dev", "out", "nodad"}, {"ip", "route", "add", "default", "via", "2001:db8::1"}}
	tests := []struct {
		name     string
		commands [][]string
		want     map[netip.Addr]bool
	}{
		{"none", nil, map[netip.Addr]bool{four: false, six: false}},
		{"IPv4", add4, map[netip.Addr]bool{four: false, six: true, near: true}},
		{"IPv6", add6, map[netip.Addr]bool{four: true, six: false}},
		{"both", append(add4, add6...), map[netip.Addr]bool{four: false, six: false}},
		{"IPv4 and a private network of IPv6", append(add4, []string{"ip", "addr", "add", "fd00:77::2/64", "dev", "out", "nodad"}), map[netip.Addr]bool{four: false, six: true, near: false}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			ns, err := netns.New()
			if err != nil {
				t.Fatal(err)
			}
			defer ns.Close()
			for _, c := range append([][]string{{"ip", "tuntap", "add", "out", "mode", "tap"}, {"ip", "link", "set", "out", "up"}}, test.commands...) {
				if _, err := ns.Run(c...); err != nil {
					t.Fatal(err)
				}
			}
			if err := ns.In(func() error {
				for a, want := range test.want {
					if got := Lacks(a); got != want {
						t.Errorf("Lacks(%v) = %v, want %v", a, got, want)
					}
				}
				return nil
			}); err != nil {
				t.Fatal(err)
			}
		})
	}
}
