package egress

import (
	"encoding/binary"
	"io"
	"net"
	"net/netip"

	"github.com/cutoutdev/cutout/internal/policy"
	"github.com/cutoutdev/cutout/internal/secret"
	"github.com/cutoutdev/cutout/internal/socks"
)

// socks asks for a tunnel by SOCKS5. Every read is of a length that is known.
func (p *Proxy) socks(conn net.Conn, host string, port uint16) error {
	methods := []byte{socks.Version, 1, socks.Open}
	if !p.Login.IsZero() {
		methods = []byte{socks.Version, 2, socks.Open, socks.Password}
	}
	if _, err := conn.Write(methods); err != nil {
		return err
	}
	var chosen [2]byte
	if _, err := io.ReadFull(conn, chosen[:]); err != nil {
		return err
	}
	switch {
	case chosen[0] != socks.Version:
		return socks.ErrMalformed
	case chosen[1] == socks.NoMethod:
		return &Error{policy.ProxyAuthFailed, "it wants a credential"}
	case chosen[1] == socks.Password && !p.Login.IsZero():
		if err := p.login(conn); err != nil {
			return err
		}
	case chosen[1] != socks.Open:
		return socks.ErrMalformed
	}
	if _, err := netip.ParseAddr(host); err != nil && len(host) > 255 {
		return &Error{policy.ProxyRefused, "the name is too long for it"}
	}
	request := socks.AppendHost([]byte{socks.Version, socks.Connect, 0}, host)
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
	if answer[1] != socks.PasswordAccepted {
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
	if head[0] != socks.Version {
		return socks.ErrMalformed
	}
	if err := replied(socks.Reply(head[1])); err != nil {
		return err
	}
	if _, err := socks.ReadHost(conn, head[3]); err != nil {
		return err
	}
	_, err := io.ReadFull(conn, make([]byte, 2)) // the port
	return err
}

// replied is what a reply says about the tunnel.
func replied(r socks.Reply) error {
	texts := map[socks.Reply]string{
		socks.NetworkUnreachable: "network unreachable", socks.HostUnreachable: "host unreachable",
		socks.ConnectionRefused: "connection refused", socks.TTLExpired: "TTL expired",
	}
	switch text := texts[r]; {
	case r == socks.Succeeded:
		return nil
	case text != "":
		return &Error{policy.UpstreamFailed, "the upstream proxy answers " + text}
	case r == socks.NotAllowed:
		return &Error{policy.ProxyRefused, "its rules do not allow it"}
	case r == socks.Failed:
		return &Error{policy.ProxyRefused, "it answers general failure"}
	}
	return failed("it answers %d", r)
}
