package keeper

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/cutoutdev/cutout/internal/hostname"
	"github.com/cutoutdev/cutout/internal/image"
	"github.com/cutoutdev/cutout/internal/secret"
	"github.com/cutoutdev/cutout/internal/source"
	"github.com/cutoutdev/cutout/internal/vm/cage"
	"github.com/cutoutdev/cutout/internal/vm/qemu"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// A given value is one on its way to the keeper.
type given struct {
	Name string
	Data []byte
}

func testSpec(t *testing.T, names ...string) (Spec, []given) {
	t.Helper()
	p, err := hostname.ParsePattern("*.good.example")
	if err != nil {
		t.Fatal(err)
	}
	var spec Spec
	var values []given
	for _, n := range names {
		spec.Secrets = append(spec.Secrets, secret.Secret{
			Name: n, Placeholder: "$MSB_" + n, Hosts: []secret.Host{{Pattern: p, Port: 443}},
			OnViolation: &secret.Violation{Action: secret.Passthrough, Hosts: []hostname.Pattern{p}},
		})
		values = append(values, given{n, []byte("value-of-" + n)})
	}
	return spec, values
}

// receive runs a hand-over over real sockets, as CLI and source helper do it.
func receive(t *testing.T, spec Spec, values []given) (Spec, *secret.Store, []*secret.Secret, error) {
	t.Helper()
	return receiveFrom(t, func(w io.Writer) { sendSpec(w, spec) }, func(w io.Writer) {
		var named []source.Named
		for _, v := range values {
			b, err := source.Hold(bytes.Clone(v.Data))
			if err != nil {
				t.Error(err)
			}
			defer b.Close()
			named = append(named, source.Named{Name: v.Name, Value: source.Value{Data: b}})
		}
		source.WriteValues(w, named)
	})
}

func receiveFrom(t *testing.T, cli, helper func(io.Writer)) (Spec, *secret.Store, []*secret.Secret, error) {
	t.Helper()
	var ends [2]*os.File
	for i, write := range []func(io.Writer){cli, helper} {
		conn, theirs, err := socketPair("test")
		if err != nil {
			t.Fatal(err)
		}
		defer theirs.Close()
		ends[i] = theirs
		go func() {
			defer conn.Close()
			write(conn)
		}()
	}
	h, err := receiveHandover(int(ends[0].Fd()), int(ends[1].Fd()))
	if h.store != nil {
		t.Cleanup(func() { h.store.Close() })
	}
	return h.spec, h.store, h.secrets, err
}

func TestHandover(t *testing.T) {
	spec, values := testSpec(t, "ONE", "TWO")
	got, _, secrets, err := receive(t, spec, values)
	if err != nil {
		t.Fatal(err)
	}
	samePattern := cmp.Comparer(func(a, b hostname.Pattern) bool { return a == b })
	noValue := cmp.Comparer(func(a, b secret.Value) bool { return a.IsZero() && b.IsZero() })
	if d := cmp.Diff(spec, got, samePattern, noValue, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); d != "" {
		t.Error(d)
	}
	if len(secrets) != 2 || secrets[0].Value.Len() != len("value-of-ONE") {
		t.Errorf("got %v", secrets)
	}
}

func TestHandoverRefuses(t *testing.T) {
	tests := map[string]func(spec *Spec, values *[]given){
		"a missing value":  func(_ *Spec, v *[]given) { *v = (*v)[:1] },
		"another order":    func(_ *Spec, v *[]given) { (*v)[0], (*v)[1] = (*v)[1], (*v)[0] },
		"a line break":     func(_ *Spec, v *[]given) { (*v)[1].Data = []byte("value\r\nX-Injected: 1") },
		"an empty value":   func(s *Spec, v *[]given) { s.Secrets[1].Short, (*v)[1].Data = true, nil },
		"a short value":    func(_ *Spec, v *[]given) { (*v)[1].Data = []byte("short") },
		"an endless value": func(_ *Spec, v *[]given) { (*v)[1].Data = bytes.Repeat([]byte("x"), secret.MaxValue+1) },
	}
	for name, change := range tests {
		spec, values := testSpec(t, "ONE", "TWO")
		change(&spec, &values)
		_, _, _, err := receive(t, spec, values)
		if err == nil {
			t.Errorf("%s was accepted", name)
		} else if strings.Contains(err.Error(), "value-of") || strings.Contains(err.Error(), "Injected") {
			t.Errorf("%s: the error repeats a value: %v", name, err)
		}
	}
	spec, _ := testSpec(t, "ONE")
	for name, raw := range map[string]string{
		"nothing": "", "half a length": "\x00\x00", "4 GiB": "\xff\xff\xff\xff{}", "no JSON": "\x00\x00\x00\x02}{",
		"half a header": "\x00\x00\x00\x10{}",
	} {
		write := func(w io.Writer) { io.WriteString(w, raw) }
		if _, _, _, err := receiveFrom(t, write, write); err == nil {
			t.Errorf("%s was accepted", name)
		}
		if _, _, _, err := receiveFrom(t, func(w io.Writer) { sendSpec(w, spec) }, write); err == nil {
			t.Errorf("%s was accepted for values", name)
		}
	}
}

