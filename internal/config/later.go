package config

import (
	"github.com/cutoutdev/cutout/internal/keeper"
)

// later refuses rules that the grammar knows and this version does not act
// on: a rule that is accepted is one that is kept.
func later(spec keeper.Spec) error {
	switch {
	case len(spec.Scrub) > 0:
		return notYet("--scrub")
	}
	return nil
}

func notYet(what string) error {
	return hinted(what+" is not supported yet", "leave it out")
}
