package config

import (
	"fmt"
	"slices"
	"strings"

	"github.com/cutoutdev/cutout/internal/hostname"
	"github.com/cutoutdev/cutout/internal/keeper"
)

var scrubModes = []string{"on", "lax", "off", "all"}

const scrubHint = "write --scrub [HOST=]on|lax|off, or --scrub all for every intercepted host"

// ParseScrub reads a --scrub [HOST=]MODE.
func ParseScrub(s string) (keeper.ScrubRule, error) {
	host, mode, hasHost := strings.Cut(s, "=")
	if !hasHost {
		mode = host
	}
	if !slices.Contains(scrubModes, mode) {
		return keeper.ScrubRule{}, hinted("--scrub: unknown mode", didYouMean(mode, scrubModes)+scrubHint)
	}
	rule := keeper.ScrubRule{Mode: mode}
	if !hasHost {
		return rule, nil
	}
	if mode == "all" {
		return rule, hinted("--scrub: all is for every host and takes none", scrubHint)
	}
	p, err := hostname.ParsePattern(host)
	if err != nil {
		return rule, fmt.Errorf("--scrub: %w", err)
	}
	rule.Hosts = &p
	return rule, nil
}
