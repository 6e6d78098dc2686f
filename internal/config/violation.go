package config

import (
	"fmt"
	"strings"

	"github.com/cutoutdev/cutout/internal/hostname"
	"github.com/cutoutdev/cutout/internal/secret"
)

var actions = map[string]secret.Action{}

func init() {
	for a := secret.Block; a <= secret.Passthrough; a++ {
		actions[a.String()] = a
	}
}

// ParseViolation reads [NAME=]ACTION[,hold][:HOST,…]. An empty name means
// the whole sandbox.
func ParseViolation(s string) (name string, v secret.Violation, err error) {
	rest, where := s, "--on-violation"
	if n, r, ok := strings.Cut(s, "="); ok {
		name, rest = n, r
		if !validName(name) {
			return "", v, hinted("invalid --on-violation: what precedes = is not the name of a variable",
				"write --on-violation [NAME=]ACTION, for example block or API_KEY=passthrough:api.example.com")
		}
		where += " " + shown(name)
	}
	text, hosts, hasHosts := strings.Cut(rest, ":")
	text, option, hasOption := strings.Cut(text, ",")
	action, ok := actions[text]
	switch {
	case !ok:
		return "", v, hinted(where+": unknown action",
			didYouMean(text, keys(actions))+"use block, block-and-log, block-and-terminate or passthrough[:HOST,…]")
	case hasOption && option != "hold":
		return "", v, hinted(where+": unknown option after the action", didYouMean(option, []string{"hold"})+"write "+text+",hold")
	case hasOption && action == secret.Passthrough:
		return "", v, hinted(where+": passthrough refuses nothing, so there is nothing to hold a body for", "write block,hold, or leave hold out")
	case hasHosts && action != secret.Passthrough:
		return "", v, hinted(where+": only passthrough takes hosts", "write "+text+" without a colon")
	}
	v.Action, v.Hold = action, hasOption
	if !hasHosts {
		return name, v, nil
	}
	for h := range strings.SplitSeq(hosts, ",") {
		p, err := hostname.ParsePattern(h)
		if err != nil {
			return "", v, fmt.Errorf("%s: %w", where, err)
		}
		v.Hosts = append(v.Hosts, p)
	}
	return name, v, nil
}
