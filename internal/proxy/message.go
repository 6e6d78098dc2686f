package proxy

import (
	"bytes"
	"io"
	"runtime"
	"slices"
	"sync"

	"github.com/cutoutdev/cutout/internal/audit"
	"github.com/cutoutdev/cutout/internal/policy"
	"github.com/cutoutdev/cutout/internal/secret"
	"github.com/cutoutdev/cutout/internal/websocket"
)

// sendMessage relays one message of the guest, which in has begun. What it
// may hold is decided by the secrets of this moment.
func (s *socket) sendMessage(in *websocket.Reader, op websocket.Opcode) error {
	m := &message{socket: s, rules: s.currentRules()}
	m.Reader = m.rules.finder.Reader(in, m.found)
	return pump(s.toUpstream, op, in, m)
}

// searchControl looks at the payload of a control frame of the guest. Nothing
// is ever substituted there.
func (s *socket) searchControl(p []byte) error {
	if len(p) == 0 {
		return nil
	}
	m := &message{socket: s, rules: s.currentRules()}
	m.Reader = m.rules.finder.Reader(bytes.NewReader(p), m.found)
	_, err := io.Copy(io.Discard, m)
	return err
}

// A message of the guest on its way up.
type message struct {
	io.Reader
	*socket
	rules *rules
	no    *refusal // why it ends here
}

func (m *message) Read(p []byte) (int, error) {
	n, err := m.Reader.Read(p)
	if m.no != nil {
		return 0, m.no
	}
	return n, err
}

// found is told of a placeholder that is not substituted.
func (m *message) found(x *secret.Secret) {
	reason := policy.SurfaceOff
	if d := policy.Decide(m.facts, x); !d.Substitute {
		reason = d.Reason
	}
	v := m.cfg.OnViolation
	if x.OnViolation != nil {
		v = *x.OnViolation
	}
	if action := v.Body(m.host()); action != secret.Passthrough {
		m.no = refused(reason)
		m.no.secret, m.no.terminate = x, action == secret.BlockAndTerminate
		return
	}
	if slices.Contains(m.told, x) {
		return
	}
	m.told = append(m.told, x)
	e := m.event(audit.Carried)
	e.Secret, e.Surface, e.Reason = x.Name, "websocket", reason
	m.audit(e)
}

// receiveMessage relays one message of the upstream, without values. In text
// a value becomes the whole placeholder; in a binary message, where lengths
// may be written too, it is overwritten in place.
func (s *socket) receiveMessage(in *websocket.Reader, op websocket.Opcode) error {
	if !s.searched() {
		return pump(s.toGuest, op, in, in)
	}
	rules := s.currentRules()
	defer runtime.KeepAlive(rules) // with its scrubber
	if rules.err != nil {
		return refused(policy.LimitReached)
	}
	if rules.scrubber == nil {
		return pump(s.toGuest, op, in, in)
	}
	return pump(s.toGuest, op, in, rules.scrubber.Reader(in, op != websocket.Text, s.scrubbed))
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
// of the message is there, into the same frame.
func pump(dst *websocket.Writer, op websocket.Opcode, in *websocket.Reader, r io.Reader) error {
	own := messageBuffers.Get().(*[messageBuffer]byte)
	defer messageBuffers.Put(own)
	buf := own[:]
	for n := 0; ; {
		k, err := r.Read(buf[n:])
		n += k
		switch {
		case err == io.EOF:
			return dst.Data(op, true, buf[:n], nil)
		case err != nil:
			return err
		case n == len(buf) || n > 0 && !in.Ended():
			if err := dst.Data(op, false, buf[:n], nil); err != nil {
				return err
			}
			n = 0
		}
	}
}
