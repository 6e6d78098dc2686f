package egress

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strings"

	"github.com/cutoutdev/cutout/internal/policy"
	"github.com/cutoutdev/cutout/internal/secret"
)

// maxHead is twice what common servers accept in a head.
const maxHead = 16 << 10

// connect asks for a tunnel by CONNECT.
func (p *Proxy) connect(conn net.Conn, target string) error {
	head := "CONNECT " + target + " HTTP/1.1\r\nHost: " + target + "\r\n"
	var err error
	if p.Login.IsZero() {
		_, err = io.WriteString(conn, head+"\r\n")
	} else {
		err = p.Store.WriteLogin(conn, p.Login, secret.BasicLogin, head+"Proxy-Authorization: Basic ", "\r\n\r\n")
	}
	if err != nil {
		return err
	}
	// What follows the head is the tunnel's, so the reader must not run ahead.
	r := bufio.NewReader(io.LimitReader(byByte{conn}, maxHead))
	resp, err := http.ReadResponse(r, &http.Request{Method: http.MethodConnect})
	if err != nil {
		return err
	}
	// A framing that is announced is none: RFC 9110 §9.3.6.
	return status(resp.StatusCode)
}

// status is what a code says about the tunnel.
func status(code int) error {
	switch {
	case code/100 == 2:
		return nil
	case code == http.StatusProxyAuthRequired, code == http.StatusUnauthorized: // as tinyproxy says
		return &Error{policy.ProxyAuthFailed, "it answers " + digits(code)}
	case code == http.StatusBadGateway, code == http.StatusServiceUnavailable, code == http.StatusGatewayTimeout:
		return &Error{policy.UpstreamFailed, "the upstream proxy answers " + http.StatusText(code)}
	case code/100 == 4:
		return &Error{policy.ProxyRefused, strings.TrimSpace("it answers " + digits(code) + " " + http.StatusText(code))}
	}
	return failed("it answers %s to CONNECT", digits(code))
}

func digits(code int) string {
	return string([]byte{'0' + byte(code/100%10), '0' + byte(code/10%10), '0' + byte(code%10)})
}

// A byByte reads one byte at a time.
type byByte struct{ r io.Reader }

func (b byByte) Read(p []byte) (int, error) { return b.r.Read(p[:min(len(p), 1)]) }
