package proxy

import (
	"bytes"
	"errors"
	"io"
	"runtime"
	"slices"
	"sync"

	"github.com/cutoutdev/cutout/internal/audit"
	"github.com/cutoutdev/cutout/internal/policy"
	"github.com/cutoutdev/cutout/internal/rewrite"
	"github.com/cutoutdev/cutout/internal/secret"
	"github.com/cutoutdev/cutout/internal/websocket"
)

// sendMessage relays one message of the guest, which in has begun. What it
// may hold is decided by the secrets of this moment and the facts of the
// handshake.
func (s *socket) sendMessage(in *websocket.Reader, op websocket.Opcode) error {
	m := s.message()
	defer m.use.end()
	if op != websocket.Text {
		return m.reason(pump(s.toUpstream, op, in, m.search(in), nil))
	}
	r := m.rules.finder.Message(in, rewrite.Body{Swap: m.swaps, Seal: m.seal, Found: func(o rewrite.Occurrence, swapped bool) error {
		if swapped {
			return m.record(o.Secret)
		}
		return m.found(o.Secret)
	}})
	err := pump(s.toUpstream, op, in, r, &m.markers)
	if len(m.registered) > 0 {
		// Forgotten sooner, a marker would be mere text in a frame that waits.
		if e := s.toUpstream.Flush(); err == nil {
			err = e
		}
		for _, marker := range m.registered {
			s.request.seal.Forget(marker)
		}
	}
	return m.reason(err)
}

// searchControl looks at the payload of a control frame of the guest. Nothing
// is ever substituted there.
func (s *socket) searchControl(p []byte) error {
	if len(p) == 0 {
		return nil
	}
	m := s.message()
	defer m.use.end()
	_, err := io.Copy(io.Discard, m.search(bytes.NewReader(p)))
	return m.reason(err)
}

// A message of the guest on its way up.
type message struct {
	*socket
	use        *use
	rules      *rules
	written    []*secret.Secret // on record
	markers    []string         // not yet in a frame
	registered []string
}

func (s *socket) message() *message {
	u := s.begin(s.host(), s.cut)
	return &message{socket: s, use: u, rules: u.rules}
}

// cut ends the WebSocket.
func (s *socket) cut() { s.guest.Close(); s.up.Close() }

// search returns r with its placeholders found, and none replaced.
func (m *message) search(r io.Reader) io.Reader {
	s := &searched{}
	s.Reader = m.rules.finder.Reader(r, func(x *secret.Secret) {
		if s.err == nil {
			s.err = m.found(x)
		}
	})
	return s
}

// A searched reader fails where something was found that may not pass.
type searched struct {
	io.Reader
	err error
}

func (s *searched) Read(p []byte) (int, error) {
	n, err := s.Reader.Read(p)
	if s.err != nil {
		return 0, s.err
	}
	return n, err
}

// decide is the decision of DESIGN §3 for a placeholder in a text message.
func (m *message) decide(x *secret.Secret) policy.Reason {
	d := policy.Decide(m.facts, x)
	if d.Substitute && !x.Allowed().WebSocket {
		return policy.SurfaceOff
	}
	return d.Reason
}

func (m *message) swaps(x *secret.Secret) bool {
	return m.request.seal != nil && m.decide(x) == policy.None
}

// seal returns a marker for a value.
func (m *message) seal(parts []secret.Part, enc secret.Encoding) (string, error) {
	marker, err := m.request.seal.Register(parts, enc)
	switch {
	case errors.Is(err, secret.ErrUnsafe), errors.Is(err, secret.ErrShort):
		return "", err
	case err != nil:
		return "", refused(policy.LimitReached)
	}
	m.markers = append(m.markers, marker)
	m.registered = append(m.registered, marker)
	return marker, nil
}

// record puts the substitution of a value on record, once for each message.
func (m *message) record(x *secret.Secret) error {
	if slices.Contains(m.written, x) {
		return nil
	}
	m.written = append(m.written, x)
	m.touch()
	e := m.event(audit.Substituted)
	e.Secret, e.Surface = x.Name, "websocket"
	if err := m.cfg.Audit.Append(e); err != nil {
		return m.refuse(x, policy.AuditUnavailable)
	}
	return nil
}

