// Package hello looks at the first bytes that a guest sends on a connection
// and says what they begin: a TLS handshake, an HTTP/1 request, or something
// else.
//
// Nothing is consumed: the connection that [Peek] returns replays every byte
// that was looked at. Nothing is parsed by hand that crypto/tls can parse: it
// is fed the bytes as they come, so a hello cut into one-byte records or
// segments reads like any other. Size and time are limited. The package
// decides nothing: it reports, also what is odd.
package hello

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"time"

	"github.com/cutoutdev/cutout/internal/hostname"
)

// A Kind is what a connection begins with.
type Kind uint8

const (
	// Silent: no byte came before the time was up or the peek was cancelled.
	Silent Kind = iota
	// TLS: a ClientHello, or what claims to be one (see Hello.Malformed).
	TLS
	// HTTP: something that a lenient server could take for an HTTP/1 request,
	// well-formed or not: lower-case versions, four words, leading blank
	// lines, the HTTP/2 preface.
	HTTP
	// Other: anything else, or too little to tell when the peek was cancelled.
	Other
)

func (k Kind) String() string {
	return [...]string{"silent", "tls", "http", "other"}[k&3]
}

// A Hello is what the first bytes say.
type Hello struct {
	Kind Kind

	// Of a ClientHello:

	RawName  string        // server name as sent, "" if none
	Name     hostname.Name // the same, canonical; "" if there is none or it has no canonical form
	BadName  bool          // RawName is not a host name: an IP literal, control characters, too long
	ALPN     []string
	Versions []uint16 // offered, newest first as sent
	ECH      bool     // an Encrypted Client Hello extension is present; RawName is the outer one
	// Malformed says that crypto/tls cannot read the hello: it is garbage,
	// over 64 KiB, or has two server names. No name is known.
	Malformed bool

	// Hosts are the names that the first HTTP head mentions, in Host fields
	// and the request line, read leniently. They say whom the request may
	// mean; they are no proof.
	Hosts []hostname.Name
}

// A Config limits a peek.
type Config struct {
	// Silence is how long to wait for the first byte; 0 = until cancelled.
	Silence time.Duration
	// Timeout is the time from the first byte to a whole ClientHello or HTTP
	// head; 0 means 10 seconds.
	Timeout time.Duration
	// MaxSize bounds the bytes that are held; 0 means 128 KiB: the largest
	// hello that crypto/tls takes, in ordinary records, and again as much.
	MaxSize int
}

const (
	defaultTimeout = 10 * time.Second
	defaultMaxSize = 128 << 10
	// quiet ends the wait for more of a text: the client of a line protocol
	// waits for its answer, and a request line rarely comes in two halves.
	quiet = 500 * time.Millisecond
)

// The errors of Peek, besides those of the connection.
var (
	ErrTimeout  = errors.New("client hello is not complete in time")
	ErrTooLarge = errors.New("client hello is too large")
)

// Peek reads from c until it can tell what the bytes begin. The returned
// connection takes the place of c, also if there is an error; it replays what
// was read. Read deadlines of c are cleared.
//
// To let whichever side speaks first decide, call Peek in a goroutine, and
// cancel ctx when the server's first bytes have come: Peek then returns soon,
// with what it knows and without an error, and no byte is lost. A client that
// ends its side before it has sent enough is no error either.
func Peek(ctx context.Context, c net.Conn, cfg Config) (*Conn, Hello, error) {
	if cfg.Timeout <= 0 {
		cfg.Timeout = defaultTimeout
	}
	if cfg.MaxSize <= 0 {
		cfg.MaxSize = defaultMaxSize
	}
	p := &peeker{ctx: ctx, conn: c, cfg: cfg}
	interrupted := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		c.SetReadDeadline(past)
		close(interrupted)
	})
	h, err := p.run()
	if !stop() {
		<-interrupted
	}
	c.SetReadDeadline(time.Time{})
	return &Conn{Conn: c, buf: p.buf}, h, err
}

var past = time.Unix(1, 0)

// errFull stops the reading at MaxSize.
var errFull = errors.New("peek buffer is full")

type peeker struct {
	ctx  context.Context
	conn net.Conn
	cfg  Config
	buf  []byte    // everything read so far
	end  time.Time // for the whole peek, from the first byte on
	err  error     // why there is no more
}

func (p *peeker) run() (Hello, error) {
	if p.cfg.Silence > 0 {
		p.end = time.Now().Add(p.cfg.Silence)
	}
	more := p.more(0)
	p.end = time.Now().Add(p.cfg.Timeout)
	switch {
	case !more && (p.stopped() || p.err == io.EOF):
		return Hello{}, nil
	case !more:
		return Hello{}, p.err
	case p.buf[0] == recordHandshake:
		return p.tls()
	}
	return p.text(), p.failure()
}

// stopped reports whether reading ended because of a time limit or ctx.
func (p *peeker) stopped() bool { return errors.Is(p.err, os.ErrDeadlineExceeded) }

// failure is the connection's error, if that is what ended the reading.
func (p *peeker) failure() error {
	if p.stopped() || p.err == io.EOF || p.err == errFull {
		return nil
	}
	return p.err
}

// more appends what comes to buf, and reports whether anything came. It
// waits at most for the given time (0 = no limit) and never beyond p.end.
func (p *peeker) more(wait time.Duration) bool {
	if p.err != nil {
		return false
	}
	if len(p.buf) >= p.cfg.MaxSize {
		p.err = errFull
		return false
	}
	p.deadline(wait)
	if cap(p.buf)-len(p.buf) < 512 {
		p.buf = append(make([]byte, 0, max(2048, 2*cap(p.buf))), p.buf...)
	}
	room := p.buf[len(p.buf):min(cap(p.buf), p.cfg.MaxSize)]
	n, err := p.conn.Read(room)
	p.buf = p.buf[:len(p.buf)+n]
	if n == 0 {
		p.err = err
	}
	return n > 0
}

func (p *peeker) deadline(wait time.Duration) {
	end := p.end
	if t := time.Now().Add(wait); wait > 0 && t.Before(end) {
		end = t
	}
	p.conn.SetReadDeadline(end)
	if p.ctx.Err() != nil { // the interruption may have come just before
		p.conn.SetReadDeadline(past)
	}
}
