package guest_test

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"io"
	mrand "math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/Microsoft/hcsshim/ext4/tar2ext4"
	"github.com/cutoutdev/cutout/internal/guest"
	"github.com/cutoutdev/cutout/internal/vm"
	"github.com/cutoutdev/cutout/internal/vm/qemu"
	"github.com/cutoutdev/cutout/internal/vm/vmtest"
	"github.com/google/go-cmp/cmp"
)

func TestMain(m *testing.M) {
	qemu.Main()
	code := m.Run()
	vmtest.Cleanup()
	os.Exit(code)
}

type entry struct {
	name, link, body string
	mode             int64 // 0: a directory
}

// disk makes a read-only ext4 image.
func disk(t *testing.T, entries []entry) *os.File {
	t.Helper()
	var b bytes.Buffer
	tw := tar.NewWriter(&b)
	for _, e := range entries {
		h := &tar.Header{Name: e.name, Mode: e.mode, Size: int64(len(e.body)), Typeflag: tar.TypeReg}
		switch {
		case e.link != "":
			h.Typeflag, h.Linkname, h.Mode = tar.TypeSymlink, e.link, 0o777
		case e.mode == 0:
			h.Typeflag, h.Mode = tar.TypeDir, 0o755
		}
		if err := tw.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		io.WriteString(tw, e.body)
	}
	tw.Close()
	f, err := os.CreateTemp(t.TempDir(), "disk")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if err := tar2ext4.ConvertTarToExt4(&b, f); err != nil {
		t.Fatal(err)
	}
	return f
}

// tool is the tests' only program, as a static binary.
func tool(t *testing.T) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "tool")
	cmd := exec.Command("go", "build", "-ldflags=-s -w", "-o", name, "./testdata/tool")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build the tests' program: %v\n%s", err, out)
	}
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// boot starts a machine with the real agent.
func boot(t *testing.T, spec vm.Spec) (context.Context, *guest.Client, *qemu.Machine) {
	t.Helper()
	vmtest.QEMU(t)
	k := vmtest.Kernel(t)
	spec.Kernel, spec.MemoryMiB = k.Vmlinux, 256
	spec.Initrd = vmtest.Initramfs(t, k, "../../cmd/cutout-agent")
	spec.WeakCage = true // the cage is tested where it is made
	spec.Notice = func(s string) { t.Log("notice:", s) }
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	t.Cleanup(cancel)
	var c *guest.Client
	start := time.Now()
	m, err := qemu.Boot(ctx, spec, func(ctx context.Context, control net.Conn) (err error) {
		c, err = guest.Connect(ctx, control)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("hello after %v, of which the kernel %v", time.Since(start).Round(time.Millisecond), c.BootTime().Round(time.Millisecond))
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("console:\n%s", m.Console())
		}
		m.Kill()
		m.Wait()
		c.Close()
	})
	return ctx, c, m
}

type result struct {
	Out, Err string
	Exit     guest.Exit
}

func run(t *testing.T, ctx context.Context, c *guest.Client, cmd guest.Command) result {
	t.Helper()
	p, err := c.Start(ctx, cmd)
	if err != nil {
		t.Fatal(err)
	}
	p.Stdin.Close()
	stderr := make(chan string, 1)
	go func() { b, _ := io.ReadAll(p.Stderr); stderr <- string(b) }()
	out, err := io.ReadAll(p.Stdout)
	if err != nil {
		t.Fatal(err)
	}
	exit, err := p.Wait(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return result{string(out), <-stderr, exit}
}

func args(a ...string) guest.Command {
	return guest.Command{Args: append([]string{"tool"}, a...)}
}

func nic(t *testing.T) *os.File {
	t.Helper()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Close(fds[0]) })
	f := os.NewFile(uintptr(fds[1]), "nic")
	t.Cleanup(func() { f.Close() })
	return f
}

const testCA = "-----BEGIN CERTIFICATE-----\nthe sandbox's own\n-----END CERTIFICATE-----\n"

