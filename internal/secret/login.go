package secret

import (
	"bytes"
	"encoding/base64"
	"errors"
	"net"
)

// A Login is how USER:PASSWORD is shown to a proxy.
type Login uint8

// The logins.
const (
	BasicLogin Login = iota // Base64, RFC 7617
	SOCKSLogin              // the request of RFC 1929
)

// ErrLogin is returned for a value that is no login: both parts are needed,
// and SOCKS has one byte for the length of each.
var ErrLogin = errors.New("the credential is not USER:PASSWORD")

// WriteLogin writes before, v as a login and after to conn at once, out of a
// scratch slot.
func (s *Store) WriteLogin(conn net.Conn, v Value, as Login, before, after string) error {
	region, err := s.pin()
	if err != nil {
		return err
	}
	defer s.unpin()
	off, err := s.takeSlot(nil)
	if err != nil {
		return err
	}
	slot := region[off : off : off+slotSize]
	defer func() {
		clear(region[off : off+slotSize])
		s.slot <- off
	}()
	slot, err = s.appendLogin(append(slot, before...), v, as)
	if err != nil {
		return err
	}
	if len(slot)+len(after) > slotSize {
		return ErrLogin
	}
	slot = append(slot, after...)
	erasing(func() { _, err = conn.Write(slot) })
	return err
}

// appendLogin never grows slot: that would copy the value out of the region.
func (s *Store) appendLogin(slot []byte, v Value, as Login) ([]byte, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	value, err := s.read(v)
	if err != nil {
		return nil, err
	}
	user, password, ok := bytes.Cut(value, []byte(":"))
	switch {
	case !ok || len(user) == 0 || base64.StdEncoding.EncodedLen(len(value)) > cap(slot)-len(slot):
		return nil, ErrLogin
	case as == BasicLogin:
		return base64.StdEncoding.AppendEncode(slot, value), nil
	case len(password) == 0 || len(user) > 255 || len(password) > 255:
		return nil, ErrLogin
	}
	slot = append(slot, 1, byte(len(user)))
	slot = append(append(slot, user...), byte(len(password)))
	return append(slot, password...), nil
}
