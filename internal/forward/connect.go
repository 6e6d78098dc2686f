package forward

import (
	"bufio"
	"errors"
	"io"
	"net/http"
)

// A connectClient speaks HTTP/1.1 and may ask for tunnels alone.
type connectClient struct {
	r *bufio.Reader
	w io.Writer
}

func (c *connectClient) ask(password string) (Target, error) {
	req, err := http.ReadRequest(c.r)
	if err != nil {
		c.answer("400 Bad Request", "", "the request is malformed")
		return Target{}, err
	}
	if !basic(req, password) {
		c.answer("407 Proxy Authentication Required", "Proxy-Authenticate: Basic realm=\"cutout\"\r\n", "the credential of --env-file is needed")
		return Target{}, errUnauthorized
	}
	if req.Method != http.MethodConnect {
		c.answer("405 Method Not Allowed", "Allow: CONNECT\r\n", "ask for a tunnel, by CONNECT")
		return Target{}, errors.New("not a tunnel")
	}
	t, err := splitTarget(req.Host)
	if err != nil {
		c.answer("400 Bad Request", "", "the target is not HOST:PORT")
	}
	return t, err
}

// basic reports whether the request shows the credential, RFC 9110 §11.7.
func basic(req *http.Request, password string) bool {
	values := req.Header.Values("Proxy-Authorization")
	if len(values) != 1 {
		return false
	}
	as := &http.Request{Header: http.Header{"Authorization": values}}
	user, given, ok := as.BasicAuth()
	return ok && authorized(user, given, password)
}

func (c *connectClient) accepted() error {
	_, err := io.WriteString(c.w, "HTTP/1.1 200 Connection established\r\n\r\n")
	return err
}

func (c *connectClient) refused() {
	c.answer("403 Forbidden", "", "the boundary refuses, or nobody answers there; cutout audit says why")
}

func (c *connectClient) answer(status, fields, text string) {
	io.WriteString(c.w, "HTTP/1.1 "+status+"\r\n"+fields+"Content-Type: text/plain\r\nConnection: close\r\n\r\n"+text+"\n")
}
