package secret

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strings"

	"golang.org/x/net/http2/hpack"
)

// RFC 9113 §3.4, §4.1, §6.
const (
	prefaceLen     = 24
	frameHeader    = 9
	frameData      = 0x0
	frameHeaders   = 0x1
	frameReset     = 0x3
	framePush      = 0x5
	frameContinued = 0x9
	flagEndStream  = 0x1
	flagEndHeaders = 0x4
	flagPadded     = 0x8
	flagPriority   = 0x20
	priorityLen    = 5
)

// maxFragment makes a frame with its header fill one slot and one TLS
// record. It is below the least SETTINGS_MAX_FRAME_SIZE a peer may set, so
// the peer's setting need not be known.
const maxFragment = slotSize - frameHeader - priorityLen

// maxBlock bounds a header block; the re-framer lets through far less.
const maxBlock = 1 << 20

// A framer follows the frames that net/http's client writes. Header blocks
// are decoded and encoded anew, without dynamic table; a field with a marker
// becomes a literal that is never indexed (RFC 7541 §6.2.3, §7.1.3), so that
// neither side's table nor any compression state ever holds a value. DATA
// frames keep their lengths; a marker in them is swapped at its place, piece by
// piece if it lies over several. All other frames pass as they are.
type framer struct {
	seal    *Seal
	preface int // bytes of the preface that have passed

	head  [frameHeader]byte
	nhead int // bytes of head that are there
	left  int // bytes of the frame's payload to come

	payload  []byte // of the HEADERS or CONTINUATION frame so far
	block    []byte // header block so far
	open     bool   // CONTINUATION must follow
	bodies   map[uint32]*Body
	body     *Body // of the DATA frame; nil if it has no markers
	claimed  *Body // by the header block
	stream   uint32
	flags    byte // of the HEADERS frame
	priority [priorityLen]byte

	dec     *hpack.Decoder
	enc     *hpack.Encoder
	encoded bytes.Buffer
	found   error  // what went wrong while a field was encoded
	out     []byte // to be written
}

var errFrames = errors.New("malformed HTTP/2 frame from the client")

func newFramer(s *Seal) *framer {
	f := &framer{seal: s}
	f.dec = hpack.NewDecoder(4096, f.field) // RFC 9113 §6.5.2: the initial size
	// The client follows the peer's SETTINGS_HEADER_TABLE_SIZE, which the seal
	// does not read: it goes along with every size that the client announces.
	f.dec.SetAllowedMaxDynamicTableSize(1<<32 - 1)
	f.enc = hpack.NewEncoder(&f.encoded)
	f.enc.SetMaxDynamicTableSize(0)
	return f
}

// write takes the next bytes of the client.
func (f *framer) write(p []byte) error {
	if f.left >= len(p) && f.nhead == frameHeader && !f.collects() {
		if err := f.through(p, 0); err != nil {
			return err
		}
		return f.seal.emit(p)
	}
	f.out = f.out[:0]
	for len(p) > 0 {
		n, err := f.step(p)
		if err != nil {
			return err
		}
		p = p[n:]
	}
	return f.seal.emit(f.out)
}

// through takes bytes of a payload that passes as it is, but for the places
// of a body. base is where they will stand in what is written.
func (f *framer) through(p []byte, base int) error {
	f.advance(len(p))
	if f.body == nil {
		return nil
	}
	return f.body.pass(p, base, f.left == 0 && f.head[4]&flagEndStream != 0)
}

// collects reports whether the current frame is part of a header block.
func (f *framer) collects() bool {
	return f.nhead == frameHeader && (f.head[3] == frameHeaders || f.head[3] == frameContinued)
}

func (f *framer) advance(n int) {
	if f.left -= n; f.left == 0 {
		f.nhead = 0
	}
}

