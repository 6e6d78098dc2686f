// Package hostname holds the names of hosts: how they are written, which are
// equal and which patterns they match.
//
// A [Name] is always canonical: lower-case ASCII, A-labels instead of
// U-labels, no trailing dot. Two names are the same host if and only if they
// are equal as strings. The package refuses what it cannot canonicalise: IP
// literals, empty labels, control characters and names over 253 octets.
package hostname

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"golang.org/x/net/idna"
	"golang.org/x/net/publicsuffix"
)

// A Name is a canonical host name. The empty Name means "none" and matches
// nothing.
type Name string

// maxName is the longest name in text form, RFC 1035 §2.3.4 without the root.
const maxName = 253

var profile = idna.New(
	idna.MapForLookup(),
	idna.BidiRule(),
	idna.Transitional(false),
	idna.StrictDomainName(false), // underscores are legal in names that people use
	idna.CheckHyphens(false),     // so is r3---sn-x; validLabel checks the ends
)

// Parse returns the canonical form of s. It accepts upper case, U-labels and
// one trailing dot; it refuses everything that is not a host name, IP
// literals among them.
func Parse(s string) (Name, error) {
	s = strings.TrimSuffix(s, ".")
	switch {
	case s == "":
		return "", errors.New("empty host name")
	case len(s) > 4*maxName:
		return "", errors.New("host name is too long")
	}
	if _, err := netip.ParseAddr(strings.Trim(s, "[]")); err == nil {
		return "", errors.New("an IP address is not a host name")
	}
	ascii, err := toASCII(s)
	if err != nil {
		return "", fmt.Errorf("invalid host name %q", s)
	}
	if len(ascii) > maxName {
		return "", errors.New("host name is too long")
	}
	labels := strings.Split(ascii, ".")
	for _, label := range labels {
		if !validLabel(label) {
			return "", fmt.Errorf("invalid host name %q", s)
		}
	}
	if numeric(labels[len(labels)-1]) {
		// WHATWG URL: a name whose last label is a number is an IPv4 address
		// in disguise (127.1, 0x7f000001, 2130706433).
		return "", errors.New("an IP address is not a host name")
	}
	return Name(ascii), nil
}

// toASCII maps to A-labels and checks that what came out maps to itself:
// idna makes labels of bytes that are no UTF-8 which it then does not accept.
func toASCII(s string) (string, error) {
	ascii, err := profile.ToASCII(s)
	if err != nil {
		return "", err
	}
	if again, err := profile.ToASCII(ascii); err != nil || again != ascii {
		return "", errors.New("not canonical")
	}
	return ascii, nil
}

func validLabel(label string) bool {
	if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
		return false
	}
	for i := 0; i < len(label); i++ {
		c := label[i]
		switch {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9', c == '-', c == '_':
		default:
			return false
		}
	}
	return true
}

func numeric(label string) bool {
	if strings.HasPrefix(label, "0x") {
		return strings.Trim(label[2:], "0123456789abcdef") == ""
	}
	return strings.Trim(label, "0123456789") == ""
}

// Registrable returns the registrable domain of n (eTLD+1), or n itself if it
// has none.
func (n Name) Registrable() Name {
	d, err := publicsuffix.EffectiveTLDPlusOne(string(n))
	if err != nil {
		return n
	}
	return Name(d)
}
