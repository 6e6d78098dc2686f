package boundary

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"time"

	"golang.org/x/net/proxy"
)

// A Way is how a workload reaches cutout boundary.
type Way string

// The ways. A client of --listen speaks one of two protocols.
const (
	Unix    Way = "unix"
	Tap     Way = "tap"
	Connect Way = "connect"
	Socks   Way = "socks"
)

// Ways are all of them.
var Ways = []Way{Unix, Tap, Connect, Socks}

// Proxy reports whether a workload has no interface, but asks as one asks a
// proxy.
func (w Way) Proxy() bool { return w == Connect || w == Socks }

// dial asks for a tunnel: to a name, or to addr if it is valid.
func (p *process) dial(ctx context.Context, patience time.Duration, addr netip.Addr, name string, port uint16) (net.Conn, error) {
	if addr.IsValid() {
		name = addr.String()
	}
	target := net.JoinHostPort(name, strconv.Itoa(int(port)))
	at, err := url.Parse(p.env["HTTPS_PROXY"])
	if p.way == Socks {
		at, err = url.Parse(p.env["ALL_PROXY"])
	}
	if err != nil {
		return nil, err
	}
	c, err := p.machine.dial(ctx, at.Host)
	if err != nil {
		return nil, err
	}
	c.SetDeadline(time.Now().Add(patience))
	if p.way == Socks {
		password, _ := at.User.Password()
		d, err := proxy.SOCKS5("tcp", at.Host, &proxy.Auth{User: at.User.Username(), Password: password}, dialled{c})
		if err != nil {
			return nil, err
		}
		return d.Dial("tcp", target)
	}
	return connectThrough(c, at.User, target)
}

// dial connects to the machine itself.
func (m *machine) dial(ctx context.Context, at string) (c net.Conn, err error) {
	err = m.ns.In(func() error {
		c, err = new(net.Dialer).DialContext(ctx, "tcp", at)
		return err
	})
	return c, err
}

// dialled is a dialer that has dialled.
type dialled struct{ net.Conn }

func (d dialled) Dial(string, string) (net.Conn, error) { return d.Conn, nil }

func connectThrough(c net.Conn, user *url.Userinfo, target string) (net.Conn, error) {
	req := &http.Request{Method: http.MethodConnect, URL: &url.URL{Opaque: target}, Host: target, Header: http.Header{}}
	password, _ := user.Password()
	login := &http.Request{Header: http.Header{}}
	login.SetBasicAuth(user.Username(), password)
	req.Header["Proxy-Authorization"] = login.Header["Authorization"]
	if err := req.Write(c); err != nil {
		c.Close()
		return nil, err
	}
	r := bufio.NewReader(c)
	resp, err := http.ReadResponse(r, req)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("CONNECT: %s", resp.Status)
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return tunnel{c, r}, nil
}

// A tunnel has been read from already.
type tunnel struct {
	net.Conn
	r *bufio.Reader
}

func (t tunnel) Read(b []byte) (int, error) { return t.r.Read(b) }
