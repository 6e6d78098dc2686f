// Package secret holds what Cutout protects and the rules that go with it:
// the secret with its placeholder and hosts, the locked store in which
// values live, and the seal, the last step in which a value is written.
//
// A value never leaves the locked region except into a TLS record. It has no
// accessor; every way of printing it prints "[secret]".
package secret

import (
	"github.com/cutoutdev/cutout/internal/hostname"
)

// A Secret is a value with its placeholder and the hosts that may get it.
type Secret struct {
	Name        string
	Placeholder string
	Hosts       []Host
	OnViolation *Violation // nil = the sandbox's
	Value       Value
}

// A Host is where a secret may go: names and the port the guest dials.
type Host struct {
	Pattern hostname.Pattern
	Port    uint16 // 0 = any; parsers put 443 where none is written
}

// Match reports whether a connection to name at port is to h.
func (h Host) Match(name hostname.Name, port uint16) bool {
	return h.Pattern.Match(name) && (h.Port == 0 || h.Port == port)
}

// HasHost reports whether name is one of the secret's hosts, at any port.
func (s *Secret) HasHost(name hostname.Name) bool {
	for _, h := range s.Hosts {
		if h.Pattern.Match(name) {
			return true
		}
	}
	return false
}

// An Action is what happens to a request that holds a placeholder which may
// not be substituted there.
type Action uint8

// The actions, DESIGN "on_violation". The zero Action is the safe default.
const (
	BlockAndLog Action = iota
	Block
	BlockAndTerminate
	Passthrough
)

func (a Action) String() string {
	switch a {
	case Block:
		return "block"
	case BlockAndTerminate:
		return "block-and-terminate"
	case Passthrough:
		return "passthrough"
	}
	return "block-and-log"
}

// A Violation is an action and, for Passthrough, the hosts to which the
// inert placeholder may pass; no hosts means all.
type Violation struct {
	Action Action
	Hosts  []hostname.Pattern
}

// For returns the action for a request to name: Passthrough only where its
// hosts cover name, else BlockAndLog.
func (v Violation) For(name hostname.Name) Action {
	if v.Action != Passthrough || len(v.Hosts) == 0 {
		return v.Action
	}
	for _, p := range v.Hosts {
		if p.Match(name) {
			return Passthrough
		}
	}
	return BlockAndLog
}