// step takes some bytes of p and returns how many.
func (f *framer) step(p []byte) (int, error) {
	switch {
	case f.preface < prefaceLen:
		n := min(prefaceLen-f.preface, len(p))
		f.preface += n
		f.out = append(f.out, p[:n]...)
		return n, nil
	case f.nhead < frameHeader:
		n := copy(f.head[f.nhead:], p)
		if f.nhead += n; f.nhead < frameHeader {
			return n, nil
		}
		return n, f.begin()
	}
	n := min(f.left, len(p))
	if !f.collects() {
		err := f.through(p[:n], len(f.out))
		f.out = append(f.out, p[:n]...)
		return n, err
	}
	f.payload = append(f.payload, p[:n]...)
	f.advance(n)
	if f.left == 0 {
		return n, f.end()
	}
	return n, nil
}

// begin looks at a complete frame header.
func (f *framer) begin() error {
	f.left = int(f.head[0])<<16 | int(f.head[1])<<8 | int(f.head[2])
	kind := f.head[3]
	stream := binary.BigEndian.Uint32(f.head[5:]) & (1<<31 - 1)
	switch {
	case f.open != (kind == frameContinued) || f.open && stream != f.stream:
		return errFrames // RFC 9113 §6.10
	case kind == framePush:
		return errFrames // RFC 9113 §8.4: a client cannot push
	case !f.collects():
		f.out = append(f.out, f.head[:]...)
		return f.pass(kind, stream)
	case stream == 0 || f.left+len(f.block) > maxBlock:
		return errFrames
	}
	f.stream = stream
	f.payload = f.payload[:0]
	if f.left == 0 {
		f.nhead = 0
		return f.end()
	}
	return nil
}

// pass begins a frame that passes as it is.
func (f *framer) pass(kind byte, stream uint32) error {
	if f.left == 0 {
		f.nhead = 0
	}
	f.body = nil
	if kind != frameData && kind != frameReset {
		return nil
	}
	b := f.bodies[stream]
	if b == nil {
		return nil
	}
	ends := f.head[4]&flagEndStream != 0
	switch {
	case kind == frameReset:
		delete(f.bodies, stream)
		return nil
	case f.head[4]&flagPadded != 0:
		return errFrames // the client pads nothing
	case ends:
		delete(f.bodies, stream)
	}
	if f.left == 0 {
		return b.pass(nil, 0, ends)
	}
	f.body = b
	return nil
}

// end takes a complete HEADERS or CONTINUATION frame.
func (f *framer) end() error {
	fragment := f.payload
	if f.head[3] == frameHeaders {
		f.flags = f.head[4]
		f.block = f.block[:0]
		var err error
		if fragment, err = f.unwrap(fragment); err != nil {
			return err
		}
	}
	f.block = append(f.block, fragment...)
	f.open = f.head[4]&flagEndHeaders == 0
	if f.open {
		return nil
	}
	return f.rewrite()
}

// unwrap strips padding and priority from the payload of a HEADERS frame.
func (f *framer) unwrap(p []byte) ([]byte, error) {
	if f.flags&flagPadded != 0 {
		if len(p) == 0 || int(p[0]) >= len(p) {
			return nil, errFrames
		}
		p = p[1 : len(p)-int(p[0])]
	}
	if f.flags&flagPriority != 0 {
		if len(p) < priorityLen {
			return nil, errFrames
		}
		p = p[copy(f.priority[:], p):]
	}
	return p, nil
}

// rewrite appends the header block, encoded anew, to out.
func (f *framer) rewrite() error {
	f.encoded.Reset()
	first := len(f.seal.swaps)
	if _, err := f.dec.Write(f.block); err != nil {
		return err
	}
	if err := f.dec.Close(); err != nil {
		return err
	}
	if f.found != nil {
		return f.found
	}
	f.frame(f.encoded.Bytes(), first)
	return f.bind()
}