// TestOddValues holds D1 and D6: values that no header's grammar likes, that
// are as long or as short as can be, have room with all that is derived from
// them, in the sets before and after a change.
func TestOddValues(t *testing.T) {
	for name, value := range map[string]string{
		"non-ASCII":   "p\u00e4ss \U0001f511 w\u00f6rd",
		"no UTF-8":    "\xff\xfe\x80 12345678",
		"punctuation": `a"b'c&d#e f%g<h>i\j/k+l=m;n,o`,
		"tabs":        "\tvalue\twith\ttabs\t",
		"64 KiB":      strings.Repeat("0123456789abcdef", secret.MaxValue/16),
		"odd 64 KiB":  strings.Repeat("\x01\"\u00e9% \\<&", secret.MaxValue/9),
		"short":       "4711",
	} {
		spec, values := testSpec(t, "ONE", "TWO")
		values[0].Data = []byte(value)
		spec.Secrets[0].Short = len(value) < secret.MinValue
		_, _, secrets, err := receive(t, spec, values)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		for range 2 {
			if _, err := secret.NewSet(secrets); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			needles, err := secret.NewNeedles(secrets)
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			defer needles.Close()
		}
	}
}

func TestPlan(t *testing.T) {
	to := netip.MustParseAddrPort("127.0.0.1:8443")
	p := newPlan([]ConnectTo{{"a.example", 443, to}, {"a.example", 80, to}, {"b.example", 443, to}})
	if len(p.names["a.example"]) != 2 || p.names["a.example"][0] == p.names["b.example"][0] {
		t.Errorf("got %v", p.names)
	}
	for _, a := range p.names["a.example"] {
		if got, name, ok := p.connectTo(netip.AddrPortFrom(a, 80)); !ok || got != to || name != "a.example" {
			t.Errorf("%s:80 → %v %s %t", a, got, name, ok)
		}
		if _, _, ok := p.connectTo(netip.AddrPortFrom(a, 22)); ok {
			t.Errorf("%s:22 is open without being listed", a)
		}
	}
	link := netip.MustParsePrefix("198.19.0.0/16")
	for range 1000 {
		p := newPlan(nil)
		if !link.Contains(p.gateway4) || !p.guest4.Contains(p.gateway4) || p.guest4.Addr() == p.gateway4 ||
			!p.guest6.Contains(p.gateway6) || !p.gateway6.IsPrivate() {
			t.Fatalf("got %+v", p)
		}
	}
}

func TestMergeEnv(t *testing.T) {
	got := mergeEnv([]string{"A=1", "B=2", "A=3"}, []string{"B=4", "C=", "D"})
	if d := cmp.Diff([]string{"A=3", "B=4", "C=", "D"}, got); d != "" {
		t.Error(d)
	}
}

func TestFrames(t *testing.T) {
	var wire bytes.Buffer
	f := frameWriter{w: &wire}
	f.write(frameStdout, []byte("hello"))
	f.write(frameStdin, nil)
	f.writeJSON(frameResize, size{24, 80})
	var buf []byte
	for _, want := range []struct {
		kind    frameKind
		payload string
	}{{frameStdout, "hello"}, {frameStdin, ""}, {frameResize, `{"rows":24,"cols":80}`}} {
		kind, payload, err := readFrame(&wire, &buf)
		if err != nil || kind != want.kind || string(payload) != want.payload {
			t.Errorf("got %d %q %v", kind, payload, err)
		}
	}
}

func FuzzReadFrame(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x00\x00"))
	f.Add([]byte("\x01\x00\x00\x00\x02{}"))
	f.Add([]byte("\xff\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, data []byte) {
		r := bytes.NewReader(data)
		var buf []byte
		for {
			kind, payload, err := readFrame(r, &buf)
			if err != nil {
				return
			}
			if kind >= frameKindsEnd || len(payload) > maxFrame {
				t.Fatalf("frame of kind %d and %d bytes", kind, len(payload))
			}
		}
	})
}

// TestControlSocketModes: nobody but this uid gets as far as connecting.
func TestControlSocketModes(t *testing.T) {
	l, err := listen(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	conns := make(chan net.Conn, 1)
	go func() {
		if c, err := l.Accept(); err == nil {
			conns <- c
		}
	}()
	c, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	(<-conns).Close()
}

func TestFailureHints(t *testing.T) {
	for name, err := range map[string]error{
		"memory":   &qemu.ExitError{Reason: qemu.ErrNoMemory},
		"no qemu":  fmt.Errorf("start: %w", qemu.ErrNotFound),
		"cage":     &cage.MissingError{Parts: []string{"system call filter"}},
		"disk":     fmt.Errorf("make volume: %w", unix.ENOSPC),
		"volume":   fmt.Errorf("make volume: %w", image.ErrNoSpace),
		"own hint": &Failure{Text: "x", Hint: "y"},
	} {
		if f := failure(err); f.Text == "" || f.Hint == "" {
			t.Errorf("%s: %+v", name, f)
		}
	}
}
