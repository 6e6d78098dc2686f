// Package proxy is the path of a connection from the guest to its upstream.
//
// A flow is decided on its address and pins, its first bytes are looked at,
// and it becomes one of three things: an opaque splice, a plain HTTP
// connection, or TLS that is opened here. On opened connections every request
// is judged by [policy.Decide]; where all gates hold, placeholders are
// replaced by markers that the seal swaps for values below net/http. What
// comes back from a secret's host is searched for values.
//
// It promises: a value is written only to an upstream whose certificate was
// verified for the name that the guest asked for, at an address pinned for
// that name, in a request that names that host. One guest connection uses one
// upstream connection; nothing is shared or pooled. Messages go through byte
// for byte as far as net/http lets them, paths and queries always.
//
// It refuses rather than guesses: a refusal is an answer with a reason, a
// message that cannot be completed is left visibly incomplete.
//
// The files in reading order: flow.go, tls.go, plain.go, serve.go,
// handler.go, request.go, scrub.go, respond.go, refuse.go.
package proxy

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"

	"github.com/cutoutdev/cutout/internal/audit"
	"github.com/cutoutdev/cutout/internal/conntrack"
	"github.com/cutoutdev/cutout/internal/hostname"
	"github.com/cutoutdev/cutout/internal/policy"
	"github.com/cutoutdev/cutout/internal/secret"
)

// A Flow is a TCP connection that the guest wants to open.
type Flow struct {
	Src, Dst netip.AddrPort
	// Name is what the client of a proxy asked for, which was resolved to Dst
	// for this flow alone: it stands for a pin, and the server name must be
	// it. Empty: there is no such client, or it asked for an address.
	Name hostname.Name
	// Accept completes the guest's handshake. Called at most once, and not
	// after Refuse.
	Accept func() (net.Conn, error)
	// Refuse answers the guest's SYN with a RST. Called at most once, and
	// not after Accept.
	Refuse func()
}

// A Mode says which TLS connections are opened.
type Mode uint8

// The modes of --tls-intercept.
const (
	Auto Mode = iota // those to a host of some secret
	All              // every one that names its server
	Off              // none
)

// ParseMode reads auto, all or off.
func ParseMode(s string) (Mode, error) {
	switch s {
	case "auto":
		return Auto, nil
	case "all":
		return All, nil
	case "off":
		return Off, nil
	}
	return Auto, fmt.Errorf("unknown interception mode %q: use auto, all or off", s)
}

// Minter makes the certificate shown to the guest for name; *ca.Authority is
// one.
type Minter interface {
	Leaf(name hostname.Name) (*tls.Certificate, error)
}

// Pins is gate 2; *pin.Table is one.
type Pins interface {
	Pinned(name hostname.Name, addr netip.Addr) bool
	Names(addr netip.Addr) []hostname.Name
}

// An Egress is an upstream proxy; *egress.Proxy is one.
type Egress interface {
	// Takes reports whether it is used for connections with name, or with
	// nobody known, at dst.
	Takes(name hostname.Name, dst netip.AddrPort) bool
	// Dial asks it for a name, or for an address. Its errors are of type
	// *egress.Error.
	Dial(ctx context.Context, host string, port uint16) (net.Conn, error)
}