// bind gives the stream of a header block its body, or takes it if the
// block ends it.
func (f *framer) bind() error {
	b := f.claimed
	f.claimed = nil
	ends := f.flags&flagEndStream != 0
	if old := f.bodies[f.stream]; old != nil {
		if b != nil {
			return errFrames
		}
		if b = old; !ends {
			return errFrames // RFC 9113 §8.1: trailers end the stream
		}
	}
	switch {
	case b == nil:
		return nil
	case ends:
		delete(f.bodies, f.stream)
		return b.pass(nil, 0, true)
	case f.bodies == nil:
		f.bodies = make(map[uint32]*Body)
	}
	f.bodies[f.stream] = b
	return nil
}

// field encodes one field. The decoder calls it.
func (f *framer) field(h hpack.HeaderField) {
	if strings.EqualFold(h.Name, f.seal.field) {
		if f.claimed != nil {
			f.note(errFrames)
		}
		if f.claimed = f.seal.claim(h.Value); f.claimed == nil {
			f.note(errFrames)
		}
		return
	}
	if !strings.Contains(h.Value, f.seal.prefix) {
		f.note(f.enc.WriteField(h))
		return
	}
	before := len(f.seal.swaps)
	// Never indexed literal with a literal name; the value without Huffman
	// coding, so that the marker's place and length are the value's.
	b := f.encoded.AvailableBuffer()
	b = appendString(append(b, 0x10), h.Name)
	b = appendString(b, h.Value)
	at := f.encoded.Len() + len(b) - len(h.Value)
	_, err := f.seal.find([]byte(h.Value), at, true)
	f.note(err)
	if len(f.seal.swaps) == before {
		f.note(f.enc.WriteField(h)) // only looked like a marker
		return
	}
	f.encoded.Write(b)
}

func (f *framer) note(err error) {
	if f.found == nil {
		f.found = err
	}
}

// appendString appends an uncoded string literal, RFC 7541 §5.1 and §5.2.
func appendString(b []byte, s string) []byte {
	n := len(s)
	if n < 127 {
		b = append(b, byte(n))
	} else {
		b = append(b, 127)
		for n -= 127; n >= 128; n >>= 7 {
			b = append(b, byte(n)|0x80)
		}
		b = append(b, byte(n))
	}
	return append(b, s...)
}

// frame appends block to out as HEADERS and CONTINUATION frames, and moves
// its swaps, which begin at index first, to their places in out.
func (f *framer) frame(block []byte, first int) {
	swaps := append([]swap(nil), f.seal.swaps[first:]...)
	f.seal.swaps = f.seal.swaps[:first]
	kind := byte(frameHeaders)
	flags := f.flags &^ (flagPadded | flagEndHeaders)
	for at := 0; ; {
		fragment := block[at:min(at+maxFragment, len(block))]
		if at+len(fragment) == len(block) {
			flags |= flagEndHeaders
		}
		length := len(fragment)
		if flags&flagPriority != 0 {
			length += priorityLen
		}
		f.out = append(f.out, byte(length>>16), byte(length>>8), byte(length), kind, flags)
		f.out = binary.BigEndian.AppendUint32(f.out, f.stream)
		if flags&flagPriority != 0 {
			f.out = append(f.out, f.priority[:]...)
		}
		f.move(swaps, at, len(fragment))
		f.out = append(f.out, fragment...)
		if at += len(fragment); at == len(block) {
			return
		}
		kind, flags = frameContinued, 0
	}
}

// move appends the parts of swaps that fall into the fragment block[at:at+n],
// which is about to be appended to out. The first part keeps the reference.
func (f *framer) move(swaps []swap, at, n int) {
	for i, w := range swaps {
		from, to := max(w.at, at), min(w.at+w.n, at+n)
		if from >= to {
			continue
		}
		f.seal.swaps = append(f.seal.swaps, swap{
			at:    len(f.out) + from - at,
			n:     to - from,
			off:   w.off + from - w.at,
			block: w.block,
		})
		swaps[i].block = -1
	}
}
