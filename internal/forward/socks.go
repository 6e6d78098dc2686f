package forward

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
	"net/netip"
)

// RFC 1928 and, for the password, RFC 1929.
const (
	socksVersion  = 5
	socksPassword = 2
	socksNone     = 0xff
	socksConnect  = 1

	socksIPv4 = 1
	socksName = 3
	socksIPv6 = 4

	socksSucceeded    = 0
	socksNotAllowed   = 2
	socksNoCommand    = 7
	socksNoAddress    = 8
	passwordVersion   = 1
	passwordSucceeded = 0
	passwordFailed    = 1
)

var errSOCKS = errors.New("malformed SOCKS request")

// A socksClient speaks SOCKS5.
type socksClient struct {
	r *bufio.Reader
	w io.Writer
}

func (c *socksClient) ask(password string) (Target, error) {
	if err := c.authenticate(password); err != nil {
		return Target{}, err
	}
	var head [4]byte
	if _, err := io.ReadFull(c.r, head[:]); err != nil {
		return Target{}, err
	}
	host, err := c.host(head[3])
	if err != nil {
		c.reply(socksNoAddress)
		return Target{}, err
	}
	var port [2]byte
	if _, err := io.ReadFull(c.r, port[:]); err != nil {
		return Target{}, err
	}
	if head[0] != socksVersion || head[1] != socksConnect {
		c.reply(socksNoCommand)
		return Target{}, errSOCKS
	}
	t, err := target(host, binary.BigEndian.Uint16(port[:]))
	if err != nil || t.Port == 0 {
		c.reply(socksNoAddress)
		return Target{}, errSOCKS
	}
	return t, nil
}

func (c *socksClient) authenticate(password string) error {
	if _, err := c.r.Discard(1); err != nil {
		return err
	}
	methods, err := c.text()
	if err != nil {
		return err
	}
	offered := false
	for i := range len(methods) {
		offered = offered || methods[i] == socksPassword
	}
	if !offered {
		c.w.Write([]byte{socksVersion, socksNone})
		return errUnauthorized
	}
	if _, err := c.w.Write([]byte{socksVersion, socksPassword}); err != nil {
		return err
	}
	version, err := c.r.ReadByte()
	if err != nil || version != passwordVersion {
		return errSOCKS
	}
	user, err := c.text()
	if err != nil {
		return err
	}
	given, err := c.text()
	if err != nil {
		return err
	}
	if !authorized(user, given, password) {
		c.w.Write([]byte{passwordVersion, passwordFailed})
		return errUnauthorized
	}
	_, err = c.w.Write([]byte{passwordVersion, passwordSucceeded})
	return err
}

// text reads a length and as many bytes.
func (c *socksClient) text() (string, error) {
	n, err := c.r.ReadByte()
	if err != nil {
		return "", err
	}
	b := make([]byte, n)
	_, err = io.ReadFull(c.r, b)
	return string(b), err
}

func (c *socksClient) host(kind byte) (string, error) {
	var size int
	switch kind {
	case socksName:
		return c.text()
	case socksIPv4:
		size = 4
	case socksIPv6:
		size = 16
	default:
		return "", errSOCKS
	}
	b := make([]byte, size)
	if _, err := io.ReadFull(c.r, b); err != nil {
		return "", err
	}
	a, _ := netip.AddrFromSlice(b)
	return a.String(), nil
}

func (c *socksClient) accepted() error { return c.reply(socksSucceeded) }

func (c *socksClient) refused() { c.reply(socksNotAllowed) }

// reply tells no address: the client has no use for it.
func (c *socksClient) reply(code byte) error {
	_, err := c.w.Write([]byte{socksVersion, code, 0, socksIPv4, 0, 0, 0, 0, 0, 0})
	return err
}
