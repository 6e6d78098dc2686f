package keeper

import (
	"slices"

	"github.com/cutoutdev/cutout/internal/hostname"
	"github.com/cutoutdev/cutout/internal/proxy"
)

// scrub is how the answers of name are searched: as the last rule for it says.
// A mode that nobody knows is the strictest one.
func (s Spec) scrub(name hostname.Name) proxy.Scrub {
	mode := proxy.ScrubOn
	for _, r := range s.Scrub {
		if r.Hosts != nil && !r.Hosts.Match(name) {
			continue
		}
		switch r.Mode {
		case "lax":
			mode = proxy.ScrubLax
		case "off":
			mode = proxy.ScrubOff
		default:
			mode = proxy.ScrubOn
		}
	}
	return mode
}

// scrubsAll reports whether the answers of every intercepted host are searched.
func (s Spec) scrubsAll() bool {
	return slices.ContainsFunc(s.Scrub, func(r ScrubRule) bool { return r.Mode == "all" })
}
