package hello

import (
	"bytes"
	"errors"
	"io"
	"net/netip"
	"strings"

	"golang.org/x/crypto/cryptobyte"

	"github.com/cutoutdev/cutout/internal/socks"
)

// MaxSOCKS is the longest that a SOCKS client says before its request ends:
// 255 methods, RFC 1928 §3, a user and password, RFC 1929 §2, and a name.
const MaxSOCKS = 2 + 255 + 3 + 2*255 + 5 + 255 + 2

var errNotSOCKS = errors.New("not a SOCKS client")

// SOCKSTarget returns the host, a name or an address, that the client of a
// SOCKS proxy asks for, from all that it has said so far: SOCKS5, RFC 1928,
// without authentication or with a password, SOCKS4 and SOCKS4a. It fails
// with [io.ErrUnexpectedEOF] if that is not yet said.
func SOCKSTarget(said []byte) (host string, err error) {
	s := cryptobyte.String(said)
	var version uint8
	if !s.ReadUint8(&version) {
		return "", io.ErrUnexpectedEOF
	}
	switch version {
	case 4:
		return socks4(s)
	case socks.Version:
		return socks5(s)
	}
	return "", errNotSOCKS
}

func socks5(s cryptobyte.String) (string, error) {
	var text, password cryptobyte.String
	var version, kind uint8
	if !s.ReadUint8LengthPrefixed(&text) || !s.ReadUint8(&version) {
		return "", io.ErrUnexpectedEOF
	}
	if version == socks.PasswordVersion { // a user and a password come first
		if !s.ReadUint8LengthPrefixed(&text) || !s.ReadUint8LengthPrefixed(&password) || !s.ReadUint8(&version) {
			return "", io.ErrUnexpectedEOF
		}
	}
	if version != socks.Version {
		return "", errNotSOCKS
	}
	if !s.Skip(2) || !s.ReadUint8(&kind) { // command, reserved
		return "", io.ErrUnexpectedEOF
	}
	size := map[uint8]int{socks.IPv4: 4, socks.IPv6: 16}[kind]
	switch {
	case kind == socks.Name:
		if !s.ReadUint8LengthPrefixed(&text) {
			return "", io.ErrUnexpectedEOF
		}
		return string(text), nil
	case size == 0:
		return "", errNotSOCKS
	case len(s) < size:
		return "", io.ErrUnexpectedEOF
	}
	a, _ := netip.AddrFromSlice(s[:size])
	return a.String(), nil
}

// socks4 reads what follows the version of
// https://www.openssh.com/txt/socks4.protocol and socks4a.protocol.
func socks4(s cryptobyte.String) (string, error) {
	var addr [4]byte
	if !s.Skip(3) || !s.CopyBytes(addr[:]) { // command, port
		return "", io.ErrUnexpectedEOF
	}
	_, rest, ok := bytes.Cut(s, []byte{0}) // user
	switch {
	case !ok:
		return "", io.ErrUnexpectedEOF
	case addr[0] != 0 || addr[1] != 0 || addr[2] != 0 || addr[3] == 0:
		return netip.AddrFrom4(addr).String(), nil
	}
	name, _, ok := strings.Cut(string(rest), "\x00")
	if !ok {
		return "", io.ErrUnexpectedEOF
	}
	return name, nil
}
