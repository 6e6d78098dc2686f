package secret

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"net"
	"strings"
)

// A Login is how a credential is shown to whoever asks for one of ours.
type Login uint8

// The logins.
const (
	BasicLogin  Login = iota // USER:PASSWORD in Base64, RFC 7617
	SOCKSLogin               // USER:PASSWORD in the request of RFC 1929
	FieldsLogin              // NAME=VALUE,… as fields of an HTTP/1 head, each with its line end
)

// ErrLogin is returned for a value that is no login: both parts are needed,
// and SOCKS has one byte for the length of each.
var ErrLogin = errors.New("the credential is not USER:PASSWORD")

// ErrFields is returned for a value that is no [FieldsLogin].
var ErrFields = errors.New("the headers are not NAME=VALUE, with commas between")

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
	return writeRecord(conn, slot)
}

// appendLogin never grows slot: that would copy the value out of the region.
func (s *Store) appendLogin(slot []byte, v Value, as Login) ([]byte, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	value, err := s.read(v)
	if err != nil {
		return nil, err
	}
	if as == FieldsLogin {
		return appendFields(slot, value)
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

// appendFields writes what OTEL_EXPORTER_OTLP_HEADERS holds: a list of
// NAME=VALUE with percent escapes in the values, as in W3C Baggage. It never
// grows slot.
func appendFields(slot, list []byte) ([]byte, error) {
	for pair := range bytes.SplitSeq(list, []byte(",")) {
		name, value, ok := bytes.Cut(bytes.TrimSpace(pair), []byte("="))
		name, value = bytes.TrimSpace(name), bytes.TrimSpace(value)
		if !ok || len(name) == 0 || bytes.ContainsFunc(name, noToken) || len(name)+len(value)+4 > cap(slot)-len(slot) {
			return nil, ErrFields
		}
		slot = append(append(slot, name...), ": "...)
		for i := 0; i < len(value); i++ {
			c := value[i]
			if c == '%' {
				if i+2 >= len(value) {
					return nil, ErrFields
				}
				if _, err := hex.Decode(slot[len(slot):len(slot)+1], value[i+1:i+3]); err != nil {
					return nil, ErrFields
				}
				c, i = slot[:len(slot)+1][len(slot)], i+2
			}
			if c < ' ' || c == 0x7f {
				return nil, ErrFields
			}
			slot = append(slot, c)
		}
		slot = append(slot, "\r\n"...)
	}
	return slot, nil
}

// noToken reports whether r cannot stand in the name of a field, RFC 9110
// §5.6.2.
func noToken(r rune) bool {
	return (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z') && !strings.ContainsRune("!#$%&'*+-.^_`|~", r)
}
