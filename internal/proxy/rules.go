package proxy

import (
	"runtime"
	"time"

	"github.com/cutoutdev/cutout/internal/rewrite"
	"github.com/cutoutdev/cutout/internal/secret"
)

// rules are what is derived from one set of secrets. They are made once per
// set: search tables cost more to build than most requests to search.
type rules struct {
	set      *secret.Set
	finder   *rewrite.Finder
	scrubber *rewrite.Scrubber // for every value of the set; nil if there is none
	err      error             // why there is no scrubber although there are values
}

// currentRules returns the rules of the current set.
func (p *Proxy) currentRules() *rules {
	set := p.cfg.Secrets()
	if r := p.rules.Load(); r != nil && r.set == set {
		return r
	}
	p.rulesMu.Lock()
	defer p.rulesMu.Unlock()
	if r := p.rules.Load(); r != nil && r.set == set {
		return r
	}
	r := p.next
	if r == nil || r.set != set {
		r = newRules(set)
	}
	p.rules.Store(r)
	p.next = nil
	return r
}

// Prepare makes what set needs, before Config.Secrets returns it. It fails if
// answers could not be searched for the values of set.
func (p *Proxy) Prepare(set *secret.Set) error {
	p.rulesMu.Lock()
	defer p.rulesMu.Unlock()
	// What the set before the current one took is given back as garbage.
	runtime.GC()
	time.Sleep(gcWait)
	r := newRules(set)
	if r.err != nil {
		return r.err
	}
	p.next = r
	return nil
}

// gcWait is for the clean-ups that a collection starts.
const gcWait = 50 * time.Millisecond

func newRules(set *secret.Set) *rules {
	r := &rules{set: set, finder: rewrite.NewFinder(set.All())}
	if len(set.All()) == 0 {
		return r
	}
	if r.scrubber, r.err = rewrite.NewScrubber(set.Searched()); r.err == nil {
		// Requests that began under an older set still hold its rules.
		runtime.AddCleanup(r, (*rewrite.Scrubber).Close, r.scrubber)
	}
	return r
}

// violationOf returns what happens where a placeholder may not be replaced.
func (p *Proxy) violationOf(s *secret.Secret) secret.Violation {
	if s.OnViolation != nil {
		return *s.OnViolation
	}
	return p.cfg.OnViolation
}
