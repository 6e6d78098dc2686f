// Package socks is what both ends of SOCKS5 agree on: the numbers of RFC 1928
// and, for the password, RFC 1929, and how a host is written.
package socks

import (
	"errors"
	"io"
	"net/netip"
)

// Version is the first byte of a greeting, a request and a reply.
const Version = 5

// Methods of authentication.
const (
	Open     = 0x00 // none
	Password = 0x02
	NoMethod = 0xff // none that was offered will do
)

// PasswordVersion is the first byte of a login and of its answer, whose
// second is one of the others.
const (
	PasswordVersion  = 1
	PasswordAccepted = 0
	PasswordRefused  = 1
)

// Connect is the command that asks for a connection.
const Connect = 1

// Kinds of host.
const (
	IPv4 = 1
	Name = 3
	IPv6 = 4
)

// A Reply says what became of a request.
type Reply byte

// The replies.
const (
	Succeeded          Reply = 0
	Failed             Reply = 1
	NotAllowed         Reply = 2
	NetworkUnreachable Reply = 3
	HostUnreachable    Reply = 4
	ConnectionRefused  Reply = 5
	TTLExpired         Reply = 6
	NoCommand          Reply = 7
	NoKind             Reply = 8 // of host
)

// ErrMalformed is returned for what is no SOCKS5.
var ErrMalformed = errors.New("malformed SOCKS message")

// AppendHost appends host, a name of up to 255 bytes or an address, with its
// kind before it.
func AppendHost(b []byte, host string) []byte {
	a, err := netip.ParseAddr(host)
	switch {
	case err != nil:
		return append(append(b, Name, byte(len(host))), host...)
	case a.Is4():
		return append(append(b, IPv4), a.AsSlice()...)
	}
	return append(append(b, IPv6), a.AsSlice()...)
}

// ReadHost reads a host of a kind, and not one byte more.
func ReadHost(r io.Reader, kind byte) (string, error) {
	var size int
	switch kind {
	case Name:
		return ReadText(r)
	case IPv4:
		size = 4
	case IPv6:
		size = 16
	default:
		return "", ErrMalformed
	}
	b := make([]byte, size)
	if _, err := io.ReadFull(r, b); err != nil {
		return "", err
	}
	a, _ := netip.AddrFromSlice(b)
	return a.String(), nil
}

// ReadText reads a length and as many bytes.
func ReadText(r io.Reader) (string, error) {
	var n [1]byte
	if _, err := io.ReadFull(r, n[:]); err != nil {
		return "", err
	}
	b := make([]byte, n[0])
	_, err := io.ReadFull(r, b)
	return string(b), err
}