// Config is what a Proxy works with. Secrets, Store, CA, Pins, Audit and
// Network are needed; the rest have useful zero values.
type Config struct {
	// Secrets returns the current set. It is called once for each flow and
	// for each request, and must be quick; equal sets should be one pointer.
	Secrets func() *secret.Set
	Store   *secret.Store // where their values are
	CA      Minter
	Pins    Pins
	Audit   *audit.Log
	Network *policy.Network

	// Conns is told the connections; nil: nobody looks.
	Conns *conntrack.Table
	// Dial opens an upstream connection; nil: a net.Dialer.
	Dial func(ctx context.Context, dst netip.AddrPort) (net.Conn, error)
	// ConnectTo maps an address that stands for a name of --connect-to. The
	// result is exempt from Network and counts as a pin for name.
	ConnectTo func(dst netip.AddrPort) (to netip.AddrPort, name hostname.Name, ok bool)

	// Egress takes connections in Dial's stead; nil: there is no upstream
	// proxy. What ConnectTo and Host map is always dialled.
	Egress Egress
	// Unresolved returns the name for which an address stands that nobody here
	// could resolve. Only Egress can reach it. Nil: there are none.
	Unresolved func(netip.Addr) (name hostname.Name, ok bool)

	// DNS answers what is asked over TLS at port 853, in place of the server
	// there, where every TLS connection is opened; *dns.Interceptor is one.
	// Nil: it is refused.
	DNS interface {
		ServeConn(ctx context.Context, conn net.Conn)
	}

	// Host maps an address that stands for this machine's loopback, which is
	// judged and dialled in its place. Nil: there is none.
	Host func(dst netip.AddrPort) (loopback netip.AddrPort, ok bool)

	// SpoolDir is where bodies wait that must be measured and are too long
	// for memory: the guest's bytes, in files without a name. Empty: such
	// bodies are refused.
	SpoolDir string

	Roots       *x509.CertPool                          // that verify upstreams; nil: the host's
	RootsFor    func(name hostname.Name) *x509.CertPool // instead of Roots where it returns one
	Bypass      []hostname.Pattern                      // TLS never opened
	NoVerify    []hostname.Name                         // need not prove who they are; see [policy.Facts]
	OnViolation secret.Violation                        // where a secret has none of its own
	Intercept   Mode
	Scrub       func(name hostname.Name) Scrub // how answers of name are searched; nil: ScrubOn
	ScrubAll    bool                           // those of every opened connection are, not of secrets' hosts alone
	// Terminate ends the sandbox after a violation by a secret whose action
	// is block-and-terminate. It must not wait for the flow. Nil: nothing.
	Terminate func(reason policy.Reason)
}

// A Proxy handles the flows of one sandbox. Its methods may be called from
// several goroutines.
type Proxy struct {
	cfg    Config
	client transports
	flows  atomic.Int64 // in progress
	held   budget       // bytes of bodies and for decoders

	spooled  budget              // bytes of bodies on disk
	diskFull func(*os.File) bool // the disk of a file has no room to spare

	requests atomic.Int64  // in progress
	begun    atomic.Uint64 // requests
	tidy     *tidier

	rulesMu sync.Mutex // serialises the making of rules, and guards next
	next    *rules     // prepared; nil if they are in use already

	usesMu sync.Mutex
	uses   map[*use]bool
	rules  atomic.Pointer[rules]
}

// Requests returns how many requests were read, and how many have not ended.
func (p *Proxy) Requests() (begun uint64, now int64) { return p.begun.Load(), p.requests.Load() }

// New checks cfg. It silences the standard log of the process for good.
func New(cfg Config) (*Proxy, error) {
	if cfg.Secrets == nil || cfg.Store == nil || cfg.CA == nil || cfg.Pins == nil || cfg.Audit == nil || cfg.Network == nil {
		return nil, errors.New("proxy configuration is incomplete")
	}
	if cfg.Dial == nil {
		cfg.Dial = dial
	}
	if cfg.ConnectTo == nil {
		cfg.ConnectTo = func(netip.AddrPort) (netip.AddrPort, hostname.Name, bool) { return netip.AddrPort{}, "", false }
	}
	if cfg.Terminate == nil {
		cfg.Terminate = func(policy.Reason) {}
	}
	for _, s := range cfg.Secrets().All() {
		for _, h := range s.Hosts {
			for _, b := range cfg.Bypass {
				if b.Overlaps(h.Pattern) {
					return nil, fmt.Errorf("bypass %s covers %s, a host of %s", b, h.Pattern, s.Name)
				}
			}
		}
	}
	// net/http's client quotes what an upstream sends unasked, values and
	// all, in the standard log; there is no other way to stop it.
	log.SetOutput(io.Discard)
	p := &Proxy{cfg: cfg, client: newTransports(), held: budget{limit: heldLimit}, spooled: budget{limit: spoolQuota}, diskFull: scarce, uses: make(map[*use]bool)}
	p.tidy = newTidier(func() bool { return p.requests.Load() > 0 })
	return p, nil
}

func dial(ctx context.Context, dst netip.AddrPort) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, "tcp", dst.String())
}
