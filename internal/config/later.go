package config

import (
	"github.com/cutoutdev/cutout/internal/keeper"
)

// later refuses rules that the grammar knows and this version does not act
// on: a rule that is accepted is one that is kept.
func later(spec keeper.Spec) error {
	for _, s := range spec.Secrets {
		switch {
		case s.Exclusive:
			return notYet("--exclusive")
		}
	}
	switch {
	case len(spec.TLS.NoVerify) > 0:
		return notYet("--tls-no-verify-upstream-for")
	case len(spec.Scrub) > 0:
		return notYet("--scrub")
	}
	return nil
}

func notYet(what string) error {
	return hinted(what+" is not supported yet", "leave it out")
}
