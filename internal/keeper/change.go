package keeper

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/cutoutdev/cutout/internal/secret"
)

// A Change is what becomes of the secrets of a sandbox at work. It is made as
// a whole or not at all.
//
// Whoever reaches the control socket may narrow and remove. What widens where
// a value may go comes with the value, read anew: so nobody has a value that
// the keeper holds sent to a place of his own choice.
type Change struct {
	Set    []secret.Secret `json:"set,omitempty"` // added or replaced; their values follow. What they leave open stays
	Narrow []Narrowing     `json:"narrow,omitempty"`
	Remove []string        `json:"remove,omitempty"`
	Share  []string        `json:"share,omitempty"`   // of Set: not exclusive any more
	Drain  time.Duration   `json:"drain,omitempty"`   // how long requests with a replaced value are waited for; 0 = DefaultDrain
	DryRun bool            `json:"dry_run,omitempty"` // check only; no value follows
}

// A Narrowing leaves a secret some of its hosts, or makes its rules stricter.
type Narrowing struct {
	Name        string            `json:"name"`
	Hosts       []secret.Host     `json:"hosts,omitempty"` // none = all of them
	Exclusive   bool              `json:"exclusive,omitempty"`
	OnViolation *secret.Violation `json:"on_violation,omitempty"`
}

// apply makes n of s, and says what it did. Rules are those of secrets without
// any of their own.
func (n Narrowing) apply(s *secret.Secret, rules secret.Violation) (done []string, err error) {
	widens := func(what string) error {
		return &Failure{Text: n.Name + " " + what, Hint: fmt.Sprintf("its value must be read anew for that: --secret %s@HOST", n.Name)}
	}
	if n.Hosts != nil {
		if len(n.Hosts) == 0 || !within(s.Hosts, n.Hosts) {
			return nil, widens("would go to further hosts")
		}
		s.Hosts = n.Hosts
		done = append(done, fmt.Sprintf("narrowed %s to %s", n.Name, hostList(n.Hosts)))
	}
	if n.Exclusive {
		s.Exclusive = true
		done = append(done, "made "+n.Name+" exclusive")
	}
	if n.OnViolation != nil {
		if s.OnViolation != nil {
			rules = *s.OnViolation
		}
		if !n.OnViolation.Within(rules) {
			return nil, widens("would be guarded less strictly")
		}
		s.OnViolation = n.OnViolation
		done = append(done, fmt.Sprintf("set on-violation of %s to %s", n.Name, n.OnViolation.Action))
	}
	if done == nil {
		return nil, &Failure{Text: "nothing of " + n.Name + " is to be changed"}
	}
	return done, nil
}

// A Changed is what a change has done.
type Changed struct {
	Done    []string `json:"done"`    // a line for each secret
	Aborted int      `json:"aborted"` // requests that were under way
}

// Limits of a change.
const (
	DefaultDrain = 30 * time.Second
	maxDrain     = time.Hour
	// narrowDrain is for requests that may do what is no longer permitted.
	narrowDrain = 2 * time.Second
	maxSecrets  = 256
)

// A plan of what a change makes of secrets.
type changePlan struct {
	secrets []*secret.Secret // all, those of Set without their values
	set     []*secret.Secret // those of Set, in its order
	lost    []*secret.Secret // as they were, that may go to fewer places now
	turned  []*secret.Secret // as they were, whose value is another now
	done    []string
}

