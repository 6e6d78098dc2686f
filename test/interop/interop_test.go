//go:build linux

// Package interop runs the clients that people use through the real boundary
// to real servers.
//
// There is no machine: the client is a process of this machine in a network
// namespace whose one interface ends in the boundary, so that it resolves,
// connects, verifies and speaks as it would in a sandbox. Every test looks at
// what the server got and at what the client printed.
package interop

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/cutoutdev/cutout/internal/testnet"
	"github.com/cutoutdev/cutout/internal/testnet/boundary"
	"github.com/cutoutdev/cutout/internal/testnet/talk"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(asGuest); dir != "" {
		if err := beGuest(dir); err != nil {
			fmt.Fprintln(os.Stderr, "guest:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if os.Getenv(asClient) != "" {
		if err := talk.Client("good.test:443", bundle, os.Getenv("API_KEY")); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// need ends the test if a program or right is missing: in CI as a failure,
// elsewhere as a skip that says what to do.
func need(t *testing.T, programs ...string) {
	t.Helper()
	lack := t.Skipf
	if os.Getenv("CI") == "true" {
		lack = t.Fatalf
	}
	if os.Getuid() != 0 {
		lack("needs root, to make a network namespace with an interface: sudo make interop")
	}
	if _, err := os.Stat("/dev/net/tun"); err != nil {
		lack("needs /dev/net/tun: %v", err)
	}
	for _, p := range append(programs, "nsenter", "ip") {
		if _, err := exec.LookPath(p); err != nil {
			lack("needs %s: make interop as root installs it", p)
		}
	}
}

// needModule ends the test if Debian's Python, or Node beside its scripts,
// has not got a module.
func needModule(t *testing.T, program, name string) {
	t.Helper()
	check := exec.Command(program, "-c", "import "+name)
	if program == "node" {
		check = exec.Command(program, "-e", "require('./node/node_modules/"+name+"')")
	}
	if err := check.Run(); err != nil {
		need(t, name+" for "+program) // there is no such program
	}
}

// python is Debian's, which has Debian's modules.
const python = "/usr/bin/python3"

// clean checks that the guest read no value.
func (g *guest) clean(t *testing.T, out string) {
	t.Helper()
	if strings.Contains(out, boundary.Value) {
		t.Errorf("the guest reads the value:\n%s", out)
	}
}

// got waits for the next request of u and checks its protocol and that it
// has the value in Authorization.
func got(t *testing.T, u *testnet.Upstream, proto string) testnet.Request {
	t.Helper()
	for range 200 {
		if all := u.Requests(); len(all) > 0 {
			r := all[len(all)-1]
			if r.Proto != proto {
				t.Errorf("the server was spoken to in %s, want %s", r.Proto, proto)
			}
			if auth := r.Header.Get("Authorization"); !strings.HasSuffix(auth, boundary.Value) {
				t.Errorf("Authorization is %q", auth)
			}
			return r
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal("the server got no request")
	return testnet.Request{}
}
