// Package policy decides: whether a value may be written into a request
// ([Decide]) and which addresses a sandbox may reach ([Network]).
//
// It does no I/O. Facts come from the layer that established them, and the
// zero value of every fact means "not established", which fails its gate.
package policy

import (
	"github.com/cutoutdev/cutout/internal/hostname"
	"github.com/cutoutdev/cutout/internal/secret"
)

// Facts are what is known about one request and the connection it came on.
type Facts struct {
	ServerName  hostname.Name      // SNI of the intercepted connection; "" = none
	Port        uint16             // port that the guest dialled
	Pinned      bool               // an alive pin for (ServerName, destination address)
	TLS         bool               // the boundary terminates the guest's TLS
	Verified    bool               // the upstream's identity was verified for ServerName before any byte
	Authority   hostname.Authority // of this very request
	AuthorityOK bool               // exactly one, well-formed, no userinfo, an absolute-form target agrees
}

// A Decision says whether a value may be written and, if not, why.
type Decision struct {
	Substitute bool
	Reason     Reason // None if Substitute
}

// Decide evaluates the gates in order for a secret that may go to hosts. It
// is the only place where substitution is permitted.
func Decide(f Facts, hosts []secret.Host) Decision {
	switch {
	case !f.TLS:
		return deny(PlainHTTP)
	case !allowed(f, hosts):
		return deny(HostNotAllowed)
	case !f.Pinned:
		return deny(NotPinned)
	case !f.Verified:
		return deny(UpstreamUnverified)
	case !SameAuthority(f):
		return deny(AuthorityMismatch)
	}
	return Decision{Substitute: true}
}

func deny(r Reason) Decision { return Decision{Reason: r} }

// allowed is gate 1: SNI and dialled port are a binding's.
func allowed(f Facts, hosts []secret.Host) bool {
	for _, h := range hosts {
		if h.Match(f.ServerName, f.Port) {
			return true
		}
	}
	return false
}

// SameAuthority is gate 4: the request's authority is the connection's
// server name, and its port, if given, the dialled one. An absent port means
// the scheme's default, RFC 9110 §4.2.2, which for TLS is 443; HTTP clients
// always write another one, so its absence elsewhere is a mismatch.
func SameAuthority(f Facts) bool {
	port := f.Authority.Port
	if port == 0 {
		port = 443
	}
	return f.AuthorityOK && f.ServerName != "" && f.Authority.Host == f.ServerName && port == f.Port
}
