package qemu

import (
	"bufio"
	"encoding/binary"
	"io"
)

// QEMU's state is a stream of sections, of which the first is the memory: a
// record for each page, most of them to say that a page is zero. A machine
// that begins with the state would look at each of those pages, which is a
// page fault for each, to find that they are zero anyway. So they are left
// out.
//
// The format is as old as QEMU's migration; from the first thing on that is
// not known, the state is copied as it is.
const (
	stateMagic   = 0x5145564d
	stateVersion = 3

	sectionStart         = 0x01
	sectionPart          = 0x02
	sectionEnd           = 0x03
	sectionConfiguration = 0x07
	sectionFooter        = 0x7e

	// Flags of a memory record, below the page's address.
	recordZero  = 0x02
	recordSizes = 0x04 // the names and sizes of all blocks
	recordPage  = 0x08
	recordEnd   = 0x10
	recordSame  = 0x20 // the block is that of the record before
	recordFlags = statePage - 1

	statePage = 4096
)

// copyState copies QEMU's state without the records of zero pages.
func copyState(w io.Writer, r io.Reader) error {
	t := &thinner{in: bufio.NewReaderSize(r, 256<<10), out: bufio.NewWriterSize(w, 256<<10)}
	if t.u32() == stateMagic && t.u32() == stateVersion {
		for t.section() {
		}
	}
	if t.err == nil {
		_, t.err = t.in.WriteTo(t.out)
	}
	if err := t.out.Flush(); t.err == nil { // or it is the same again
		t.err = err
	}
	return t.err
}

// A thinner copies what its methods read. After an error they do nothing.
type thinner struct {
	in  *bufio.Reader
	out *bufio.Writer
	err error
}

// section copies a section and says whether the next may be one that it
// knows. The memory is the only one that comes in parts.
func (t *thinner) section() bool {
	kind, err := t.in.Peek(1)
	if err != nil {
		return false // the end, as it seems
	}
	switch kind[0] {
	case sectionConfiguration:
		t.copy(1)
		t.copy(int64(t.u32())) // the machine's name
	case sectionFooter:
		t.copy(1 + 4)
	case sectionStart:
		t.copy(1 + 4)
		if name := t.name(); name != "ram" {
			return false
		}
		t.copy(4 + 4)
		return t.memory()
	case sectionPart, sectionEnd:
		t.copy(1 + 4)
		return t.memory()
	default:
		return false
	}
	return t.err == nil
}

// memory copies records up to the one that ends a section.
func (t *thinner) memory() bool {
	for t.err == nil {
		head, err := t.in.Peek(8)
		if err != nil {
			return false
		}
		v := binary.BigEndian.Uint64(head)
		flags := v & recordFlags
		if flags == recordZero|recordSame {
			if _, err := t.in.Discard(8 + 1); err != nil {
				t.out.Write(binary.BigEndian.AppendUint64(nil, v)) // it is cut, and stays as it is
				return false
			}
			continue
		}
		switch flags &^ recordSame {
		case recordEnd, recordZero, recordPage, recordSizes:
		default:
			return false
		}
		t.copy(8)
		if flags == recordEnd {
			return t.err == nil
		}
		if flags == recordSizes {
			t.sizes(int64(v &^ recordFlags))
			continue
		}
		if flags&recordSame == 0 {
			t.name()
		}
		if flags&recordZero != 0 {
			t.copy(1)
		} else {
			t.copy(statePage)
		}
	}
	return false
}

// sizes copies the list of blocks, whose sizes add up to total.
func (t *thinner) sizes(total int64) {
	for total > 0 && t.err == nil {
		t.name()
		total -= int64(t.u32())<<32 | int64(t.u32())
	}
}

// name copies a string after its length.
func (t *thinner) name() string {
	n, err := t.in.ReadByte()
	if err != nil {
		t.fail(err)
		return ""
	}
	t.out.WriteByte(n)
	b := make([]byte, n)
	if _, err := io.ReadFull(t.in, b); err != nil {
		t.fail(err)
	}
	t.out.Write(b)
	return string(b)
}

func (t *thinner) u32() uint32 {
	var b [4]byte
	if t.err == nil {
		if _, err := io.ReadFull(t.in, b[:]); err != nil {
			t.fail(err)
		}
		t.out.Write(b[:])
	}
	return binary.BigEndian.Uint32(b[:])
}

func (t *thinner) copy(n int64) {
	for n > 0 && t.err == nil {
		if _, err := t.in.Peek(1); err != nil {
			t.fail(err)
			return
		}
		b, _ := t.in.Peek(int(min(n, int64(t.in.Buffered()))))
		t.out.Write(b)
		t.in.Discard(len(b))
		n -= int64(len(b))
	}
}

func (t *thinner) fail(err error) {
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	t.err = err
}