// planChange refuses a change that is none or that widens without a value. Rules
// are those of secrets without any of their own.
func planChange(old []*secret.Secret, c Change, rules secret.Violation) (*changePlan, error) {
	if len(c.Set)+len(c.Narrow)+len(c.Remove) == 0 {
		return nil, &Failure{Text: "nothing is to be changed"}
	}
	if c.Drain < 0 || c.Drain > maxDrain {
		return nil, &Failure{Text: fmt.Sprintf("requests are waited for %v at the most", maxDrain)}
	}
	p := &changePlan{secrets: slices.Clone(old)}
	touched := map[string]bool{}
	place := func(name string) (int, error) {
		if touched[name] {
			return 0, &Failure{Text: name + " is changed twice", Hint: "name it once"}
		}
		touched[name] = true
		return slices.IndexFunc(p.secrets, func(s *secret.Secret) bool { return s.Name == name }), nil
	}
	there := func(name string) (int, error) {
		i, err := place(name)
		if err == nil && (i < 0 || p.secrets[i].State == secret.Removed) {
			err = noSecret(name, old)
		}
		return i, err
	}
	for _, name := range c.Remove {
		i, err := there(name)
		if err != nil {
			return nil, err
		}
		s := *p.secrets[i]
		s.State, s.Exclusive, s.Plain, s.Unverified = secret.Removed, false, nil, nil
		p.lost, p.secrets[i] = append(p.lost, p.secrets[i]), &s
		p.done = append(p.done, "removed "+name)
	}
	for _, n := range c.Narrow {
		i, err := there(n.Name)
		if err != nil {
			return nil, err
		}
		s := *p.secrets[i]
		done, err := n.apply(&s, rules)
		if err != nil {
			return nil, err
		}
		p.lost, p.secrets[i] = append(p.lost, p.secrets[i]), &s
		p.done = append(p.done, done...)
	}
	for _, x := range c.Set {
		i, err := place(x.Name)
		if err != nil {
			return nil, err
		}
		p.replace(i, x)
	}
	for _, name := range c.Share {
		i := slices.IndexFunc(p.set, func(s *secret.Secret) bool { return s.Name == name })
		if i < 0 {
			return nil, &Failure{Text: name + " would let other credentials pass", Hint: fmt.Sprintf("its value must be read anew for that: --secret %s@HOST", name)}
		}
		p.set[i].Exclusive = false
	}
	if len(p.secrets) > maxSecrets {
		return nil, &Failure{Text: fmt.Sprintf("a sandbox has %d secrets at the most", maxSecrets)}
	}
	return p, nil
}

// replace puts x in the place of secret i, or adds it if i is negative. The
// placeholder stays: the guest has it.
func (p *changePlan) replace(i int, x secret.Secret) {
	if i < 0 {
		p.secrets = append(p.secrets, &x)
		p.set = append(p.set, &x)
		p.done = append(p.done, fmt.Sprintf("added %s for %s", x.Name, hostList(x.Hosts)))
		return
	}
	old := p.secrets[i]
	s := *old
	s.State, s.Hosts, s.Short = secret.Live, x.Hosts, x.Short
	if x.Surfaces != nil {
		s.Surfaces = x.Surfaces
	}
	if x.Scopes != nil {
		s.Scopes = x.Scopes
	}
	if x.OnViolation != nil {
		s.OnViolation = x.OnViolation
	}
	s.Exclusive = s.Exclusive || x.Exclusive
	p.secrets[i] = &s
	p.set = append(p.set, &s)
	p.turned = append(p.turned, old)
	if !within(x.Hosts, old.Hosts) {
		p.lost = append(p.lost, old)
	}
	p.done = append(p.done, fmt.Sprintf("replaced the value of %s for %s", x.Name, hostList(x.Hosts)))
}

// within reports whether whatever goes to narrow may go to wide.
func within(wide, narrow []secret.Host) bool {
	return !slices.ContainsFunc(narrow, func(n secret.Host) bool {
		return !slices.ContainsFunc(wide, func(w secret.Host) bool { return w.Covers(n) })
	})
}

func noSecret(name string, list []*secret.Secret) error {
	var names []string
	for _, s := range list {
		if s.State != secret.Removed {
			names = append(names, s.Name)
		}
	}
	return &Failure{Text: "the sandbox has no secret " + name, Hint: "it has " + strings.Join(append(names, "no other"), ", ")}
}

func hostList(hosts []secret.Host) string {
	var out []string
	for _, h := range hosts {
		switch h.Port {
		case 443:
			out = append(out, h.Pattern.String())
		case 0:
			out = append(out, h.Pattern.String()+":*")
		default:
			out = append(out, fmt.Sprintf("%s:%d", h.Pattern, h.Port))
		}
	}
	return strings.Join(out, ",")
}
