package proxy

import (
	"bytes"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/cutoutdev/cutout/internal/audit"
	"github.com/cutoutdev/cutout/internal/policy"
)

// Every stream of an HTTP/2 connection has its own authority. B5, A18.
func TestStreamAuthority(t *testing.T) {
	tests := []struct {
		name   string
		fields []string // beside :method, :scheme and :path
		status string   // "" = the stream is reset
	}{
		{"same", []string{":authority", "good.test"}, "200"},
		{"another", []string{":authority", "evil.test"}, "421"},
		{"none", nil, "421"},
		{"Host only", []string{"host", "good.test"}, "421"},
		{"Host differs", []string{":authority", "good.test", "host", "evil.test"}, "421"},
		{"two", []string{":authority", "good.test", ":authority", "good.test"}, ""},
		{"userinfo", []string{":authority", "user@good.test"}, ""},
		{"same again", []string{":authority", "good.test"}, "200"},
	}
	w := newWorld(t, "h2")
	c := w.raw2()
	for i, tt := range tests {
		id := uint32(2*i + 1)
		c.request(id, append([]string{":method", "GET", ":scheme", "https", ":path", "/echo"}, append(tt.fields, "authorization", "Bearer "+placeholder)...)...)
		if got := c.status(id); got != tt.status {
			t.Errorf("%s: status %q, want %q", tt.name, got, tt.status)
		}
	}
	for _, r := range w.good.Requests() {
		if r.Host != "good.test" {
			t.Errorf("upstream got %s", r.Text())
		}
	}
	if n := len(w.good.Requests()); n != 2 {
		t.Errorf("upstream got %d requests", n)
	}
}

// HTTP/2 that would mean something else in HTTP/1. B8, B9.
func TestStreamMalformed(t *testing.T) {
	base := []string{":method", "POST", ":scheme", "https", ":path", "/echo", ":authority", "good.test"}
	tests := []struct {
		name   string
		fields []string
		status string // "" = reset
		reason policy.Reason
	}{
		// net/http answers these two itself, and nobody hears of it
		{"Transfer-Encoding", append(slices.Clone(base), "transfer-encoding", "chunked"), "400", policy.None},
		{"TE", append(slices.Clone(base), "te", "gzip"), "400", policy.None},
		{"CRLF in a value", append(slices.Clone(base), "x", "a\r\nb: c"), "", policy.MalformedRequest},
		{"CRLF in a path", []string{":method", "GET", ":scheme", "https", ":path", "/a\r\nb: c", ":authority", "good.test"}, "", policy.MalformedRequest},
		{"CRLF in a method", []string{":method", "GE\r\nT", ":scheme", "https", ":path", "/", ":authority", "good.test"}, "", policy.MalformedRequest},
		{"a space in a path", []string{":method", "GET", ":scheme", "https", ":path", "/a HTTP/1.1", ":authority", "good.test"}, "400", policy.MalformedRequest},
		{"a fragment in a path", []string{":method", "GET", ":scheme", "https", ":path", "/a#b", ":authority", "good.test"}, "400", policy.MalformedRequest},
		{"an absolute path", []string{":method", "GET", ":scheme", "https", ":path", "https://evil.test/", ":authority", "good.test"}, "400", policy.MalformedRequest},
		{"a space in a method", []string{":method", "GET /x", ":scheme", "https", ":path", "/", ":authority", "good.test"}, "400", policy.MalformedRequest},
		{"two lengths", append(slices.Clone(base), "content-length", "0", "content-length", "0"), "400", policy.MalformedRequest},
		{"length without body", append(slices.Clone(base), "content-length", "5"), "400", policy.MalformedRequest},
		{"CONNECT", []string{":method", "CONNECT", ":authority", "good.test:443"}, "403", policy.Tunnelled},
		{"extended CONNECT", []string{":method", "CONNECT", ":protocol", "websocket", ":scheme", "https", ":path", "/", ":authority", "good.test"}, "", policy.MalformedRequest},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, "h2")
			c := w.raw2()
			c.request(1, append(tt.fields, "authorization", "Bearer "+placeholder)...)
			if got := c.status(1); got != tt.status {
				t.Errorf("status %q, want %q", got, tt.status)
			}
			w.unseen()
			if tt.reason == policy.None {
				return
			}
			e := w.expect(audit.Refused, tt.reason)
			if byCode := strings.HasPrefix(e.Detail, "HTTP/2 "); byCode != (tt.status == "") {
				t.Errorf("status %q, but the event says %q", tt.status, e.Detail)
			}
		})
	}
}

