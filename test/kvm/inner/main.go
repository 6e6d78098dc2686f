// Inner is what the KVM test runs inside its emulated machine: it loads KVM,
// asks the probe, boots a machine, and runs Cutout against a server beside it.
// The sandboxed command is this program again.
package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cutoutdev/cutout/internal/testnet"
	"github.com/cutoutdev/cutout/internal/vm"
	"github.com/cutoutdev/cutout/internal/vm/qemu"
)

func main() {
	qemu.Main()
	run := map[string]func(args []string) error{
		"load": load, "probe": probe, "boot": boot, "run": runCutout, "client": client,
	}[os.Args[1]]
	start := time.Now()
	if err := run(os.Args[2:]); err != nil {
		fmt.Println("inner:", os.Args[1], "failed:", err)
		os.Exit(1)
	}
	if os.Args[1] != "client" {
		fmt.Printf("inner: %s took %.1f s\n", os.Args[1], time.Since(start).Seconds())
	}
}

// load loads kernel modules in the order of the arguments.
func load(files []string) error {
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		if err := unix.FinitModule(int(f.Fd()), "", 0); err != nil {
			return fmt.Errorf("load %s: %w", name, err)
		}
		f.Close()
	}
	// As a distribution has it: a group of its own may use the device.
	if err := os.Chmod("/dev/kvm", 0o660); err != nil {
		return err
	}
	return os.Chown("/dev/kvm", 0, 106)
}

func probe([]string) error {
	for range 3 {
		v := vm.ProbeKVM(context.Background())
		fmt.Println("verdict:", v)
		if v.Usable {
			return nil
		}
	}
	return fmt.Errorf("not usable")
}

// boot starts a machine whose init says hello and nothing else.
func boot(args []string) error {
	s := vm.Spec{Kernel: args[0], Initrd: args[1], MemoryMiB: 192, Accel: vm.KVM, BootTimeout: 10 * time.Minute}
	s.Notice = func(line string) { fmt.Println("notice:", line) }
	start := time.Now()
	m, err := qemu.Boot(context.Background(), s, func(ctx context.Context, c net.Conn) error {
		context.AfterFunc(ctx, func() { c.Close() })
		b := make([]byte, 6)
		_, err := io.ReadFull(c, b)
		return err
	})
	if err != nil {
		return err
	}
	fmt.Printf("booted with %s in %.1f s, %+v\n", m.Accel(), time.Since(start).Seconds(), m.Layers())
	if m.Accel() != vm.KVM {
		return fmt.Errorf("not with KVM")
	}
	m.Kill()
	return nil
}

const value = "the-value-that-only-the-keeper-has"

// runCutout starts a server that the secret is for and a sandbox that calls
// it.
func runCutout(args []string) error {
	authority, err := testnet.NewCA()
	if err != nil {
		return err
	}
	cert, err := authority.Cert("api.example.test")
	if err != nil {
		return err
	}
	up, err := testnet.StartUpstream(testnet.UpstreamConfig{Cert: &cert})
	if err != nil {
		return err
	}
	defer up.Close()
	roots := "/tmp/ca.pem"
	if err := authority.WriteFile(roots); err != nil {
		return err
	}
	cmd := exec.Command(args[0], "image", "import", "client", args[1])
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("import the image: %w\n%s", err, out)
	}
	cmd = exec.Command(args[0], "run", "-m", "192", "--secret", "API_KEY@api.example.test",
		"--connect-to", "api.example.test:443="+up.Addr().String(), "--tls-upstream-ca-cert", roots,
		"client", "--", "/inner", "client")
	cmd.Env = append(os.Environ(), "API_KEY="+value)
	var out, notices strings.Builder
	cmd.Stdout, cmd.Stderr = io.MultiWriter(os.Stdout, &out), io.MultiWriter(os.Stdout, &notices)
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("run the sandbox: %w", err)
	}
	if strings.Contains(notices.String(), "emulation") {
		return fmt.Errorf("the sandbox did not run with KVM")
	}
	if !strings.Contains(out.String(), "placeholder: $MSB_API_KEY") {
		return fmt.Errorf("the guest did not have the placeholder")
	}
	for _, r := range up.Requests() {
		if r.Header.Get("Authorization") == "Bearer "+value {
			fmt.Println("the value arrived")
			return nil
		}
	}
	return fmt.Errorf("the value did not arrive")
}

// client is the sandboxed command.
func client([]string) error {
	key := os.Getenv("API_KEY")
	fmt.Println("placeholder:", key)
	req, err := http.NewRequest("GET", "https://api.example.test/", nil)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+key)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	fmt.Println("status:", resp.Status)
	return nil
}
