package config

import (
	"fmt"
	"slices"
	"strings"

	"github.com/cutoutdev/cutout/internal/hostname"
	"github.com/cutoutdev/cutout/internal/keeper"
	"github.com/cutoutdev/cutout/internal/secret"
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

func (r Rules) scrub(spec *keeper.Spec) error {
	if err := each("scrub", r.Scrub, func(text string) error {
		rule, err := ParseScrub(text)
		spec.Scrub = append(spec.Scrub, rule)
		return err
	}); err != nil {
		return err
	}
	if scrubsAll(spec) {
		return nil
	}
	return each("scrub", r.Scrub, func(text string) error {
		rule, _ := ParseScrub(text)
		if rule.Hosts != nil && !anyHost(spec.Secrets, *rule.Hosts) {
			return hinted(fmt.Sprintf("--scrub: %s is no host of a secret", rule.Hosts), "write it as in --secret; the answers of other hosts are searched with --scrub all only")
		}
		return nil
	})
}

// scrubAll refuses --scrub all where it would not reach further.
func scrubAll(spec *keeper.Spec) error {
	if scrubsAll(spec) && spec.TLS.Intercept != "all" {
		return In("scrub", "all", hinted("--scrub all: only connections to the hosts of secrets are opened", "add --tls-intercept all"))
	}
	return nil
}

func scrubsAll(spec *keeper.Spec) bool {
	return slices.ContainsFunc(spec.Scrub, func(r keeper.ScrubRule) bool { return r.Mode == "all" })
}

// anyHost reports whether p covers a host of some secret.
func anyHost(list []secret.Secret, p hostname.Pattern) bool {
	for _, s := range list {
		for _, h := range s.Hosts {
			if p.Overlaps(h.Pattern) {
				return true
			}
		}
	}
	return false
}
