package proxy

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cutoutdev/cutout/internal/audit"
	"github.com/cutoutdev/cutout/internal/conntrack"
	"github.com/cutoutdev/cutout/internal/hello"
	"github.com/cutoutdev/cutout/internal/hostname"
	"github.com/cutoutdev/cutout/internal/policy"
	"github.com/cutoutdev/cutout/internal/secret"
)

const (
	// handshakeLimit is for the handshake with an upstream: the limit of
	// net/http and of most clients.
	handshakeLimit = 10 * time.Second
	// guestLimit is for the handshake with the guest, whose emulated CPU may
	// be shared by dozens of clients that start at once.
	guestLimit = 2 * time.Minute
)

// serveTLS decides whether the connection is opened. up is nil if nothing was
// dialled.
func (f *flow) serveTLS(h hello.Hello, up net.Conn) {
	name := h.Name
	switch {
	case h.Malformed, h.BadName && !isAddress(h.RawName):
		// Whose certificate is this to be? Nobody can say, so nobody can
		// say that it is not a secret's host either.
		f.abort(policy.MalformedRequest, "", "server name")
	case name == "":
		f.pass(up, "", "no server name")
	case !f.opens(name, h):
		f.pass(up, name, "")
	default:
		f.open(name, h, up)
	}
}

// isAddress reports whether a server name is an address, which RFC 6066 §3
// forbids and some clients send. It cannot name a secret's host.
func isAddress(s string) bool {
	_, err := netip.ParseAddr(strings.Trim(s, "[]"))
	return err == nil
}

// opens reports whether TLS to name is terminated here.
func (f *flow) opens(name hostname.Name, h hello.Hello) bool {
	for _, b := range f.cfg.Bypass {
		if b.Match(name) {
			return false
		}
	}
	switch f.cfg.Intercept {
	case Off:
		return false
	case Auto:
		return f.set.HasHost(name)
	}
	// A connection that can only speak something else than HTTP.
	return f.set.HasHost(name) || len(h.ALPN) == 0 || len(common(h.ALPN)) > 0
}

// pass splices a TLS connection.
func (f *flow) pass(up net.Conn, name hostname.Name, detail string) {
	f.audit(audit.Event{Event: audit.Spliced, Host: string(name), Dst: f.dst.String(), Detail: detail})
	f.splice(up)
}

// open terminates the guest's TLS: the upstream first, then the guest, who is
// answered with the protocol that the upstream chose.
func (f *flow) open(name hostname.Name, h hello.Hello, up net.Conn) {
	f.entry.Becomes(conntrack.Intercepted)
	s := &session{flow: f, scrubAlways: f.set.HasHost(name), win: f.window()}
	s.facts = policy.Facts{ServerName: name, Port: f.dst.Port(), TLS: true, Direct: true, Reached: !f.way.proxied, OneName: true, Pinned: f.pinned(name)}
	protocol, err := s.connect(h, up)
	switch {
	case err == nil:
	case s.told == policy.None:
		f.failHandshake(name, err)
		return
	case f.passes(name):
		f.pass(nil, name, string(s.told)) // the guest will see for itself
		return
	}
	guest, err := f.answer(name, h, protocol)
	if err != nil {
		s.close()
		f.denied(policy.GuestHandshake, name, "")
		return
	}
	if protocol == "h2" {
		s.serveHTTP2(guest)
	} else {
		s.serveHTTP1(guest)
	}
}

// connect establishes the facts about the upstream and, if they permit to
// send anything to it, a connection. s.told is why the guest's requests are
// to be refused instead; other errors are those of a dead server.
func (s *session) connect(h hello.Hello, up net.Conn) (protocol string, err error) {
	name := s.facts.ServerName
	bound := s.set.HasHost(name)
	if bound && !s.facts.Pinned {
		s.told = policy.NotPinned
		return preferred(h.ALPN), errors.New("address is not pinned")
	}
	if up == nil {
		if up, err = s.dial(); err != nil {
			reason, detail := refusedBy(err)
			if bound && s.way.proxied {
				s.told, s.toldMore = reason, detail
				return preferred(h.ALPN), err
			}
			return "", err
		}
	}
	s.raw = up
	s.facts.NoVerify = slices.Contains(s.cfg.NoVerify, name)
	conn, verified, err := s.verify(name, common(h.ALPN), up)
	if err != nil {
		up.Close()
		if unverified := new(tls.CertificateVerificationError); bound && errors.As(err, &unverified) {
			s.told = policy.UpstreamUnverified
			return preferred(h.ALPN), err
		}
		return "", err
	}
	s.facts.Verified = verified
	protocol = conn.ConnectionState().NegotiatedProtocol
	client := s.client.h1
	if protocol == "h2" {
		client = s.client.h2[s.win]
	}
	s.seal = secret.NewSeal(conn, protocol == "h2", s.cfg.Store)
	s.up, err = client.conn(s.ctx, "https", net.JoinHostPort(string(name), strconv.Itoa(int(s.facts.Port))), s.seal)
	return protocol, err
}

