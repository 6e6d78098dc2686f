package e2e

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/cutoutdev/cutout/internal/testnet"
	"github.com/cutoutdev/cutout/internal/vm"
	"github.com/cutoutdev/cutout/internal/vm/qemu"
	"github.com/cutoutdev/cutout/internal/vm/vmtest"
)

// TestStream: a QEMU that is not ours is plugged into cutout boundary --unix by
// the options that the documentation gives, and its guest's request is
// substituted.
func TestStream(t *testing.T) {
	vmtest.QEMU(t)
	text, err := os.ReadFile("../../docs/boundary.md")
	if err != nil {
		t.Fatal(err)
	}
	netdev := regexp.MustCompile(`-netdev (stream,\S*addr\.path=vm\.sock\S*)`).FindSubmatch(text)
	device := regexp.MustCompile(`-device virtio-net,(netdev=n,mac=\S+)`).FindSubmatch(text)
	if netdev == nil || device == nil {
		t.Fatal("the documentation has no such command")
	}

	ca, err := testnet.NewCA()
	if err != nil {
		t.Fatal(err)
	}
	cert, err := ca.Cert("api.example.com")
	if err != nil {
		t.Fatal(err)
	}
	api, err := testnet.StartUpstream(testnet.UpstreamConfig{Cert: &cert})
	if err != nil {
		t.Fatal(err)
	}
	defer api.Close()
	dir, err := os.MkdirTemp("", "stream") // a test's own has too long a name for a socket's
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	value, caFile := newValue(), filepath.Join(dir, "upstream.pem")
	if err := ca.WriteFile(caFile); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	var said bytes.Buffer
	boundary := exec.CommandContext(ctx, cutout, "boundary", "--secret", "API_KEY@api.example.com", "--env-file", "vm.env", "--unix", "vm.sock",
		"--connect-to", "api.example.com:443="+api.Addr().String(), "--tls-upstream-ca-cert", caFile)
	boundary.Dir, boundary.Env, boundary.Stderr = dir, append(os.Environ(), "CUTOUT_HOME="+filepath.Join(dir, "home"), "API_KEY="+value), &said
	if err := boundary.Start(); err != nil {
		t.Fatal(err)
	}
	defer boundary.Wait()
	defer boundary.Process.Signal(os.Interrupt)
	var env []byte
	for env == nil {
		if env, _ = os.ReadFile(filepath.Join(dir, "vm.env")); env == nil && ctx.Err() != nil {
			t.Fatalf("it does not start: %s", said.String())
		}
		time.Sleep(50 * time.Millisecond)
	}

	q, err := qemu.Find("")
	if err != nil {
		t.Fatal(err)
	}
	k := vmtest.Kernel(t)
	defer vmtest.Cleanup()
	args := qemu.Bare(vm.Spec{
		Kernel: k.Vmlinux, Initrd: vmtest.Initramfs(t, k, "testdata/stream"), Accel: vm.TCG,
		Cmdline: strings.Join(strings.Fields(string(env)), " "),
	}, q)
	// The board of the test has no PCI.
	args = append(args, "-global", "virtio-mmio.force-legacy=false", "-serial", "stdio",
		"-netdev", string(netdev[1]), "-device", "virtio-net-device,"+string(device[1]))
	machine := exec.CommandContext(ctx, args[0], args[1:]...)
	machine.Dir = dir
	console, err := machine.CombinedOutput()
	if !strings.Contains(string(console), "guest: ok <nil>") {
		t.Errorf("%v: %s\n%s", err, console[max(0, len(console)-2000):], said.String())
	}
	reqs := api.Requests()
	if len(reqs) != 1 || reqs[0].Header.Get("Authorization") != "Bearer "+value {
		t.Errorf("the server received %d requests: %v", len(reqs), reqs)
	}
	if strings.Contains(string(console), value) {
		t.Error("the guest has the value")
	}
}
