package websocket

import "encoding/binary"

// A header is that of one frame.
type header struct {
	fin    bool
	op     Opcode
	length uint64
	masked bool
	key    [4]byte
}

// parseHeader reads a frame header from the beginning of b and returns its
// length, 0 if b does not hold all of it. A fault is found as soon as its
// byte is there.
func parseHeader(b []byte, masked bool) (h header, n int, err error) {
	if len(b) < 1 {
		return h, 0, nil
	}
	h.fin, h.op = b[0]&0x80 != 0, Opcode(b[0]&0xf)
	switch {
	case b[0]&0x70 != 0:
		return h, 0, fault("a reserved bit is set, which only an extension could mean")
	case h.op > Binary && h.op < Close || h.op > Pong:
		return h, 0, fault("reserved opcode")
	case h.op.control() && !h.fin:
		return h, 0, fault("fragmented control frame")
	case len(b) < 2:
		return h, 0, nil
	}
	h.masked = b[1]&0x80 != 0
	h.length = uint64(b[1] & 0x7f)
	switch {
	case h.masked != masked && masked:
		return h, 0, fault("a frame of a client is not masked")
	case h.masked != masked:
		return h, 0, fault("a frame of a server is masked")
	case h.op.control() && h.length > maxControl:
		return h, 0, fault("long control frame")
	}
	return h.rest(b)
}

// rest reads what follows the first two bytes.
func (h header) rest(b []byte) (header, int, error) {
	n := 2
	switch h.length {
	case 126:
		n += 2
	case 127:
		n += 8
	}
	if h.masked {
		n += 4
	}
	if len(b) < n {
		return h, 0, nil
	}
	switch h.length {
	case 126:
		if h.length = uint64(binary.BigEndian.Uint16(b[2:])); h.length < 126 {
			return h, 0, fault("a length is not written in the shortest way")
		}
	case 127:
		h.length = binary.BigEndian.Uint64(b[2:])
		switch {
		case h.length>>63 != 0:
			return h, 0, fault("a length of 2^63 or more")
		case h.length < 1<<16:
			return h, 0, fault("a length is not written in the shortest way")
		}
	}
	if h.masked {
		h.key = [4]byte(b[n-4 : n])
	}
	return h, n, nil
}

// append writes the header to b.
func (h header) append(b []byte) []byte {
	first, second := byte(h.op), byte(0)
	if h.fin {
		first |= 0x80
	}
	if h.masked {
		second = 0x80
	}
	switch {
	case h.length < 126:
		b = append(b, first, second|byte(h.length))
	case h.length < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, first, second|126), uint16(h.length))
	default:
		b = binary.BigEndian.AppendUint64(append(b, first, second|127), h.length)
	}
	if h.masked {
		b = append(b, h.key[:]...)
	}
	return b
}

// xor masks or unmasks p, whose first byte is the at-th under the key.
func xor(p []byte, key [4]byte, at int) {
	var k [8]byte
	for i := range k {
		k[i] = key[(at+i)&3]
	}
	word := binary.LittleEndian.Uint64(k[:])
	for len(p) >= 8 {
		binary.LittleEndian.PutUint64(p, binary.LittleEndian.Uint64(p)^word)
		p = p[8:]
	}
	for i := range p {
		p[i] ^= k[i]
	}
}