// What net/http refuses with an error code is on record.
func TestStreamErrors(t *testing.T) {
	tests := []struct {
		name, detail string
		reason       policy.Reason
		send         func(*raw2)
	}{
		{"DATA of no stream", "HTTP/2 PROTOCOL_ERROR", policy.MalformedRequest, func(c *raw2) { c.framer.WriteData(1, true, []byte("x")) }},
		{"no header table", "HTTP/2 COMPRESSION_ERROR", policy.MalformedRequest, func(c *raw2) {
			c.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte{0xff, 0xff, 0x7f}, EndHeaders: true})
		}},
		{"PING of five bytes", "HTTP/2 FRAME_SIZE_ERROR", policy.MalformedRequest, func(c *raw2) { c.framer.WriteRawFrame(http2.FramePing, 0, 0, []byte("five!")) }},
		{"windows without end", "HTTP/2 FLOW_CONTROL_ERROR", policy.MalformedRequest, func(c *raw2) {
			c.framer.WriteWindowUpdate(0, 1<<31-1)
			c.framer.WriteWindowUpdate(0, 1<<31-1)
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, "h2")
			c := w.raw2()
			tt.send(c)
			c.status(1)
			if e := w.expect(audit.Refused, tt.reason); e.Detail != tt.detail || e.Host != "good.test" {
				t.Errorf("the event says %q of %q", e.Detail, e.Host)
			}
		})
	}
}

// When the server has gone before the guest's first byte, the guest learns of it
// with the first.
func TestCloseMirroredEarly(t *testing.T) {
	w := newWorld(t, "h2")
	conn := w.dialTLS()
	w.good.Close()
	time.Sleep(200 * time.Millisecond) // until that is known here
	conn.SetDeadline(time.Now().Add(5 * time.Second))
	io.WriteString(conn, http2.ClientPreface)
	f := http2.NewFramer(conn, conn)
	f.WriteSettings()
	for {
		frame, err := f.ReadFrame()
		if err != nil {
			t.Fatalf("no GOAWAY: %v", err)
		}
		if g, ok := frame.(*http2.GoAwayFrame); ok {
			if g.ErrCode != http2.ErrCodeNo {
				t.Errorf("GOAWAY says %v", g.ErrCode)
			}
			return
		}
	}
}

// An h2Guest finds the codes however the frames are cut.
func TestH2Codes(t *testing.T) {
	var frames bytes.Buffer
	f := http2.NewFramer(&frames, nil)
	f.WriteSettings(http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 1})
	f.WriteData(1, false, bytes.Repeat([]byte{0, 0, 4, 3}, 100)) // no frames
	f.WriteRSTStream(1, http2.ErrCodeProtocol)
	f.WriteGoAway(3, http2.ErrCodeEnhanceYourCalm, []byte("and more"))
	f.WriteData(3, true, nil)
	f.WriteRSTStream(5, http2.ErrCodeNo)
	want := []uint32{0x1, 0xb, 0x0}
	for size := 1; size <= frames.Len(); size++ {
		var got []uint32
		var passed bytes.Buffer
		g := &h2Guest{Conn: writerConn{w: &passed}, report: func(code uint32) { got = append(got, code) }}
		for piece := range slices.Chunk(frames.Bytes(), size) {
			g.Write(piece)
		}
		if !slices.Equal(got, want) || !bytes.Equal(passed.Bytes(), frames.Bytes()) {
			t.Errorf("in pieces of %d: codes %v, want %v; %d bytes passed of %d", size, got, want, passed.Len(), frames.Len())
		}
	}
}

// A writerConn is a connection that is only written.
type writerConn struct {
	net.Conn
	w io.Writer
}

func (c writerConn) Write(p []byte) (int, error) { return c.w.Write(p) }

// A raw2 is an HTTP/2 connection whose frames are written by hand.
type raw2 struct {
	t      testing.TB
	conn   net.Conn
	framer *http2.Framer
	block  bytes.Buffer
	enc    *hpack.Encoder
	seen   map[uint32]string
}

func (w *world) raw2() *raw2 {
	c := &raw2{t: w.t, conn: w.dialTLS(), seen: make(map[uint32]string)}
	io.WriteString(c.conn, http2.ClientPreface)
	c.framer = http2.NewFramer(c.conn, c.conn)
	c.framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	c.framer.WriteSettings()
	c.enc = hpack.NewEncoder(&c.block)
	return c
}

func (c *raw2) request(id uint32, fields ...string) {
	c.block.Reset()
	for i := 0; i < len(fields); i += 2 {
		c.enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	c.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: c.block.Bytes(), EndHeaders: true, EndStream: true})
}

// status returns the status of the answer on stream id, "" if it was reset or
// the connection ended.
func (c *raw2) status(id uint32) string {
	for {
		f, err := c.framer.ReadFrame()
		if err != nil {
			return ""
		}
		switch f := f.(type) {
		case *http2.SettingsFrame:
			if !f.IsAck() {
				c.framer.WriteSettingsAck()
			}
		case *http2.MetaHeadersFrame:
			if f.StreamID == id {
				return f.PseudoValue("status")
			}
		case *http2.RSTStreamFrame:
			if f.StreamID == id {
				return ""
			}
		case *http2.GoAwayFrame:
			return ""
		}
	}
}
