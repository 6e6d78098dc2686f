package hostname

import (
	"errors"
	"strings"
)

// An Authority is the host and port that a request names, RFC 9110 §7.2.
type Authority struct {
	Host Name
	Port uint16 // 0 = none given
}

// ParseAuthority reads host[:port] as it stands in a Host field or an
// :authority pseudo-header. Userinfo, IP literals, percent escapes, spaces,
// everything that is not ASCII and ports outside 1–65535 are refused.
func ParseAuthority(s string) (Authority, error) {
	// RFC 3986 §3.2.2: U-labels do not occur on the wire. A server might read
	// "good。test" otherwise than we do.
	if strings.ContainsFunc(s, func(r rune) bool { return r > 0x7e }) {
		return Authority{}, errors.New("invalid authority")
	}
	host, port, found := strings.Cut(s, ":")
	name, err := Parse(host)
	if err != nil {
		return Authority{}, errors.New("invalid authority")
	}
	a := Authority{Host: name}
	if !found || port == "" { // RFC 3986 §3.2.3: an empty port is the default one
		return a, nil
	}
	if a.Port, err = ParsePort(port); err != nil {
		return Authority{}, errors.New("invalid authority")
	}
	return a, nil
}

// ParsePort reads a decimal port, 1–65535, digits only.
func ParsePort(s string) (uint16, error) {
	if s == "" || len(s) > 5 {
		return 0, errors.New("invalid port")
	}
	n := 0
	for i := 0; i < len(s); i++ {
		if s[i] < '0' || s[i] > '9' {
			return 0, errors.New("invalid port")
		}
		n = n*10 + int(s[i]-'0')
	}
	if n == 0 || n > 65535 {
		return 0, errors.New("invalid port")
	}
	return uint16(n), nil
}
