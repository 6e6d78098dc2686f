package hello

import (
	"crypto/tls"
	"errors"
	"net"
	"slices"
	"time"

	"github.com/cutoutdev/cutout/internal/hostname"
)

const (
	recordHandshake = 22     // RFC 8446 §5.1
	extensionECH    = 0xfe0d // RFC 9849
)

var errSeen = errors.New("client hello seen")

// tls has crypto/tls read the hello and stops it there.
func (p *peeker) tls() (Hello, error) {
	h := Hello{Kind: TLS, Malformed: true}
	cfg := &tls.Config{GetConfigForClient: func(info *tls.ClientHelloInfo) (*tls.Config, error) {
		h.Malformed = false
		h.RawName = info.ServerName
		h.ALPN = slices.Clone(info.SupportedProtos)
		h.Versions = slices.Clone(info.SupportedVersions)
		h.ECH = slices.Contains(info.Extensions, extensionECH)
		return nil, errSeen
	}}
	err := tls.Server(&feed{p: p}, cfg).Handshake()
	switch {
	case errors.Is(err, errSeen):
	case p.stopped() && p.ctx.Err() != nil:
		return Hello{Kind: Other}, nil
	case p.stopped():
		return h, ErrTimeout
	case p.err == errFull:
		return h, ErrTooLarge
	case len(p.buf) > 1 && p.buf[1] != 3:
		return Hello{Kind: Other}, p.failure() // not the major version of any TLS
	}
	if h.RawName != "" {
		var err error
		h.Name, err = hostname.Parse(h.RawName)
		h.BadName = err != nil
	}
	return h, p.failure()
}

// A feed is the connection as crypto/tls sees it during a peek: it reads what
// was buffered and then more, and writes nothing, alerts included.
type feed struct {
	p   *peeker
	off int
}

func (f *feed) Read(b []byte) (int, error) {
	if f.off == len(f.p.buf) && !f.p.more(0) {
		return 0, f.p.err
	}
	n := copy(b, f.p.buf[f.off:])
	f.off += n
	return n, nil
}

func (f *feed) Write(b []byte) (int, error)      { return len(b), nil }
func (f *feed) Close() error                     { return nil }
func (f *feed) LocalAddr() net.Addr              { return f.p.conn.LocalAddr() }
func (f *feed) RemoteAddr() net.Addr             { return f.p.conn.RemoteAddr() }
func (f *feed) SetDeadline(time.Time) error      { return nil }
func (f *feed) SetReadDeadline(time.Time) error  { return nil }
func (f *feed) SetWriteDeadline(time.Time) error { return nil }