// found is told of a placeholder that is not substituted.
func (m *message) found(x *secret.Secret) error {
	reason := policy.Decide(m.facts, x).Reason
	if reason == policy.None {
		reason = policy.SurfaceOff // or a binary message, or a control frame
	} else if action := m.violationOf(x).Body(m.host()); action != secret.Passthrough {
		no := m.refuse(x, reason)
		no.terminate = action == secret.BlockAndTerminate
		return no
	}
	if slices.Contains(m.told, x) {
		return nil
	}
	m.told = append(m.told, x)
	e := m.event(audit.Carried)
	e.Secret, e.Surface, e.Reason = x.Name, "websocket", reason
	m.audit(e)
	return nil
}

func (m *message) refuse(x *secret.Secret, reason policy.Reason) *refusal {
	no := refused(reason)
	no.secret = x
	return no
}

// reason turns the errors of other packages into refusals.
func (m *message) reason(err error) error {
	if no := new(rewrite.Refusal); errors.As(err, &no) {
		return m.refuse(no.Secret, policy.Reason(no.Reason))
	}
	if errors.Is(err, secret.ErrNotText) {
		return refused(policy.Unsafe)
	}
	return err
}

// receiveMessage relays one message of the upstream, without values. In text
// a value becomes the whole placeholder; in a binary message, where lengths
// may be written too, it is overwritten in place.
func (s *socket) receiveMessage(in *websocket.Reader, op websocket.Opcode) error {
	if !s.searched() {
		return pump(s.toGuest, op, in, in, nil)
	}
	u := s.begin(s.host(), s.cut)
	defer u.end()
	rules := u.rules
	defer runtime.KeepAlive(rules) // with its scrubber
	if rules.err != nil {
		return refused(policy.LimitReached)
	}
	if rules.scrubber == nil {
		return pump(s.toGuest, op, in, in, nil)
	}
	return pump(s.toGuest, op, in, rules.scrubber.Reader(in, op != websocket.Text, s.scrubbed), nil)
}

// scrubControl overwrites values in the payload of a control frame of the
// upstream.
func (s *socket) scrubControl(p []byte) error {
	rules := s.currentRules()
	defer runtime.KeepAlive(rules)
	switch {
	case len(p) == 0 || !s.searched():
		return nil
	case rules.err != nil:
		return refused(policy.LimitReached)
	case rules.scrubber == nil:
		return nil
	}
	clean, err := io.ReadAll(rules.scrubber.Reader(bytes.NewReader(p), true, s.scrubbed))
	copy(p, clean)
	return err
}

// messageBuffer is what of a message is looked at at once: one TLS record.
const messageBuffer = 16 << 10

var messageBuffers = sync.Pool{New: func() any { return new([messageBuffer]byte) }}

// pump writes a message to dst. r reads what is to be written from in. What r
// gives goes on at once; what it holds back goes with the rest, or, when all
// of the message is there, into the same frame. No frame ends within one of
// the markers, which it takes from the list.
func pump(dst *websocket.Writer, op websocket.Opcode, in *websocket.Reader, r io.Reader, markers *[]string) error {
	own := messageBuffers.Get().(*[messageBuffer]byte)
	defer messageBuffers.Put(own)
	if markers == nil {
		markers = new([]string)
	}
	buf := own[:]
	for n := 0; ; {
		if n == len(buf) { // within a marker
			buf = append(buf, make([]byte, n)...)
		}
		k, err := r.Read(buf[n:])
		n += k
		last := err == io.EOF
		if err != nil && !last {
			return err
		}
		whole := complete(buf[:n], *markers)
		if !last && (whole < len(*markers) || n < len(buf) && (n == 0 || in.Ended())) {
			continue // the rest is there already
		}
		if err := dst.Data(op, last, buf[:n], (*markers)[:whole]); err != nil || last {
			return err
		}
		n, *markers = 0, nil
	}
}

// complete returns how many of the markers, of which some may be yet to come,
// are in p.
func complete(p []byte, markers []string) int {
	for i, m := range markers {
		at := bytes.Index(p, []byte(m))
		if at < 0 {
			return i
		}
		p = p[at+len(m):]
	}
	return len(markers)
}
