//go:build linux

// Command throughput measures how fast one TCP stream passes the boundary:
// from a program in a network namespace through its TAP device and the keeper
// to a server on the loopback, and back. It is compared with a process that
// has gVisor's stack at the same device and nothing else.
//
//	go run ./bench/throughput bin/cutout
//
// The two are interleaved, so that a busy moment hits both. It prints the
// medians and that of the rounds' ratios, and fails if the boundary is too
// slow. It needs root.
package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"syscall"
	"time"

	"github.com/cutoutdev/cutout/bench/boundary"
	"github.com/cutoutdev/cutout/internal/netstack"
	"github.com/cutoutdev/cutout/internal/netstack/frame"
	"github.com/cutoutdev/cutout/internal/netstack/netstacktest"
	"github.com/cutoutdev/cutout/internal/tap"
	"github.com/cutoutdev/cutout/internal/testnet/netns"
)

const (
	rounds = 21
	span   = time.Second / 2 // of one stream

	// minRatio is what the boundary must reach of the bare stack's speed.
	minRatio = 0.8
)

// What the client sends first. It is no text, of which the boundary would wait
// for the rest of a line.
const (
	up   = 0
	down = 1
)

// asBare is the program's first argument when it is the bare stack: the
// device is descriptor 3.
const asBare = "bare-forwarder"

// target is where the client connects: the address that the first name of
// --connect-to has. The bare stack takes any.
var target = netip.MustParseAddr("198.18.0.1")

func main() {
	err := errors.New("usage: throughput CUTOUT")
	switch {
	case len(os.Args) == 3 && os.Args[1] == asBare:
		err = beBare(netip.MustParseAddrPort(os.Args[2]))
	case len(os.Args) == 2:
		err = run(os.Args[1])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "throughput:", err)
		os.Exit(1)
	}
}

// A path is a namespace, the way out of which is measured.
type path struct {
	name     string
	ns       *netns.Namespace
	pid      int       // of what forwards
	up, down []float64 // bytes a second
	cost     []float64 // processor time of what forwards, in seconds a byte
}

func run(cutout string) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer l.Close()
	go serve(l)
	server := l.Addr().(*net.TCPAddr).AddrPort()
	paths := []*path{{name: "bare gVisor forwarder"}, {name: "cutout boundary --tap"}}
	for _, p := range paths {
		if p.ns, err = netns.New(); err != nil {
			return err
		}
		defer p.ns.Close()
	}
	bare, err := startBare(paths[0].ns, server)
	if err != nil {
		return err
	}
	defer func() { bare.Process.Kill(); bare.Wait() }()
	b, err := boundary.Start(cutout, "--tap", "tap0", "--netns", fmt.Sprint(paths[1].ns.PID), "--net-rate", "off",
		"--connect-to", fmt.Sprintf("bench.example.test:%d=%s", server.Port(), server))
	if err != nil {
		return err
	}
	defer b.Close()
	paths[0].pid, paths[1].pid = bare.Process.Pid, b.Keeper
	to := netip.AddrPortFrom(target, server.Port())
	for range rounds {
		for _, p := range paths {
			if err := p.measure(to); err != nil {
				return fmt.Errorf("%s: %w", p.name, err)
			}
		}
	}
	return report(paths)
}

func report(paths []*path) error {
	fmt.Printf("one TCP stream, network namespace to loopback, MTU %d, %d interleaved rounds of %v; median Gbit/s (least to most)\n", netstack.DefaultMTU, rounds, span)
	for _, p := range paths {
		fmt.Printf("  %-22s  out %s  in %s  %.2f s of processor a GB\n", p.name, summary(p.up), summary(p.down), median(p.cost)*1e9)
	}
	out, in := median(ratios(paths[1].up, paths[0].up)), median(ratios(paths[1].down, paths[0].down))
	verdict := "pass"
	if min(out, in) < minRatio {
		verdict = "FAIL"
	}
	fmt.Printf("  ratio in a round: out %.2f, in %.2f; at least %.2f: %s\n", out, in, minRatio, verdict)
	if verdict != "pass" {
		return fmt.Errorf("the boundary has less than %.2f of the bare stack's throughput", minRatio)
	}
	return nil
}

