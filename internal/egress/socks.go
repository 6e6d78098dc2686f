package egress

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"

	"github.com/cutoutdev/cutout/internal/policy"
	"github.com/cutoutdev/cutout/internal/secret"
)

// RFC 1928 and, for the password, RFC 1929.
const (
	socksVersion  = 5
	socksOpen     = 0 // no authentication
	socksPassword = 2
	socksNone     = 0xff

	socksConnect = 1
	socksIPv4    = 1
	socksName    = 3
	socksIPv6    = 4
)

var errSOCKS = errors.New("malformed SOCKS reply")

// socks asks for a tunnel by SOCKS5. Every read is of a length that is known.
func (p *Proxy) socks(conn net.Conn, host string, port uint16) error {
	methods := []byte{socksVersion, 1, socksOpen}
	if !p.Login.IsZero() {
		methods = []byte{socksVersion, 2, socksOpen, socksPassword}
	}
	if _, err := conn.Write(methods); err != nil {
		return err
	}
	var chosen [2]byte
	if _, err := io.ReadFull(conn, chosen[:]); err != nil {
		return err
	}
	switch {
	case chosen[0] != socksVersion:
		return errSOCKS
	case chosen[1] == socksNone:
		return &Error{policy.ProxyAuthFailed, "it wants a credential"}
	case chosen[1] == socksPassword && !p.Login.IsZero():
		if err := p.login(conn); err != nil {
			return err
		}
	case chosen[1] != socksOpen:
		return errSOCKS
	}
	request := []byte{socksVersion, socksConnect, 0}
	switch a, err := netip.ParseAddr(host); {
	case err != nil && len(host) > 255:
		return &Error{policy.ProxyRefused, "the name is too long for it"}
	case err != nil:
		request = append(append(request, socksName, byte(len(host))), host...)
	case a.Is4():
		request = append(append(request, socksIPv4), a.AsSlice()...)
	default:
		request = append(append(request, socksIPv6), a.AsSlice()...)
	}
	if _, err := conn.Write(binary.BigEndian.AppendUint16(request, port)); err != nil {
		return err
	}
	return readReply(conn)
}

func (p *Proxy) login(conn net.Conn) error {
	if err := p.Store.WriteLogin(conn, p.Login, secret.SOCKSLogin, "", ""); err != nil {
		return err
	}
	var answer [2]byte
	if _, err := io.ReadFull(conn, answer[:]); err != nil {
		return err
	}
	if answer[1] != 0 {
		return &Error{policy.ProxyAuthFailed, "it does not accept the credential"}
	}
	return nil
}

// readReply reads a reply to its end, which is where the tunnel begins.
func readReply(conn net.Conn) error {
	var head [4]byte
	if _, err := io.ReadFull(conn, head[:]); err != nil {
		return err
	}
	if head[0] != socksVersion {
		return errSOCKS
	}
	if err := replied(head[1]); err != nil {
		return err
	}
	rest := 2 // the port
	switch head[3] {
	case socksIPv4:
		rest += 4
	case socksIPv6:
		rest += 16
	case socksName:
		var n [1]byte
		if _, err := io.ReadFull(conn, n[:]); err != nil {
			return err
		}
		rest += int(n[0])
	default:
		return errSOCKS
	}
	_, err := io.CopyN(io.Discard, conn, int64(rest))
	return err
}

// replied is what a reply's code says about the tunnel.
func replied(code byte) error {
	texts := map[byte]string{
		3: "network unreachable", 4: "host unreachable", 5: "connection refused", 6: "TTL expired",
	}
	switch text := texts[code]; {
	case code == 0:
		return nil
	case text != "":
		return &Error{policy.UpstreamFailed, "the upstream proxy answers " + text}
	case code == 2:
		return &Error{policy.ProxyRefused, "its rules do not allow it"}
	case code == 1:
		return &Error{policy.ProxyRefused, "it answers general failure"}
	}
	return failed("it answers %d", code)
}
