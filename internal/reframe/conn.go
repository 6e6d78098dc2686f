package reframe

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"
)

// A Config describes a Conn. The zero value is usable.
type Config struct {
	// Scheme is the connection's: an absolute-form target must have it for
	// AuthorityOK. "" means "https".
	Scheme string
	// HeadTimeout is how long a head may take from its first byte on; 0 means
	// 30 seconds. net/http's ReadHeaderTimeout cannot see it, since it gets
	// heads whole.
	HeadTimeout time.Duration
	// OnReject, if not nil, is told of a refused request when it is found,
	// once per connection. It must not call the Conn.
	OnReject func(Reject)
	// Answer makes the whole response to a refused head; nil means a
	// problem+json with the reason malformed_request.
	Answer func(Reject) []byte
}

// A Conn is a guest's connection as an [http.Server] may see it. Serve it as
// a plain connection, HTTP/1 only, with MaxHeaderBytes of at least 64 KiB (or
// zero), and have every request claimed:
//
//	srv.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
//		return context.WithValue(ctx, key, c.(*reframe.Conn))
//	}
//	head, ok := r.Context().Value(key).(*reframe.Conn).Claim(r)
//
// What the server reads is not quite what the guest sent: in place of each
// request target stands the request's number, so that a request can be tied
// to its head with certainty and no URL of the guest's is parsed twice.
//
// A head that is refused ends the stream like a guest that has gone, as soon
// as the requests before it have been answered; Close then writes the
// refusal, in its turn, before the connection ends. In a body, reading fails
// with an [*Error]: what was sent upstream is left visibly incomplete, and it
// is for the handler to answer.
type Conn struct {
	net.Conn
	cfg Config
	in  input

	// Owned by the one goroutine that reads.
	state  state
	parse  parser
	left   uint64    // bytes of the body or chunk that are still to come
	pend   [2][]byte // to be handed on before anything else
	held   int       // unread bytes of in that pend uses
	text   []byte    // backs pend[0]
	at     int       // offset in in of the next line of a head or trailer section
	first  int       // offset behind the request line
	since  time.Time // when an unfinished head began
	failed error     // the fault in a body

	mu       sync.Mutex
	cond     sync.Cond
	heads    [2]Head // net/http reads at most one request ahead
	emitted  uint64  // heads handed on
	claimed  uint64  // index of the last head claimed
	ctx      context.Context
	upgrade  bool // the last head asked for an upgrade
	raw      bool // after an upgrade
	reject   *Reject
	answers  bool      // Close answers reject
	deadline time.Time // for reads, as set from outside
	limit    time.Time // for the head that is being read
	closed   bool
}

// NewConn returns a Conn that reads from guest.
func NewConn(guest net.Conn, cfg Config) *Conn {
	if cfg.Scheme == "" {
		cfg.Scheme = "https"
	}
	if cfg.HeadTimeout <= 0 {
		cfg.HeadTimeout = 30 * time.Second
	}
	if cfg.Answer == nil {
		cfg.Answer = answer
	}
	c := &Conn{Conn: guest, cfg: cfg}
	c.cond.L = &c.mu
	return c
}

// Claim returns the head of r, which must be the request that is being
// served, and gives r its target back: r.RequestURI is the guest's, byte for
// byte, and r.URL holds the same as Opaque. It reports false if r is not the
// oldest request of this connection that was not claimed; such a request must
// not be served.
func (c *Conn) Claim(r *http.Request) (Head, bool) {
	n, err := strconv.ParseUint(strings.TrimPrefix(r.RequestURI, "/"), 10, 64)
	c.mu.Lock()
	defer c.mu.Unlock()
	h := c.heads[n&1]
	if err != nil || n != c.claimed+1 || h.Index != n || h.Method != r.Method || h.Host != r.Host {
		return Head{}, false
	}
	c.heads[n&1] = Head{}
	c.claimed, c.ctx = n, r.Context()
	r.RequestURI = h.Target
	*r.URL = url.URL{Opaque: h.Target}
	return h, true
}

// Raw makes Read return the guest's bytes as they are, beginning with those
// behind the head of the request that was claimed last. It is for a
// connection that was hijacked after the server agreed to the upgrade that
// this request asked for; any other request makes it fail.
func (c *Conn) Raw() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.upgrade || c.emitted != c.claimed || c.state != stateHead || len(c.pend[0]) > 0 {
		return errors.New("switch to raw bytes: the request asked for no upgrade")
	}
	c.raw = true
	return nil
}

// Rejected returns what was refused on this connection, if anything was.
func (c *Conn) Rejected() (Reject, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.reject == nil {
		return Reject{}, false
	}
	return *c.reject, true
}

const (
	// answerTime bounds the writing of a refusal to a guest that does not read.
	answerTime = 2 * time.Second
	// lingerTime and lingerSize bound the reading of what the guest has still
	// to say: closing with unread bytes would reset the connection and take
	// the refusal with it.
	lingerTime = 500 * time.Millisecond
	lingerSize = 256 << 10
)

// Close closes the guest's connection, after having answered a refused head.
func (c *Conn) Close() error {
	c.mu.Lock()
	answers := c.answers && !c.closed
	c.closed = true
	c.cond.Broadcast()
	c.mu.Unlock()
	if answers {
		c.refuse()
	}
	return c.Conn.Close()
}

func (c *Conn) refuse() {
	c.Conn.SetDeadline(time.Now().Add(answerTime))
	if _, err := c.Conn.Write(c.cfg.Answer(*c.reject)); err != nil || c.CloseWrite() != nil {
		return
	}
	c.Conn.SetReadDeadline(time.Now().Add(lingerTime))
	buf := make([]byte, 4<<10)
	for total := 0; total < lingerSize; {
		n, err := c.Conn.Read(buf)
		if total += n; err != nil {
			return
		}
	}
}

// CloseWrite ends the sending side, if the connection has one.
func (c *Conn) CloseWrite() error {
	if w, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return errors.ErrUnsupported
}

// SetDeadline is as for net.Conn.
func (c *Conn) SetDeadline(t time.Time) error {
	c.SetReadDeadline(t)
	return c.Conn.SetWriteDeadline(t)
}

// SetReadDeadline is as for net.Conn.
func (c *Conn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deadline = t
	c.cond.Broadcast()
	return c.Conn.SetReadDeadline(earlier(t, c.limit))
}
