//go:build linux

package interop

import (
	"encoding/xml"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cutoutdev/cutout/internal/testnet/boundary"
)

// The HTTP/2 that the guest sees conforms wherever net/http by itself does.
func TestH2Spec(t *testing.T) {
	need(t)
	path, err := exec.Command("go", "tool", "-modfile=../../tools/go.mod", "-n", "h2spec").Output()
	if err != nil {
		t.Fatalf("build h2spec: %v", err)
	}
	h2spec := strings.TrimSpace(string(path))
	g := newGuest(t, func(b *boundary.Boundary) { b.Protocol = "h2"; b.GoodIs(b.Upstream(nil, "good.test")) })
	report := func(name string) string { return filepath.Join(g.dir, name+".xml") }

	// net/http alone, reached past the boundary.
	alone := g.Upstream(nil, "good.test")
	host := exec.Command(h2spec, flags(alone.Addr(), "127.0.0.1", report("alone"))...)
	if err := host.Start(); err != nil {
		t.Fatal(err)
	}
	out, err := g.run("", h2spec, flags(netip.AddrPortFrom(boundary.GoodAddr, 443), "good.test", report("boundary"))...)
	host.Wait() // failures are in the report

	without, with := failures(t, report("alone")), failures(t, report("boundary"))
	if len(with.all) < 100 || len(with.all) != len(without.all) {
		t.Fatalf("%d and %d tests, %v: %s", len(without.all), len(with.all), err, out)
	}
	for _, f := range with.failed {
		if !slices.Contains(without.failed, f) {
			t.Errorf("net/http passes and the boundary fails: %s", f)
		}
	}
	t.Logf("%d tests; net/http fails %d, the boundary %d", len(with.all), len(without.failed), len(with.failed))
}

// flags let a server take its time: net/http keeps a connection for a second
// after GOAWAY.
func flags(addr netip.AddrPort, host, report string) []string {
	return []string{"-t", "-k", "-S", "-h", host, "-p", fmt.Sprint(addr.Port()), "-P", "/ok", "-j", report, "-o", "2"}
}

type results struct{ all, failed []string }

// failures reads a JUnit report.
func failures(t *testing.T, path string) (out results) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var suites struct {
		Suite []struct {
			Case []struct {
				Package string    `xml:"package,attr"`
				Class   string    `xml:"classname,attr"`
				Failure *struct{} `xml:"failure"`
				Error   *struct{} `xml:"error"`
			} `xml:"testcase"`
		} `xml:"testsuite"`
	}
	if err := xml.Unmarshal(text, &suites); err != nil {
		t.Fatal(err)
	}
	for _, s := range suites.Suite {
		for _, c := range s.Case {
			name := c.Package + " " + c.Class
			out.all = append(out.all, name)
			if c.Failure != nil || c.Error != nil {
				out.failed = append(out.failed, name)
			}
		}
	}
	return out
}
