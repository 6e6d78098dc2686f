// Package policy decides: whether a value may be written into a request
// ([Decide]) and which addresses a sandbox may reach ([Network]).
//
// It does no I/O. Facts come from the layer that established them, and the
// zero value of every fact means "not established", which fails its gate.
package policy

import (
	"slices"

	"github.com/cutoutdev/cutout/internal/hostname"
	"github.com/cutoutdev/cutout/internal/secret"
)

// Facts are what is known about one request and the connection it came on.
type Facts struct {
	// ServerName is whom the connection is with: the SNI of intercepted TLS,
	// on a plain connection the host that the request itself names. "" = none.
	ServerName hostname.Name
	Port       uint16 // that the guest dialled
	Pinned     bool   // an alive pin for (ServerName, destination address)
	Direct     bool   // the request is for the dialled server, not for a proxy to pass on
	Reached    bool   // the boundary dialled the server's address itself: no upstream proxy says whom it reached
	TLS        bool   // the boundary terminates the guest's TLS
	Verified   bool   // the upstream's identity was verified for ServerName before any byte
	NoVerify   bool   // the user asked not to insist on that for ServerName
	OneName    bool   // no request on this connection has named another authority

	Authority   hostname.Authority // of this very request
	AuthorityOK bool               // exactly one, well-formed, no userinfo, an absolute-form target agrees

	Method string              // of this very request, as written
	Target string              // its path and query, as written
	Header map[string][]string // its header: what may stand for method and path. Only read
}

// A Decision says whether a value may be written and, if not, why.
type Decision struct {
	Substitute bool
	Reason     Reason // None if Substitute
}

// A Gate is what one gate says.
type Gate struct {
	Number int    `json:"gate"` // from 1
	Name   string `json:"name"`
	Pass   bool   `json:"pass"`
	Reason Reason `json:"reason,omitempty"` // None if Pass
}

// The gates, in order. [Decide] and [Explain] have no other opinion.
var gates = [...]struct {
	name string
	says func(f Facts, s *secret.Secret) Reason
}{
	{"allowed host", allowedHost},
	{"DNS pin", pinned},
	{"TLS identity", identity},
	{"authority", authority},
	{"scope", scope},
	{"value", value},
}

// Decide evaluates the gates in order for the value of s. It is the only
// place where substitution is permitted.
func Decide(f Facts, s *secret.Secret) Decision {
	for i := range gates {
		if r := gates[i].says(f, s); r != None {
			return Decision{Reason: r}
		}
	}
	return Decision{Substitute: true}
}

// Explain returns the verdict of every gate, also behind one that fails.
func Explain(f Facts, s *secret.Secret) []Gate {
	out := make([]Gate, len(gates))
	for i, g := range gates {
		r := g.says(f, s)
		out[i] = Gate{Number: i + 1, Name: g.name, Pass: r == None, Reason: r}
	}
	return out
}

// allowedHost is gate 1: name and dialled port are a binding's. What a proxy
// is to pass on has no dialled port to compare, and fails gate 2.
func allowedHost(f Facts, s *secret.Secret) Reason {
	if f.ServerName == "" {
		return HostNotAllowed
	}
	for _, h := range s.Hosts {
		if h.Pattern.Match(f.ServerName) && (!f.Direct || portMatches(f, h)) {
			return None
		}
	}
	return HostNotAllowed
}

// portMatches compares the dialled port with a binding's. A binding without
// a port means that of https; for a secret that may go out in clear it means
// that of http there. Any other is meant as written.
func portMatches(f Facts, h secret.Host) bool {
	if !f.TLS && h.Port == 443 {
		return f.Port == 80
	}
	return h.Port == 0 || h.Port == f.Port
}

// pinned is gate 2.
func pinned(f Facts, _ *secret.Secret) Reason {
	switch {
	case !f.Direct:
		return Tunnelled
	case !f.Pinned:
		return NotPinned
	}
	return None
}

// identity is gate 3. Its exceptions are for one secret and exact host: in
// clear, or over TLS with a server that nobody insists on verifying. Through an
// upstream proxy there are none: the certificate alone says who is there.
func identity(f Facts, s *secret.Secret) Reason {
	switch {
	case !f.TLS && !(f.Reached && slices.Contains(s.Plain, f.ServerName)):
		return PlainHTTP
	case !f.TLS, f.Verified, f.Reached && f.NoVerify && slices.Contains(s.Unverified, f.ServerName):
		return None
	}
	return UpstreamUnverified
}

// authority is gate 4.
func authority(f Facts, _ *secret.Secret) Reason {
	if !SameAuthority(f) {
		return AuthorityMismatch
	}
	return None
}

// SameAuthority reports whether the request's authority is the connection's
// server name, and its port, if given, the dialled one. An absent port means
// the scheme's default, RFC 9110 §4.2.2; HTTP clients always write another
// one, so its absence elsewhere is a mismatch.
func SameAuthority(f Facts) bool {
	port := f.Authority.Port
	switch {
	case port != 0:
	case f.TLS:
		port = 443
	default:
		port = 80
	}
	return f.AuthorityOK && f.OneName && f.ServerName != "" && f.Authority.Host == f.ServerName && port == f.Port
}

// value is gate 6: there is one that may be written.
func value(_ Facts, s *secret.Secret) Reason {
	switch s.State {
	case secret.Live:
		return None
	case secret.Withdrawn:
		return SourceUnavailable
	}
	return SecretRemoved
}

// scope is gate 5: every reading of the request is in some scope of the
// secret, or it has none.
func scope(f Facts, s *secret.Secret) Reason {
	if len(s.Scopes) > 0 && !inScope(f, s.Scopes) {
		return OutOfScope
	}
	return None
}
