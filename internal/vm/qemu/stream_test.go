package qemu

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"testing"
	"testing/iotest"
)

// A stateWriter makes a state as QEMU would.
type stateWriter struct{ bytes.Buffer }

func (w *stateWriter) u32(v uint32)  { w.Write(binary.BigEndian.AppendUint32(nil, v)) }
func (w *stateWriter) u64(v uint64)  { w.Write(binary.BigEndian.AppendUint64(nil, v)) }
func (w *stateWriter) name(s string) { w.WriteByte(byte(len(s))); w.WriteString(s) }
func (w *stateWriter) footer()       { w.WriteByte(sectionFooter); w.u32(2) }

func (w *stateWriter) head() {
	w.u32(stateMagic)
	w.u32(stateVersion)
	w.WriteByte(sectionConfiguration)
	w.u32(7)
	w.WriteString("microvm")
	w.WriteByte(sectionStart)
	w.u32(2)
	w.name("ram")
	w.u32(0)
	w.u32(4)
	w.u64(3<<12 | recordSizes)
	w.name("microvm.ram")
	w.u64(2 << 12)
	w.name("bios")
	w.u64(1 << 12)
	w.u64(recordEnd)
	w.footer()
}

// part writes pages, of which those that are 0 are zero.
func (w *stateWriter) part(kind byte, thin bool, pages ...byte) {
	w.WriteByte(kind)
	w.u32(2)
	for i, p := range pages {
		flags, first := uint64(recordSame), i == 0
		if first {
			flags = 0
		}
		at := uint64(i) << 12
		switch {
		case p == 0 && thin && !first:
			continue
		case p == 0:
			w.u64(at | flags | recordZero)
		default:
			w.u64(at | flags | recordPage)
		}
		if first {
			w.name("microvm.ram")
		}
		if p == 0 {
			w.WriteByte(0)
		} else {
			w.Write(bytes.Repeat([]byte{p}, statePage))
		}
	}
	w.u64(recordEnd)
	w.footer()
}

// state is a whole one, with devices after the memory.
func state(thin bool) []byte {
	w := new(stateWriter)
	w.head()
	w.part(sectionPart, thin, 0, 0, 1, 0, 2)
	w.part(sectionPart, thin, 3, 0, 0)
	w.part(sectionEnd, thin, 0)
	w.WriteByte(0x04) // a device
	w.u64(recordZero | recordSame)
	w.WriteString("whatever follows")
	return w.Bytes()
}

func copied(r io.Reader) ([]byte, error) {
	var out bytes.Buffer
	err := copyState(&out, r)
	return out.Bytes(), err
}

func TestCopyState(t *testing.T) {
	full, thin := state(false), state(true)
	if len(thin) != len(full)-4*9 {
		t.Fatalf("%d and %d bytes", len(full), len(thin))
	}
	for name, r := range map[string]io.Reader{
		"at once": bytes.NewReader(full), "by byte": iotest.OneByteReader(bytes.NewReader(full)),
		"thin": bytes.NewReader(thin),
	} {
		if got, err := copied(r); err != nil || !bytes.Equal(got, thin) {
			t.Errorf("%s: %d bytes, %v; want %d", name, len(got), err, len(thin))
		}
	}
}

// What is not known is copied as it is.
func TestCopyUnknownState(t *testing.T) {
	full := state(false)
	for name, change := range map[string]func([]byte){
		"magic":          func(b []byte) { b[0]++ },
		"version":        func(b []byte) { b[7]++ },
		"section":        func(b []byte) { b[8] = 0x55 },
		"another memory": func(b []byte) { b[bytes.Index(b, []byte("ram"))]++ },
	} {
		in := bytes.Clone(full)
		change(in)
		got, err := copied(bytes.NewReader(in))
		if err != nil || !bytes.Equal(got, in) {
			t.Errorf("%s: %d of %d bytes, %v", name, len(got), len(in), err)
		}
	}
	for _, text := range []string{"", "short", "no state at all"} {
		if got, err := copied(bytes.NewReader([]byte(text))); string(got) != text && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%q became %q, %v", text, got, err)
		}
	}
}

func TestCopyStateFails(t *testing.T) {
	broken := errors.New("broken")
	full := state(false)
	for _, n := range []int{0, 5, 30, 100, 5000, len(full) - 3} {
		r := io.MultiReader(bytes.NewReader(full[:n]), iotest.ErrReader(broken))
		if _, err := copied(r); !errors.Is(err, broken) {
			t.Errorf("after %d bytes: %v", n, err)
		}
	}
	if err := copyState(failing{broken}, bytes.NewReader(full)); !errors.Is(err, broken) {
		t.Errorf("write: %v", err)
	}
}

type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }

// FuzzCopyState: whatever comes is copied but for records of zero pages, and
// what is copied is not changed by copying it again.
func FuzzCopyState(f *testing.F) {
	w := new(stateWriter) // without pages, which the fuzzer would try to make shorter
	w.head()
	w.part(sectionPart, false, 0, 0)
	w.part(sectionEnd, false, 0)
	w.WriteString("and devices")
	f.Add(w.Bytes())
	f.Fuzz(func(t *testing.T, in []byte) {
		once, err := copied(bytes.NewReader(in))
		if err != nil {
			return
		}
		if (len(in)-len(once))%9 != 0 {
			t.Fatalf("%d bytes became %d", len(in), len(once))
		}
		if twice, err := copied(bytes.NewReader(once)); err != nil || !bytes.Equal(once, twice) {
			t.Fatalf("copied again: %v", err)
		}
	})
}
