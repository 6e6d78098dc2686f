package forward

import (
	"bufio"
	"encoding/binary"
	"io"
	"strings"

	"github.com/cutoutdev/cutout/internal/socks"
)

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
	host, err := socks.ReadHost(c.r, head[3])
	if err != nil {
		c.reply(socks.NoKind)
		return Target{}, err
	}
	var port [2]byte
	if _, err := io.ReadFull(c.r, port[:]); err != nil {
		return Target{}, err
	}
	if head[0] != socks.Version || head[1] != socks.Connect {
		c.reply(socks.NoCommand)
		return Target{}, socks.ErrMalformed
	}
	t, err := target(host, binary.BigEndian.Uint16(port[:]))
	if err != nil || t.Port == 0 {
		c.reply(socks.NoKind)
		return Target{}, socks.ErrMalformed
	}
	return t, nil
}

func (c *socksClient) authenticate(password string) error {
	if _, err := c.r.Discard(1); err != nil {
		return err
	}
	methods, err := socks.ReadText(c.r)
	if err != nil {
		return err
	}
	if !strings.Contains(methods, string([]byte{socks.Password})) {
		c.w.Write([]byte{socks.Version, socks.NoMethod})
		return errUnauthorized
	}
	if _, err := c.w.Write([]byte{socks.Version, socks.Password}); err != nil {
		return err
	}
	version, err := c.r.ReadByte()
	if err != nil || version != socks.PasswordVersion {
		return socks.ErrMalformed
	}
	user, err := socks.ReadText(c.r)
	if err != nil {
		return err
	}
	given, err := socks.ReadText(c.r)
	if err != nil {
		return err
	}
	if !authorized(user, given, password) {
		c.w.Write([]byte{socks.PasswordVersion, socks.PasswordRefused})
		return errUnauthorized
	}
	_, err = c.w.Write([]byte{socks.PasswordVersion, socks.PasswordAccepted})
	return err
}

func (c *socksClient) accepted() error { return c.reply(socks.Succeeded) }

func (c *socksClient) refused() { c.reply(socks.NotAllowed) }

// reply tells no address: the client has no use for it.
func (c *socksClient) reply(r socks.Reply) error {
	_, err := c.w.Write([]byte{socks.Version, byte(r), 0, socks.IPv4, 0, 0, 0, 0, 0, 0})
	return err
}