// TestMachine is a sandbox's life in a real machine, with an image whose links
// try to lead the agent astray.
func TestMachine(t *testing.T) {
	program := tool(t)
	root := disk(t, []entry{
		{name: "bin"},
		{name: "etc"},
		{name: "etc/ssl"},
		{name: "etc/ssl/certs"},
		{name: "proc"},
		{name: "dir"},
		{name: "dir/sub"},
		{name: "dir/volume"},
		{name: "bin/tool", mode: 0o755, body: program},
		{name: "dir/file", mode: 0o644, body: "of the image"},
		{name: "sys", link: "../../../../dir"},
		{name: "vol", link: "/../../dir/volume"},
		{name: "etc/resolv.conf", link: "../../../../../dir/file"},
		{name: "etc/ssl/certs/ca-certificates.crt", mode: 0o644, body: "public roots"},
		{name: "etc/ssl/cert.pem", link: "certs/ca-certificates.crt"},
		{name: "etc/ssl/ca-bundle.pem"}, // not a file
		{name: "etc/passwd", mode: 0o644, body: "root:x:0:0::/root:/bin/sh\nbob:x:1000:1001::/home/bob:/bin/sh\n"},
		{name: "etc/group", mode: 0o644, body: "bob:x:1001:\nextra:x:2000:alice,bob\n"},
	})
	volume := disk(t, []entry{{name: "hello", mode: 0o644, body: "from the host"}})
	cover := disk(t, []entry{{name: "x", mode: 0o644, body: "covers the image's roots"}})
	ctx, c, m := boot(t, vm.Spec{NIC: nic(t), Disks: []vm.Disk{{File: volume, Serial: "volume0"}, {File: cover, Serial: "volume1"}, {File: root, Serial: "root"}}})

	entropy := make([]byte, 64)
	rand.Read(entropy)
	cfg := guest.Config{
		Hostname: "box", Time: time.Unix(1900000000, 0), Entropy: entropy,
		RootSerial: "root", Volumes: []guest.Volume{{Serial: "volume0", Path: "/vol/in"}, {Serial: "volume1", Path: "/usr/local/share/ca-certificates"}},
		CA: []byte(testCA), Roots: []byte("unused"),
		Net: &guest.Net{
			MAC: "02:00:00:00:00:02", MTU: 1400,
			Addr4: netip.MustParsePrefix("10.9.8.2/24"), Gateway4: netip.MustParseAddr("10.9.8.1"),
			Addr6: netip.MustParsePrefix("fd00:1::2/64"), Gateway6: netip.MustParseAddr("fd00:1::1"),
		},
	}
	start := time.Now()
	if err := c.Configure(ctx, cfg); err != nil {
		t.Fatal(err)
	}
	t.Logf("configured in %v", time.Since(start).Round(time.Millisecond))
	if err := c.Configure(ctx, cfg); err == nil {
		t.Error("configured twice")
	}

	trust := func(path string) string {
		var b strings.Builder
		for _, name := range []string{
			"AWS_CA_BUNDLE", "CARGO_HTTP_CAINFO", "CURL_CA_BUNDLE", "DENO_CERT", "GIT_SSL_CAINFO", "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
			"HOME", "HOSTNAME", "NODE_EXTRA_CA_CERTS", "PATH", "PIP_CERT", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE",
		} {
			value := path
			switch name {
			case "HOME":
				value = "/root"
			case "HOSTNAME":
				value = "box"
			case "NODE_EXTRA_CA_CERTS":
				value = "/usr/local/share/ca-certificates/cutout.crt"
			case "PATH":
				value = "/bin"
			}
			fmt.Fprintf(&b, "%s=%s\n", name, value)
		}
		return b.String()
	}
	in := func(cmd guest.Command, change func(*guest.Command)) guest.Command {
		change(&cmd)
		return cmd
	}
	for _, test := range []struct {
		name string
		cmd  guest.Command
		want result
	}{
		{"status", args("exit", "42"), result{Exit: guest.Exit{Code: 42}}},
		{"no command", guest.Command{Args: []string{"nonesuch"}}, result{Exit: guest.Exit{Code: 127, NotFound: true, Reason: "run nonesuch: command not found"}}},
		{"no program", guest.Command{Args: []string{"/etc/passwd"}}, result{Exit: guest.Exit{Code: 126, NotExecutable: true, Reason: "run /etc/passwd: permission denied"}}},
		{"host name", args("hostname"), result{Out: "box\n"}},
		{"addresses", args("addresses"), result{Out: "lo 65536 127.0.0.1/8\nlo 65536 ::1/128\neth0 1400 10.9.8.2/24\neth0 1400 fd00:1::2/64\n"}},
		{"resolver", args("cat", "/etc/resolv.conf"), result{Out: "nameserver 10.9.8.1\nnameserver fd00:1::1\n"}},
		{"link not followed", args("cat", "/dir/file"), result{Out: "of the image"}},
		{"hosts", args("cat", "/etc/hosts"), result{Out: "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n10.9.8.2\tbox\nfd00:1::2\tbox\n"}},
		{"bundle", args("cat", "/etc/ssl/cert.pem"), result{Out: "public roots\n" + testCA}},
		{"volume over what we wrote", args("cat", "/usr/local/share/ca-certificates/x"), result{Out: "covers the image's roots"}},
		{"trust", in(args("env"), func(c *guest.Command) { c.Env = []string{"PATH=/bin"} }), result{Out: trust("/etc/ssl/certs/ca-certificates.crt")}},
		{"volume", args("cat", "/dir/volume/in/hello"), result{Out: "from the host"}},
		{"volume read-only", args("write", "/vol/in/x", ""), result{Err: "open /vol/in/x: read-only file system\n", Exit: guest.Exit{Code: 1}}},
		{"write", args("write", "/dir/new", "text"), result{}},
		{"rename a directory of the image", args("rename", "/dir/sub", "/dir/sub2"), result{}},
		{"user", in(args("id"), func(c *guest.Command) { c.User = "bob" }), result{Out: "1000 1001 [1001 2000]\n"}},
		{"user and group", in(args("id"), func(c *guest.Command) { c.User = "77:extra" }), result{Out: "77 2000 []\n"}},
		{"user opens /dev/stdout", in(args("write", "/dev/stdout", "by name"), func(c *guest.Command) { c.User = "bob" }), result{Out: "by name"}},
		{"directory", in(args("pwd"), func(c *guest.Command) { c.Dir = "/work/here" }), result{Out: "/work/here\n"}},
		{
			"devices", args("stat", "/dev/null", "/dev/ptmx", "/dev/pts", "/dev/shm", "/dev/fd", "/sys/kernel", "/proc/1"),
			result{Out: "/dev/null Dcrw-rw-rw-\n/dev/ptmx Dcrw-rw-rw-\n/dev/pts drwxr-xr-x\n/dev/shm dtrwxrwxrwx\n/dev/fd Lrwxrwxrwx\n/sys/kernel drwxr-xr-x\n/proc/1 dr-xr-xr-x\n"},
		},
		{"orphans are reaped", args("zombies"), result{}},
		{"left-over child", args("orphan"), result{Out: "parent done\nready\n"}},
		{"signals to the first process", args("flood"), result{}},
		{"still there", args("exit", "3"), result{Exit: guest.Exit{Code: 3}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := run(t, ctx, c, test.cmd)
			if test.name == "left-over child" {
				got.Out = strings.TrimSuffix(got.Out, "ready\n") + "ready\n" // whether it came to write is its own affair
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}

	t.Run("clock", func(t *testing.T) {
		for _, when := range []int64{1900000000, 1950000000} {
			if when != 1900000000 {
				if err := c.SetTime(ctx, time.Unix(when, 0)); err != nil {
					t.Fatal(err)
				}
			}
			var now int64
			fmt.Sscan(run(t, ctx, c, args("time")).Out, &now)
			if now < when || now > when+120 {
				t.Errorf("%d for %d", now, when)
			}
		}
	})
	t.Run("terminal", func(t *testing.T) { testTerminal(t, ctx, c) })
	t.Run("signals", func(t *testing.T) { testSignals(t, ctx, c) })
	t.Run("files", func(t *testing.T) { testFiles(t, ctx, c) })
	t.Run("bulk", func(t *testing.T) { testBulk(t, ctx, c) })
	t.Run("port is taken", func(t *testing.T) {
		if got := run(t, ctx, c, args("open", "/dev/vport0p1")); got.Exit.Code != 1 || !strings.Contains(got.Err, "busy") {
			t.Errorf("%+v", got)
		}
	})
	t.Run("shutdown", func(t *testing.T) {
		p, err := c.Start(ctx, args("sleep"))
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Shutdown(ctx); err != nil {
			t.Fatal(err)
		}
		if err := m.Wait(); err != nil {
			t.Errorf("the machine ended with %v", err)
		}
		if _, err := io.Copy(io.Discard, p.Stdout); err == nil {
			t.Log("the command's output ended before the link")
		}
		<-c.Done()
	})
}

func testTerminal(t *testing.T, ctx context.Context, c *guest.Client) {
	cmd := args("size")
	cmd.TTY, cmd.Rows, cmd.Cols = true, 31, 97
	p, err := c.Start(ctx, cmd)
	if err != nil {
		t.Fatal(err)
	}
	first := make([]byte, len("31 97\r\n"))
	if _, err := io.ReadFull(p.Stdout, first); err != nil {
		t.Fatal(err)
	}
	if err := p.Resize(44, 111); err != nil {
		t.Fatal(err)
	}
	io.WriteString(p.Stdin, "\nq\n")
	rest, err := io.ReadAll(p.Stdout)
	if got := string(first) + string(rest); err != nil || !strings.Contains(got, "44 111\r\n") || !strings.HasPrefix(got, "31 97\r\n") {
		t.Errorf("%q, %v", got, err)
	}
	if exit, err := p.Wait(ctx); exit.Code != 0 || err != nil {
		t.Errorf("%v, %v", exit, err)
	}
}

func testSignals(t *testing.T, ctx context.Context, c *guest.Client) {
	for _, test := range []struct {
		cmd, signal string
		code        int
	}{{"trap", "INT", 5}, {"sleep", "TERM", 143}, {"sleep", "SIGKILL", 137}} {
		p, err := c.Start(ctx, args(test.cmd))
		if err != nil {
			t.Fatal(err)
		}
		io.ReadFull(p.Stdout, make([]byte, len("ready\n")))
		if err := p.Signal(test.signal); err != nil {
			t.Fatal(err)
		}
		if exit, err := p.Wait(ctx); exit.Code != test.code || err != nil {
			t.Errorf("%s to %s: %v, %v", test.signal, test.cmd, exit, err)
		}
	}
}

func testFiles(t *testing.T, ctx context.Context, c *guest.Client) {
	const files, each = 100, 200 << 10
	var b bytes.Buffer
	tw := tar.NewWriter(&b)
	random := mrand.NewChaCha8([32]byte{2})
	sum := sha256.New()
	for i := range files {
		if err := tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: fmt.Sprintf("d/f%03d", i), Mode: 0o640, Size: each, Uid: 5}); err != nil {
			t.Fatal(err)
		}
		io.CopyN(io.MultiWriter(tw, sum), random, each)
	}
	tw.Close()
	size := b.Len()
	start := time.Now()
	if err := c.PutTar(ctx, "/data", &b); err != nil {
		t.Fatal(err)
	}
	t.Logf("put %.1f MB/s", float64(size)/1e6/time.Since(start).Seconds())
	start = time.Now()
	var got bytes.Buffer
	if err := c.GetUpper(ctx, &got); err != nil {
		t.Fatal(err)
	}
	t.Logf("got %.1f MB/s", float64(got.Len())/1e6/time.Since(start).Seconds())
	back, n := sha256.New(), 0
	seen := make(map[string]bool)
	for tr := tar.NewReader(&got); ; {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		seen[h.Name] = true
		if strings.HasPrefix(h.Name, "data/d/f") {
			n++
			io.Copy(back, tr)
			if h.Uid != 5 || h.Mode != 0o640 {
				t.Errorf("%s: uid %d, mode %o", h.Name, h.Uid, h.Mode)
			}
		}
	}
	if n != files || !bytes.Equal(sum.Sum(nil), back.Sum(nil)) {
		t.Errorf("%d of %d files, or their content changed", n, files)
	}
	if !seen["dir/new"] || seen["bin/tool"] {
		t.Error("what the guest wrote is not what came back")
	}
	if info, err := c.Stat(ctx, "/data/d"); err != nil || !info.Dir {
		t.Errorf("%+v, %v", info, err)
	}
}

func testBulk(t *testing.T, ctx context.Context, c *guest.Client) {
	const size = 100 << 20
	p, err := c.Start(ctx, args("cat"))
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	sent, got := sha256.New(), sha256.New()
	go func() {
		io.CopyN(io.MultiWriter(p.Stdin, sent), mrand.NewChaCha8([32]byte{1}), size)
		p.Stdin.Close()
	}()
	var slowest time.Duration
	done := make(chan struct{})
	pings := make(chan struct{})
	go func() { // control goes on beside
		defer close(pings)
		for {
			select {
			case <-done:
				return
			case <-time.After(50 * time.Millisecond):
			}
			d, err := c.Ping(ctx)
			if err != nil {
				t.Error(err)
				return
			}
			slowest = max(slowest, d)
		}
	}()
	n, err := io.Copy(got, p.Stdout)
	close(done)
	<-pings
	if n != size || err != nil || !bytes.Equal(sent.Sum(nil), got.Sum(nil)) {
		t.Fatalf("%d of %d bytes, %v", n, size, err)
	}
	t.Logf("in and out at %.1f MB/s, slowest ping meanwhile %v", size/1e6/time.Since(start).Seconds(), slowest)
}

// TestMachineWithout is an image without roots, a machine without network, and
// a guest that resets itself.
func TestMachineWithout(t *testing.T) {
	program := tool(t)
	root := disk(t, []entry{{name: "bin"}, {name: "bin/tool", mode: 0o755, body: program}})
	ctx, c, m := boot(t, vm.Spec{Disks: []vm.Disk{{File: root, Serial: "root"}}})
	if err := c.Configure(ctx, guest.Config{Hostname: "box", RootSerial: "root", CA: []byte(testCA), Roots: []byte("carried roots")}); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		cmd  guest.Command
		want result
	}{
		{args("cat", "/etc/ssl/certs/ca-certificates.crt"), result{Out: "carried roots\n" + testCA}},
		{args("addresses"), result{Out: "lo 65536 127.0.0.1/8\nlo 65536 ::1/128\n"}},
		{args("cat", "/etc/resolv.conf"), result{}},
	} {
		if diff := cmp.Diff(test.want, run(t, ctx, c, test.cmd)); diff != "" {
			t.Error(diff)
		}
	}
	p, err := c.Start(ctx, args("sleep"))
	if err != nil {
		t.Fatal(err)
	}
	c.Start(ctx, args("append", "/proc/sysrq-trigger", "b"))
	if exit, err := p.Wait(ctx); err == nil {
		t.Errorf("the command ended: %v", exit)
	}
	if _, err := io.Copy(io.Discard, p.Stdout); err == nil {
		t.Error("its output has an end")
	}
	if _, err := c.Ping(ctx); err == nil {
		t.Error("the guest still answers")
	}
	m.Wait()
}

// TestMachineBadDisk tells what is missing.
func TestMachineBadDisk(t *testing.T) {
	root := disk(t, []entry{{name: "bin"}})
	ctx, c, _ := boot(t, vm.Spec{Disks: []vm.Disk{{File: root, Serial: "other"}}})
	err := c.Configure(ctx, guest.Config{RootSerial: "root"})
	if err == nil || !strings.Contains(err.Error(), "no disk with serial root") {
		t.Errorf("%v", err)
	}
	if _, err := c.Ping(ctx); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}