// verify completes a TLS handshake with an upstream that proves to be name,
// or that need not: then verified says whether it does.
func (f *flow) verify(name hostname.Name, protocols []string, up net.Conn) (conn *tls.Conn, verified bool, err error) {
	ctx, cancel := context.WithTimeout(f.ctx, handshakeLimit)
	defer cancel()
	cfg := &tls.Config{
		ServerName: string(name),
		NextProtos: protocols,
		RootCAs:    f.roots(name),
		MinVersion: tls.VersionTLS12,
	}
	cfg.VerifyConnection = func(cs tls.ConnectionState) error {
		err := stapled(cs, cs.VerifiedChains, time.Now())
		if err != nil {
			err = &tls.CertificateVerificationError{UnverifiedCertificates: cs.PeerCertificates, Err: err}
		}
		return err
	}
	verified = true
	if slices.Contains(f.cfg.NoVerify, name) {
		cfg.InsecureSkipVerify = true
		cfg.VerifyConnection = func(cs tls.ConnectionState) error {
			verified = proves(cs, cfg)
			return nil
		}
	}
	conn = tls.Client(up, cfg)
	if err := conn.HandshakeContext(ctx); err != nil {
		return nil, false, err
	}
	return conn, verified, nil
}

// proves reports whether the server would have been believed otherwise.
func proves(cs tls.ConnectionState, cfg *tls.Config) bool {
	rest := x509.NewCertPool()
	for _, c := range cs.PeerCertificates[1:] {
		rest.AddCert(c)
	}
	chains, err := cs.PeerCertificates[0].Verify(x509.VerifyOptions{DNSName: cfg.ServerName, Roots: cfg.RootCAs, Intermediates: rest})
	return err == nil && stapled(cs, chains, time.Now()) == nil
}

func (f *flow) roots(name hostname.Name) *x509.CertPool {
	if f.cfg.RootsFor != nil {
		if pool := f.cfg.RootsFor(name); pool != nil {
			return pool
		}
	}
	return f.cfg.Roots
}

// answer completes the guest's handshake with a leaf for name.
func (f *flow) answer(name hostname.Name, h hello.Hello, protocol string) (*tls.Conn, error) {
	ctx, cancel := context.WithTimeout(f.ctx, guestLimit)
	defer cancel()
	conn := tls.Server(f.guest, &tls.Config{
		GetConfigForClient: func(seen *tls.ClientHelloInfo) (*tls.Config, error) {
			// What was decided on must be what crypto/tls has read.
			if seen.ServerName != h.RawName || !slices.Equal(seen.SupportedProtos, h.ALPN) {
				return nil, errors.New("hello was read in two ways")
			}
			leaf, err := f.cfg.CA.Leaf(name)
			if err != nil {
				return nil, err
			}
			c := &tls.Config{
				Certificates: []tls.Certificate{*leaf},
				MinVersion:   tls.VersionTLS12,
				// A resumed session would outlive the facts of this one.
				SessionTicketsDisabled: true,
			}
			if protocol != "" {
				c.NextProtos = []string{protocol}
			}
			return c, nil
		},
	})
	if err := conn.HandshakeContext(ctx); err != nil {
		return nil, err
	}
	return conn, nil
}

// failHandshake answers the guest's hello with an alert: the server is dead.
func (f *flow) failHandshake(name hostname.Name, cause error) {
	reason, detail := refusedBy(cause)
	if unverified := new(tls.CertificateVerificationError); errors.As(cause, &unverified) {
		reason = policy.UpstreamUnverified
	}
	f.denied(reason, name, detail)
	ctx, cancel := context.WithTimeout(f.ctx, guestLimit)
	defer cancel()
	tls.Server(f.guest, &tls.Config{
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return nil, cause },
	}).HandshakeContext(ctx)
}

// passes reports whether every secret of name lets its placeholder pass
// there: the connection is then relayed unopened, inert by construction.
func (f *flow) passes(name hostname.Name) bool {
	for _, x := range f.set.ForHost(name) {
		if f.violationOf(x).Head(name) != secret.Passthrough {
			return false
		}
	}
	return true
}

// common is what of the guest's protocols can be spoken here, in its order.
func common(alpn []string) []string {
	var out []string
	for _, p := range alpn {
		if p == "h2" || p == "http/1.1" {
			out = append(out, p)
		}
	}
	return out
}

// preferred is the protocol of an answer that no upstream has chosen.
func preferred(alpn []string) string {
	if c := common(alpn); len(c) > 0 {
		return c[0]
	}
	return ""
}

var _ http.Handler = (*session)(nil)
