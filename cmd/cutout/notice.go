package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"golang.org/x/net/publicsuffix"

	"github.com/cutoutdev/cutout/internal/audit"
	"github.com/cutoutdev/cutout/internal/hostname"
	"github.com/cutoutdev/cutout/internal/policy"
	"github.com/cutoutdev/cutout/internal/secret"
	"github.com/cutoutdev/cutout/internal/term"
)

// Notices tells the user, on standard error, what the guest's own programs
// often hide: that a request was refused and why. Each kind of refusal gets
// one line; the audit log has them all.
type notices struct {
	out     *term.Output
	secrets []secret.Secret

	mu      sync.Mutex
	seen    map[notice]bool
	spliced map[string]bool // hosts whose TLS passed unopened
}

// A notice is a kind of refusal.
type notice struct {
	event  string
	reason policy.Reason
	secret string
}

// Limits on what one guest can make us remember and print.
const (
	maxNotices = 64
	maxSpliced = 1024
)

func newNotices(out *term.Output, secrets []secret.Secret) *notices {
	return &notices{out: out, secrets: secrets, seen: map[notice]bool{}, spliced: map[string]bool{}}
}

// observe is told every event of the sandbox.
func (n *notices) observe(e audit.Event) {
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case e.Event == audit.Spliced && e.Reason == policy.None:
		if len(n.spliced) < maxSpliced {
			n.spliced[e.Host] = true
		}
	case e.Event == audit.Spliced, e.Event == audit.Refused, e.Event == audit.Denied, e.Event == audit.Aborted:
		kind := notice{e.Event, e.Reason, e.Secret}
		if n.seen[kind] || len(n.seen) >= maxNotices {
			return
		}
		n.seen[kind] = true
		n.out.Printf("cutout: %s", noticeLine(e))
	}
}

func noticeLine(e audit.Event) string {
	var b strings.Builder
	b.WriteString(e.Event)
	where := e.Host
	if where == "" {
		where = e.Dst
	}
	if e.Method != "" {
		fmt.Fprintf(&b, " %s", e.Method)
	}
	if where != "" {
		fmt.Fprintf(&b, " %s%s", where, e.Path)
	}
	if e.Src != "" {
		fmt.Fprintf(&b, " for %s", e.Src)
	}
	if e.Secret != "" {
		fmt.Fprintf(&b, " with %s", e.Secret)
	}
	fmt.Fprintf(&b, ": %s", e.Reason)
	if what := e.Reason.What(); what != "" {
		fmt.Fprintf(&b, ", %s", what)
	}
	if hint := e.Reason.Hint(); hint != "" {
		fmt.Fprintf(&b, " (%s)", hint)
	}
	return term.Escape(b.String())
}

// end is called when the sandbox has ended. It names hosts that got an
// unopened connection and look like relatives of a secret's host: if the
// placeholder was sent there, it was not swapped, and the user probably
// wanted it to be.
func (n *notices) end() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, host := range slices.Sorted(maps.Keys(n.spliced)) {
		if s, relative := n.relative(host); relative {
			n.out.Printf("cutout: the placeholder may have gone to %s, which is not a host of %s (add it with --secret %s@…,%s)",
				term.Escape(host), s.Name, s.Name, term.Escape(host))
		}
	}
}

// relative returns the secret one of whose hosts has the registrable domain
// of host.
func (n *notices) relative(host string) (secret.Secret, bool) {
	domain, err := publicsuffix.EffectiveTLDPlusOne(host)
	if err != nil {
		return secret.Secret{}, false
	}
	for _, s := range n.secrets {
		if slices.ContainsFunc(s.Hosts, func(h secret.Host) bool { return h.Pattern.Match(hostname.Name(host)) }) {
			continue // its own host, spliced for another reason
		}
		for _, h := range s.Hosts {
			own, err := publicsuffix.EffectiveTLDPlusOne(strings.TrimPrefix(h.Pattern.String(), "*."))
			if err == nil && own == domain {
				return s, true
			}
		}
	}
	return secret.Secret{}, false
}
