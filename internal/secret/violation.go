package secret

import "github.com/cutoutdev/cutout/internal/hostname"

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

func (v Violation) covers(name hostname.Name) bool {
	for _, p := range v.Hosts {
		if p.Match(name) {
			return true
		}
	}
	return len(v.Hosts) == 0
}
