package keeper

import (
	"testing"

	"github.com/cutoutdev/cutout/internal/hostname"
	"github.com/cutoutdev/cutout/internal/proxy"
)

func TestScrubMode(t *testing.T) {
	one := hostname.Exact("one.example")
	for name, tt := range map[string]struct {
		rules      []ScrubRule
		one, other proxy.Scrub
		all        bool
	}{
		"none":          {nil, proxy.ScrubOn, proxy.ScrubOn, false},
		"one host":      {[]ScrubRule{{Hosts: &one, Mode: "off"}}, proxy.ScrubOff, proxy.ScrubOn, false},
		"every host":    {[]ScrubRule{{Mode: "lax"}}, proxy.ScrubLax, proxy.ScrubLax, false},
		"the last wins": {[]ScrubRule{{Mode: "off"}, {Hosts: &one, Mode: "on"}}, proxy.ScrubOn, proxy.ScrubOff, false},
		"and again":     {[]ScrubRule{{Hosts: &one, Mode: "off"}, {Mode: "all"}}, proxy.ScrubOn, proxy.ScrubOn, true},
		"unknown":       {[]ScrubRule{{Mode: "off"}, {Mode: "OFF"}}, proxy.ScrubOn, proxy.ScrubOn, false},
	} {
		s := Spec{Scrub: tt.rules}
		if a, b, all := s.scrub("one.example"), s.scrub("other.example"), s.scrubsAll(); a != tt.one || b != tt.other || all != tt.all {
			t.Errorf("%s: %d, %d, %t", name, a, b, all)
		}
	}
}
