// Package websocket reads and writes the frames of WebSocket, RFC 6455, for
// a relay that stands between a client and a server and may change what the
// messages say.
//
// Messages are streams: a frame may have any length, and nothing is held.
// What is written is framed anew, so a message keeps its type and its
// content but not the borders of its frames, which RFC 6455 §5.4 permits
// where no extension was negotiated. None ever is: a frame that uses one is
// an error.
//
// The package is strict. Reserved bits and opcodes, lengths that are not
// written in the shortest way, masks where there may be none and none where
// there must be one, fragmented or long control frames, text that is not
// UTF-8: whatever two programs could read in two ways ends the connection.
package websocket

import (
	"errors"
	"fmt"
)

// An Opcode is the type of a frame, RFC 6455 §5.2.
type Opcode byte

// The opcodes. All others are reserved.
const (
	Continuation Opcode = 0x0
	Text         Opcode = 0x1
	Binary       Opcode = 0x2
	Close        Opcode = 0x8
	Ping         Opcode = 0x9
	Pong         Opcode = 0xa
)

func (o Opcode) control() bool { return o&0x8 != 0 }

// Codes of Close frames, RFC 6455 §7.4.1.
const (
	GoingAway     = 1001
	ProtocolError = 1002
	InvalidText   = 1007
	PolicyError   = 1008
)

// maxControl is the longest payload of a control frame, RFC 6455 §5.5.
const maxControl = 125

// An Error is a fault of the peer that ends the connection.
type Error struct {
	Code int    // for the Close frame that answers it
	Text string // what is wrong
}

func (e *Error) Error() string { return fmt.Sprintf("WebSocket error %d: %s", e.Code, e.Text) }

func fault(text string) error { return &Error{ProtocolError, text} }

// ErrClosed is returned by a [Reader] after a Close frame.
var ErrClosed = errors.New("WebSocket was closed by its peer")
