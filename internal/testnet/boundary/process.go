package boundary

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cutoutdev/cutout/internal/audit"
	"github.com/cutoutdev/cutout/internal/keeper"
	"github.com/cutoutdev/cutout/internal/netstack"
	"github.com/cutoutdev/cutout/internal/netstack/netstacktest"
	"github.com/cutoutdev/cutout/internal/secret"
)

// A process is a running cutout boundary.
type process struct {
	way     Way
	machine *machine
	dir     string // its home and its files
	cmd     *exec.Cmd
	said    bytes.Buffer
	ended   chan struct{}

	env       map[string]string // what the workload is told
	authority []byte            // PEM
	id        string
}

// startLimit is generous: several are started at once, beside the tests.
const startLimit = time.Minute

// launch starts the program with flags and plugs the guest in.
func (b *Boundary) launch(flags []string) {
	p := b.process
	env := []string{"PATH=" + os.Getenv("PATH"), "CUTOUT_HOME=" + filepath.Join(p.dir, "home")}
	for _, s := range b.Secrets {
		env = append(env, s.Name+"="+b.texts[s.Value])
	}
	args := append([]string{"boundary", "--env-file", p.file("env"), "--ca-file", p.file("ca")}, flags...)
	switch b.Way {
	case Unix:
		args = append(args, "--unix", p.file("sock"))
	case Tap:
		args = append(args, "--tap", guestInterface, "--netns", fmt.Sprint(p.machine.guest.PID))
	default:
		args = append(args, "--listen", "127.0.0.1:0")
	}
	p.cmd = exec.Command(b.Program, args...)
	p.cmd.Env, p.cmd.Stderr = env, &p.said
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM} // a test may be killed
	if err := errors.Join(b.CA.WriteFile(p.file("ca.pem")), p.machine.ns.In(p.cmd.Start)); err != nil {
		b.T.Fatal(err)
	}
	go func() {
		defer close(p.ended)
		p.cmd.Wait()
	}()
	b.T.Cleanup(func() { p.stop(b.T) })
	p.await(b.T)
	b.follow()
	if b.Way.Proxy() {
		return
	}
	var err error
	if b.Guest, err = p.plug(); err != nil {
		b.T.Fatal(err)
	}
	b.T.Cleanup(b.Guest.Close)
	for _, x := range b.pins {
		b.Pin(x.name, x.addr)
	}
}

// prepare makes what flags speak of.
func (b *Boundary) prepare() {
	dir := Must(os.MkdirTemp("", "way")) // a test's own has too long a name for a socket's
	b.T.Cleanup(func() { os.RemoveAll(dir) })
	p := &process{way: b.Way, dir: dir, ended: make(chan struct{}), env: map[string]string{}}
	var err error
	if p.machine, err = newMachine(b); err != nil {
		b.T.Fatal(err)
	}
	b.process = p
}

func (p *process) file(name string) string { return filepath.Join(p.dir, name) }

// guestInterface is what --tap is told to make.
const guestInterface = "cut0"

// await waits until the workload can be plugged in.
func (p *process) await(t testing.TB) {
	t.Helper()
	for deadline := time.Now().Add(startLimit); !p.ready(); time.Sleep(5 * time.Millisecond) {
		select {
		case <-p.ended:
			t.Fatalf("it ended: %s", p.said.String())
		default:
		}
		if time.Now().After(deadline) {
			t.Fatal("it does not start")
		}
	}
	text := Must(os.ReadFile(p.file("env")))
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		p.env[name] = value
	}
	p.authority = Must(os.ReadFile(p.file("ca")))
	logs := Must(filepath.Glob(p.file("home/sandboxes/*")))
	if len(logs) != 1 {
		t.Fatalf("there are the sandboxes %v", logs)
	}
	p.id = filepath.Base(logs[0])
}

func (p *process) ready() bool {
	if _, err := os.Stat(p.file("env")); err != nil {
		return false
	}
	if p.way != Tap {
		return true
	}
	routed := false
	p.machine.guest.In(func() error { // the route is what is made last
		table, err := os.ReadFile("/proc/thread-self/net/route")
		routed = bytes.Contains(table, []byte(guestInterface+"\t00000000\t"))
		return err
	})
	return routed
}

