// Package wire is the protocol between the keeper and the agent in the
// guest: calls and byte streams, multiplexed over one virtio-serial port.
//
// A frame is a header of eight bytes and at most 65,535 bytes of payload:
//
//	call uint32 | kind uint8 | channel uint8 | length uint16   (big endian)
//
// The host opens calls, with rising numbers. A message frame carries JSON and
// belongs to a call; one that does not fit is sent in consecutive parts that
// carry the [More] bit. Data frames belong to a channel of a call, and each
// direction of a channel has a window of its own, so that a reader who stalls
// holds up neither control messages nor other channels.
//
// Each end takes the other for hostile. Whatever arrives, memory stays within
// the windows and the limit on messages, nothing panics, and the first breach
// of the protocol ends the link for good. A stream that ends with the link
// ends with an error, so that truncated output is never taken for complete.
package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Version is the protocol's version. It changes when either end could
// misunderstand the other; there is no negotiation, since a keeper always
// ships with its agent.
const Version = 2

// Sizes, in bytes.
const (
	headerSize = 8
	maxPayload = 1<<16 - 1

	// Window is how much of a channel may be on its way or unread. It covers
	// 5 ms of delay at 50 MB/s, well above what emulation carries.
	Window = 256 << 10

	// A write to a virtio-serial port is cut at 32 KiB, so that a frame of
	// data goes in one piece.
	maxData = 32<<10 - headerSize

	// maxQueue is how many bytes of control frames wait to be written before
	// senders wait too.
	maxQueue = 256 << 10
)

// A Kind says what a frame is.
type Kind uint8

// More marks every part of a message but the last.
const More Kind = 0x80

// The kinds of frame. Hello, Reply and Exit are the agent's; the other
// messages are the host's, and so is the Hello that wakes a guest which goes
// on from a snapshot.
const (
	KindHello Kind = iota + 1
	KindReply
	KindExit
	KindConfigure
	KindRoots
	KindStart
	KindPut
	KindGet
	KindStat
	KindClock
	KindPing
	KindShutdown
	KindSignal
	KindResize
	KindPrepare
	lastMessage = KindPrepare
)

const (
	kindData   Kind = iota + 32 // bytes of a channel
	kindEnd                     // no more bytes will come
	kindStop                    // no more bytes are wanted
	kindWindow                  // uint32: that many bytes more are welcome
	lastStream = kindWindow
)

// The channels of a call.
const (
	Stdin  uint8 = iota // host to guest; also a tar stream that is put
	Stdout              // guest to host; also a tar stream that is got
	Stderr
	channels
)

// ErrViolation is in the error of a link that the peer has broken.
var ErrViolation = errors.New("protocol violation")

func violation(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrViolation}, args...)...)
}

// header is a frame's decoded header.
type header struct {
	call    uint32
	kind    Kind // without More
	more    bool
	channel uint8
	length  int
}

// parseHeader decodes and checks all that can be checked of a header alone.
func parseHeader(b [headerSize]byte) (header, error) {
	h := header{
		call:    binary.BigEndian.Uint32(b[0:]),
		kind:    Kind(b[4]) &^ More,
		more:    Kind(b[4])&More != 0,
		channel: b[5],
		length:  int(binary.BigEndian.Uint16(b[6:])),
	}
	switch {
	case h.kind >= KindHello && h.kind <= lastMessage:
		if h.channel != 0 || (h.call == 0) != (h.kind == KindHello) {
			return h, violation("message %d on call %d, channel %d", h.kind, h.call, h.channel)
		}
		return h, nil
	case h.kind < kindData || h.kind > lastStream || h.more || h.call == 0 || h.channel >= channels:
		return h, violation("frame of kind %d", h.kind)
	case h.kind == kindWindow && h.length != 4,
		(h.kind == kindEnd || h.kind == kindStop) && h.length != 0,
		h.kind == kindData && h.length == 0:
		return h, violation("frame of kind %d with %d bytes", h.kind, h.length)
	}
	return h, nil
}

func (h header) put(b []byte) {
	binary.BigEndian.PutUint32(b[0:], h.call)
	b[4] = byte(h.kind)
	if h.more {
		b[4] |= byte(More)
	}
	b[5] = h.channel
	binary.BigEndian.PutUint16(b[6:], uint16(h.length))
}