func summary(all []float64) string {
	return fmt.Sprintf("%5.2f (%.2f to %.2f)", gigabits(median(all)), gigabits(slices.Min(all)), gigabits(slices.Max(all)))
}

func gigabits(bytes float64) float64 { return bytes * 8 / 1e9 }

func median(all []float64) float64 {
	sorted := slices.Sorted(slices.Values(all))
	return sorted[len(sorted)/2]
}

// ratios are those of each round.
func ratios(a, b []float64) []float64 {
	out := make([]float64, len(a))
	for i := range a {
		out[i] = a[i] / b[i]
	}
	return out
}

// measure sends one stream out and takes one in.
func (p *path) measure(to netip.AddrPort) error {
	for _, direction := range []byte{up, down} {
		var c net.Conn
		err := p.ns.In(func() (err error) {
			c, err = dial(to)
			return err
		})
		if err != nil {
			return err
		}
		defer c.Close()
		begin, spent := time.Now(), boundary.Processor(p.pid)
		if _, err := c.Write([]byte{direction}); err != nil {
			return err
		}
		if direction == down {
			n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{c}, make([]byte, 256<<10))
			if err != nil {
				return err
			}
			p.down = append(p.down, float64(n)/time.Since(begin).Seconds())
			p.cost = append(p.cost, (boundary.Processor(p.pid)-spent).Seconds()/float64(n))
			continue
		}
		n, err := fill(c)
		if err != nil {
			return err
		}
		c.(*net.TCPConn).CloseWrite()
		if _, err := io.Copy(io.Discard, c); err != nil { // the server has read it all
			return err
		}
		p.up = append(p.up, float64(n)/time.Since(begin).Seconds())
		p.cost = append(p.cost, (boundary.Processor(p.pid)-spent).Seconds()/float64(n))
	}
	return nil
}

// dial tries for as long as an interface takes to be configured.
func dial(to netip.AddrPort) (c net.Conn, err error) {
	for range 100 {
		// Not net.Dial: its socket must be made by this thread.
		if c, err = net.DialTCP("tcp", nil, net.TCPAddrFromAddrPort(to)); err == nil {
			return c, nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	return nil, err
}

// fill writes for span.
func fill(c net.Conn) (n int64, err error) {
	buf := make([]byte, 256<<10)
	for begin := time.Now(); time.Since(begin) < span; {
		m, err := c.Write(buf)
		n += int64(m)
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// serve reads or writes, as the client says.
func serve(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			direction := make([]byte, 1)
			if _, err := io.ReadFull(c, direction); err != nil {
				return
			}
			if direction[0] == down {
				fill(c)
				return
			}
			io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{c}, make([]byte, 256<<10))
		}()
	}
}

// startBare starts this program as the bare stack of ns.
func startBare(ns *netns.Namespace, server netip.AddrPort) (*exec.Cmd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	var device *os.File
	err = ns.In(func() (err error) {
		if device, err = tap.Create("tap0"); err != nil {
			return err
		}
		return tap.Configure("tap0", netstack.DefaultGuestMAC, netstack.DefaultMTU,
			[]tap.Address{{Prefix: netstacktest.Guest4, Gateway: netstacktest.Gateway4, Route: true}})
	})
	if err != nil {
		return nil, err
	}
	defer device.Close()
	cmd := exec.Command(self, asBare, server.String())
	cmd.ExtraFiles, cmd.Stderr = []*os.File{device}, os.Stderr
	// In a session of its own, as the keeper is: the kernel shares processor
	// time out by session.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
	return cmd, cmd.Start()
}

func beBare(server netip.AddrPort) error {
	if err := syscall.SetNonblock(3, true); err != nil {
		return err
	}
	device, err := frame.NewDevice(os.NewFile(3, "tap"))
	if err != nil {
		return err
	}
	return netstacktest.Forward(device, netip.PrefixFrom(netstacktest.Gateway4, netstacktest.Guest4.Bits()), server)
}
