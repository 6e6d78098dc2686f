package testnet

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// HTTP2 is the client's half of an HTTP/2 connection, frame by frame: it
// sends what it is told to, well formed or not.
type HTTP2 struct {
	*http2.Framer
	block bytes.Buffer
	enc   *hpack.Encoder
}

// NewHTTP2 sends the preface and empty SETTINGS on c.
func NewHTTP2(c net.Conn) *HTTP2 {
	io.WriteString(c, http2.ClientPreface)
	f := &HTTP2{Framer: http2.NewFramer(c, c)}
	f.AllowIllegalWrites = true
	f.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	f.enc = hpack.NewEncoder(&f.block)
	f.WriteSettings()
	return f
}

// Block returns the header block of fields, names and values in turn. It is
// valid until the next call.
func (f *HTTP2) Block(fields ...string) []byte {
	f.block.Reset()
	for i := 0; i < len(fields); i += 2 {
		f.enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	return f.block.Bytes()
}

// Head writes a HEADERS frame of fields.
func (f *HTTP2) Head(id uint32, end bool, fields ...string) error {
	return f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: f.Block(fields...), EndHeaders: true, EndStream: end})
}

// SplitHead writes a HEADERS frame and CONTINUATION frames of a byte each.
func (f *HTTP2) SplitHead(id uint32, fields ...string) {
	block := f.Block(fields...)
	f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block[:1], EndStream: true})
	for i := 1; i < len(block); i++ {
		f.WriteContinuation(id, i == len(block)-1, block[i:i+1])
	}
}

// ErrGoAway says that the server ended the connection with GOAWAY.
var ErrGoAway = errors.New("connection refused by GOAWAY")

// Answer reads frames until stream id ends. It returns the final status, or
// zero, and the text of all fields and data of the stream, interim heads and
// trailers too; the error says why the stream did not end properly.
func (f *HTTP2) Answer(id uint32) (status int, text string, err error) {
	var all strings.Builder
	status, err = f.answer(id, &all)
	return status, all.String(), err
}

func (f *HTTP2) answer(id uint32, text *strings.Builder) (status int, err error) {
	for {
		frame, err := f.ReadFrame()
		if err != nil {
			return status, err
		}
		if s, ok := frame.(*http2.SettingsFrame); ok && !s.IsAck() {
			f.WriteSettingsAck()
		}
		if frame.Header().StreamID != id {
			if _, ok := frame.(*http2.GoAwayFrame); ok {
				return status, ErrGoAway
			}
			continue
		}
		ended := false
		switch x := frame.(type) {
		case *http2.MetaHeadersFrame:
			if code := x.PseudoValue("status"); code != "" {
				status, _ = strconv.Atoi(code)
			}
			for _, h := range x.Fields {
				text.WriteString(h.Name + ": " + h.Value + "\n")
			}
			ended = x.StreamEnded()
		case *http2.DataFrame:
			text.Write(x.Data())
			if n := uint32(len(x.Data())); n > 0 {
				f.WriteWindowUpdate(0, n)
				if !x.StreamEnded() {
					f.WriteWindowUpdate(id, n)
				}
			}
			ended = x.StreamEnded()
		case *http2.RSTStreamFrame:
			return status, fmt.Errorf("stream reset: %v", x.ErrCode)
		}
		if ended {
			return status, nil
		}
	}
}
