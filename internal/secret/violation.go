package secret

import (
	"slices"

	"github.com/cutoutdev/cutout/internal/hostname"
)

// An Action is what happens to a request that holds a placeholder which may
// not be substituted there.
type Action uint8

// The actions. The zero Action, that of a user who chose none, blocks where
// credentials stand and lets bodies carry the useless text: an agent that
// has printed its environment quotes placeholders in all that it sends.
const (
	Default Action = iota
	Block
	BlockAndLog
	BlockAndTerminate
	Passthrough
)

func (a Action) String() string {
	switch a {
	case Block:
		return "block"
	case BlockAndLog:
		return "block-and-log"
	case BlockAndTerminate:
		return "block-and-terminate"
	case Passthrough:
		return "passthrough"
	}
	return "default"
}

// A Violation is an action and how it is taken.
type Violation struct {
	Action Action
	Hosts  []hostname.Pattern // for Passthrough: where; none = everywhere
	Hold   bool               // read a whole body before its head goes out
}

// Head returns the action for a placeholder in a position of credentials, in
// a request to name. It is never Default.
func (v Violation) Head(name hostname.Name) Action {
	switch {
	case v.Action == Default, v.Action == Passthrough && !v.covers(name):
		return BlockAndLog
	}
	return v.Action
}

// Body returns the action for one in a body or message.
func (v Violation) Body(name hostname.Name) Action {
	if v.Action == Default {
		return Passthrough
	}
	return v.Head(name)
}

// Within reports whether v lets no request go that o does not, and hides none
// that o records or ends the sandbox for.
func (v Violation) Within(o Violation) bool {
	if v.Action > Passthrough || o.Hold && !v.Hold {
		return false
	}
	switch {
	case o.Action == Passthrough && len(o.Hosts) == 0:
		return true
	case v.Action == Passthrough:
		return o.Action == Passthrough && len(v.Hosts) > 0 && !slices.ContainsFunc(v.Hosts, func(p hostname.Pattern) bool {
			return !slices.ContainsFunc(o.Hosts, func(w hostname.Pattern) bool { return Host{Pattern: w}.Covers(Host{Pattern: p}) })
		})
	case v.Action == BlockAndTerminate:
		return true
	case v.Action == BlockAndLog:
		return o.Action != BlockAndTerminate
	}
	return v.Action == o.Action // Default carries bodies, Block keeps no record: neither is within the other
}

func (v Violation) covers(name hostname.Name) bool {
	for _, p := range v.Hosts {
		if p.Match(name) {
			return true
		}
	}
	return len(v.Hosts) == 0
}
