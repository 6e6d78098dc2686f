package qemu_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/cutoutdev/cutout/internal/vm"
	"github.com/cutoutdev/cutout/internal/vm/qemu"
)

// saved boots the machine of s, lets its guest keep a word, and returns its
// state.
func saved(t *testing.T, s vm.Spec) []byte {
	t.Helper()
	m, g := boots(t, s)
	g.ask(t, "keep a word of the first")
	var state bytes.Buffer
	start := time.Now()
	if err := m.Save(t.Context(), &state); err != nil {
		t.Fatal(err)
	}
	t.Logf("saved %d MiB in %v", state.Len()>>20, time.Since(start).Round(time.Millisecond))
	if got := g.ask(t, "kept"); got != "a word of the first" {
		t.Errorf("after the save the guest says %q", got)
	}
	m.Kill()
	return state.Bytes()
}

// snapshotSpec is a machine with every kind of device.
func snapshotSpec(t *testing.T) vm.Spec {
	t.Helper()
	s := spec(t)
	f, err := os.CreateTemp(t.TempDir(), "disk")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if _, err := f.Write(bytes.Repeat([]byte("canary-in-a-disk"), 2048)); err != nil {
		t.Fatal(err)
	}
	s.Disks = []vm.Disk{{File: f, Serial: "root-image"}}
	_, s.NIC = pair(t)
	return s
}

// Several machines begin with the state of one, in the same cage as others,
// and go their own ways.
func TestRestore(t *testing.T) {
	s := snapshotSpec(t)
	state := saved(t, s)
	var all []*talker
	for range 2 {
		g := new(talker)
		start := time.Now()
		m, err := qemu.Restore(t.Context(), s, bytes.NewReader(state), g.wake)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(m.Kill)
		t.Logf("awake after %v", time.Since(start).Round(time.Millisecond))
		checkConfined(t, m.Pid())
		all = append(all, g)
	}
	all[0].ask(t, "keep a word of the second")
	for i, want := range []string{"a word of the second", "a word of the first"} {
		if got := all[i].ask(t, "kept"); got != want {
			t.Errorf("guest %d has kept %q, want %q", i, got, want)
		}
		if got := all[i].ask(t, "read /dev/vda"); !strings.Contains(got, "canary-in-a-disk") {
			t.Errorf("guest %d: its disk starts with %q", i, got)
		}
	}
}

// A guest does not run unless its state was read to the end without an error.
func TestRestoreRefuses(t *testing.T) {
	s := snapshotSpec(t)
	state := saved(t, s)
	forged := errors.New("forged")
	for _, tt := range []struct {
		name  string
		state io.Reader
		want  error // nil = whatever QEMU says
	}{
		{"an error at the end", io.MultiReader(bytes.NewReader(state), iotest.ErrReader(forged)), forged},
		{"an error in the middle", io.MultiReader(bytes.NewReader(state[:len(state)/2]), iotest.ErrReader(forged)), forged},
		{"cut short", bytes.NewReader(state[:len(state)/2]), nil},
		{"nothing", bytes.NewReader(nil), io.ErrUnexpectedEOF},
		{"noise", strings.NewReader(strings.Repeat("noise", 1<<20)), nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			woken := false
			m, err := qemu.Restore(t.Context(), s, tt.state, func(ctx context.Context, c net.Conn) error {
				woken = true
				return new(talker).wake(ctx, c)
			})
			if err == nil {
				m.Kill()
				t.Fatal("restored")
			}
			t.Log(err)
			if tt.want != nil && (!errors.Is(err, tt.want) || woken) {
				t.Errorf("error %v, woken %v", err, woken)
			}
		})
	}
}

// A reader that gives up costs the save, not the machine.
func TestSaveFails(t *testing.T) {
	m, g := boots(t, spec(t))
	full := errors.New("no space")
	if err := m.Save(t.Context(), failingWriter{full}); !errors.Is(err, full) || errors.Is(err, qemu.ErrStopped) {
		t.Errorf("error %v", err)
	}
	if got := g.ask(t, "ping"); got != "pong" {
		t.Errorf("after the failed save: %q", got)
	}
}

type failingWriter struct{ err error }

func (w failingWriter) Write([]byte) (int, error) { return 0, w.err }
