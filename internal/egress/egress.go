// Package egress reaches servers through an upstream proxy: HTTP CONNECT
// (RFC 9110 §9.3.6), over TLS or not, and SOCKS5 (RFC 1928).
//
// It asks by name, and believes nothing that the proxy says: where a tunnel
// ends is for the other gates to find out. What a proxy answers is read byte
// by byte, within a limit, so that not one byte of the tunnel is taken for the
// answer or the other way round. Its credential is written out of the locked
// store and nowhere else.
package egress

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http/httpproxy"

	"github.com/cutoutdev/cutout/internal/hostname"
	"github.com/cutoutdev/cutout/internal/policy"
	"github.com/cutoutdev/cutout/internal/secret"
)

// A Spec says which proxy to use, and for what.
type Spec struct {
	Scheme Scheme `json:"scheme"`
	Host   string `json:"host"` // a name or an address
	Port   uint16 `json:"port"`
	Bypass string `json:"bypass,omitempty"` // reached without it, as in NO_PROXY
	Login  bool   `json:"login,omitempty"`  // it wants a credential
	Names  bool   `json:"names,omitempty"`  // names that no resolver knows are left to it
}

// A Scheme is what a proxy speaks.
type Scheme string

// The schemes.
const (
	HTTP  Scheme = "http"  // CONNECT
	HTTPS Scheme = "https" // CONNECT, over TLS
	SOCKS Scheme = "socks5"
)

// URL is the proxy as users write it.
func (s Spec) URL() string { return string(s.Scheme) + "://" + s.address() }

func (s Spec) address() string { return net.JoinHostPort(s.Host, strconv.Itoa(int(s.Port))) }

// Clear reports whether a credential can be read on the way to the proxy.
func (s Spec) Clear() bool {
	a, err := netip.ParseAddr(s.Host)
	return s.Scheme != HTTPS && s.Host != "localhost" && !(err == nil && a.IsLoopback())
}

// A Proxy is a proxy at work. Its methods may be called from several
// goroutines.
type Proxy struct {
	Spec
	Roots *x509.CertPool // that verify it; nil: the host's
	Store *secret.Store  // where Login is
	Login secret.Value   // USER:PASSWORD; zero: none

	bypass func(*url.URL) (*url.URL, error)
}

// New returns the proxy that s describes.
func New(s Spec) *Proxy {
	// The proxy here only tells what is bypassed from what is not.
	c := httpproxy.Config{HTTPSProxy: "http://proxy", NoProxy: s.Bypass}
	return &Proxy{Spec: s, bypass: c.ProxyFunc()}
}

// Takes reports whether a connection with name, or with nobody known, at dst
// goes through the proxy.
func (p *Proxy) Takes(name hostname.Name, dst netip.AddrPort) bool {
	hosts := []string{dst.Addr().String()}
	if name != "" {
		hosts = append(hosts, string(name))
	}
	for _, host := range hosts {
		u := &url.URL{Scheme: "https", Host: net.JoinHostPort(host, strconv.Itoa(int(dst.Port())))}
		if via, err := p.bypass(u); err == nil && via == nil {
			return false
		}
	}
	return true
}

// An Error says why there is no tunnel.
type Error struct {
	Reason policy.Reason
	Detail string // for people; nothing that the proxy chose but a number
}

func (e *Error) Error() string { return fmt.Sprintf("%s: %s", e.Reason, e.Detail) }

func failed(format string, args ...any) error {
	return &Error{policy.ProxyFailed, fmt.Sprintf(format, args...)}
}

// Dial asks the proxy for a tunnel to a name or an address. An error is an
// *[Error], but for the end of ctx.
func (p *Proxy) Dial(ctx context.Context, host string, port uint16) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", p.address())
	if err != nil {
		return nil, failed("it cannot be reached")
	}
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	tunnel, err := p.tunnel(ctx, conn, host, port)
	if !stop() && err == nil {
		err = failed("it does not answer in time")
	}
	if err == nil {
		return tunnel, nil
	}
	conn.Close()
	if e, ok := errors.AsType[*Error](err); ok {
		return nil, e
	}
	switch {
	case errors.Is(err, secret.ErrLogin):
		return nil, &Error{policy.ProxyAuthFailed, secret.ErrLogin.Error()}
	case ctx.Err() != nil:
		return nil, failed("it does not answer in time")
	}
	return nil, failed("it broke off, or answers something else than %s", p.Scheme)
}

func (p *Proxy) tunnel(ctx context.Context, conn net.Conn, host string, port uint16) (net.Conn, error) {
	if p.Scheme == SOCKS {
		return conn, p.socks(conn, host, port)
	}
	if p.Scheme == HTTPS {
		secure := tls.Client(conn, &tls.Config{ServerName: p.Host, RootCAs: p.Roots, NextProtos: []string{"http/1.1"}, MinVersion: tls.VersionTLS12})
		if err := secure.HandshakeContext(ctx); err != nil {
			if errors.As(err, new(*tls.CertificateVerificationError)) {
				return nil, failed("its certificate is not valid for %s", p.Host)
			}
			return nil, err
		}
		conn = secure
	}
	return conn, p.connect(conn, net.JoinHostPort(host, strconv.Itoa(int(port))))
}

// Parse reads the URL of a proxy. Its errors repeat nothing of the text, in
// which a password may stand.
func Parse(text string) (Spec, error) {
	if !strings.Contains(text, "://") {
		text = "http://" + text // as in HTTPS_PROXY
	}
	u, err := url.Parse(text)
	if err != nil {
		return Spec{}, errors.New("it is not a URL")
	}
	s := Spec{Scheme: Scheme(strings.ToLower(u.Scheme)), Host: u.Hostname()}
	switch s.Scheme {
	case HTTP:
		s.Port = 80
	case HTTPS:
		s.Port = 443
	case SOCKS, "socks5h":
		// The name is always sent, which is what the h means.
		s.Scheme, s.Port = SOCKS, 1080
	default:
		return Spec{}, errors.New("it is none of http://, https://, socks5:// and socks5h://")
	}
	if u.User != nil {
		return Spec{}, ErrPassword
	}
	if u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != "" {
		return Spec{}, errors.New("there is more than a host and a port")
	}
	if port := u.Port(); port != "" || strings.HasSuffix(u.Host, ":") {
		if s.Port, err = hostname.ParsePort(port); err != nil {
			return Spec{}, errors.New("its port is none")
		}
	}
	if a, err := netip.ParseAddr(s.Host); err == nil && a.Zone() == "" && !a.IsUnspecified() {
		s.Host = a.Unmap().String()
		return s, nil
	}
	if s.Host == "localhost" {
		return s, nil
	}
	name, err := hostname.Parse(s.Host)
	if err != nil {
		return Spec{}, errors.New("its host is none")
	}
	s.Host = string(name)
	return s, nil
}

// ErrPassword is returned for a URL in which a credential stands.
var ErrPassword = errors.New("a credential stands in it, which every process can read")