// plug puts a guest at the end of the cable.
func (p *process) plug() (*netstacktest.Guest, error) {
	cfg := netstack.Config{
		Guest4: netip.MustParsePrefix(p.env["CUTOUT_ADDRESS4"]), Gateway4: netip.MustParseAddr(p.env["CUTOUT_GATEWAY4"]),
		Guest6: netip.MustParsePrefix(p.env["CUTOUT_ADDRESS6"]), Gateway6: netip.MustParseAddr(p.env["CUTOUT_GATEWAY6"]),
	}
	if p.way == Unix {
		c, err := net.Dial("unix", p.file("sock"))
		if err != nil {
			return nil, err
		}
		return netstacktest.New(c, cfg)
	}
	if _, err := p.machine.guest.Run("ip", "addr", "flush", "dev", guestInterface); err != nil {
		return nil, err
	}
	link, err := p.machine.packets(guestInterface)
	if err != nil {
		return nil, err
	}
	return netstacktest.NewOn(link, cfg)
}

// follow notes what is written to the audit log, until the test ends.
func (b *Boundary) follow() {
	p := b.process
	log := Must(audit.Open(filepath.Join(p.dir, "home/sandboxes", p.id, "audit.jsonl")))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer log.Close()
		for {
			line, err := log.Next()
			switch {
			case errors.Is(err, io.EOF):
				select {
				case <-ctx.Done():
					return
				case <-time.After(2 * time.Millisecond):
				}
				continue
			case err != nil:
				b.T.Error(err)
				return
			}
			var e audit.Event
			if err := json.Unmarshal(line, &e); err != nil {
				b.T.Errorf("an event that cannot be read: %v: %s", err, line)
			}
			b.Events.Note(e)
		}
	}()
	b.T.Cleanup(func() { cancel(); <-done })
}

// run runs the program on the machine, as its user would, and reads the JSON
// that it prints. Nobody from elsewhere would be answered.
func (p *process) run(into any, env []string, args ...string) error {
	var out bytes.Buffer
	cmd := exec.Command(p.cmd.Path, args...)
	cmd.Env, cmd.Stdout, cmd.Stderr = append(slices.Clone(p.cmd.Env), env...), &out, &out
	err := p.machine.ns.In(cmd.Start)
	if err == nil {
		err = cmd.Wait()
	}
	if err == nil {
		err = json.Unmarshal(out.Bytes(), into)
	}
	if err != nil {
		return fmt.Errorf("cutout %s: %w: %s", args[0], err, out.String())
	}
	return nil
}

func (p *process) dropped(t testing.TB, cause netstack.Cause) uint64 {
	var n keeper.NetState
	if err := p.run(&n, nil, "net", "--json", p.id); err != nil {
		t.Fatal(err)
	}
	return n.Dropped[cause.String()]
}

// modify puts s in the place of the secret of its name.
func (p *process) modify(s *secret.Secret, value string, wait time.Duration) (aborted int, err error) {
	flag := []string{"--secret", s.Name + "@" + hostWords(s.Hosts)}
	if s.State == secret.Removed {
		flag = []string{"--secret-rm", s.Name}
	}
	var done keeper.Changed
	err = p.run(&done, []string{s.Name + "=" + value}, append([]string{"modify", "--json", "--drain", wait.String(), p.id}, flag...)...)
	return done.Aborted, err
}

// stop ends the boundary, which must not have failed, nor have left anything,
// nor have told a value.
func (p *process) stop(t testing.TB) {
	p.cmd.Process.Signal(os.Interrupt)
	select {
	case <-p.ended:
	case <-time.After(startLimit):
		t.Error("it does not end")
		p.cmd.Process.Kill()
		<-p.ended
	}
	// Interrupted, or unplugged before; it may be interrupted when it has
	// cleaned up and does not listen any more.
	if code := p.cmd.ProcessState.ExitCode(); code != 0 && code != 130 && p.cmd.ProcessState.String() != "signal: interrupt" {
		t.Errorf("%s: %s", p.cmd.ProcessState, p.said.String())
	}
	if strings.Contains(p.said.String(), Value) {
		t.Errorf("it tells the value: %s", p.said.String())
	}
	for _, name := range []string{"env", "ca", "sock"} {
		if _, err := os.Lstat(p.file(name)); err == nil {
			t.Errorf("%s is left behind", name)
		}
	}
}

// Dirs are where the boundary's files are.
func (b *Boundary) Dirs() []string {
	dirs := []string{filepath.Dir(b.T.TempDir())}
	if b.process != nil {
		dirs = append(dirs, b.process.dir)
	}
	return dirs
}
