package config

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/cutoutdev/cutout/internal/keeper"
	"github.com/cutoutdev/cutout/internal/secret"
)

// A Modify is what the flags of cutout modify say, unparsed.
type Modify struct {
	Rules           // Secrets to add or replace, with their rules
	Hosts  []string // NAME=HOST[:PORT],…
	Remove []string // NAME
	Drain  time.Duration
	DryRun bool
}

// Build makes the change and has the values read, which then are held by
// values.
func (m Modify) Build(ctx context.Context, values Values) (keeper.Change, error) {
	var spec keeper.Spec
	_, err := m.bind(ctx, &spec, values, true)
	texts := m.texts()
	for _, text := range m.Hosts {
		texts = append(texts, Text{Where: "--hosts", Text: text})
	}
	for _, text := range m.Remove {
		texts = append(texts, Text{Where: "--secret-rm", Text: text})
	}
	// Before anything is parsed, since errors quote what they do not like.
	if held := values.Check(ctx, texts); held != nil {
		err = held
	}
	if err == nil {
		added := m.Rules
		added.Exclusive, added.OnViolation = nil, nil // may be of secrets that are there
		err = added.apply(&spec)
	}
	c := keeper.Change{Set: spec.Secrets, Drain: m.Drain, DryRun: m.DryRun}
	for _, text := range m.Hosts {
		if err == nil {
			err = m.narrow(&c, text)
		}
	}
	for _, step := range []func(*keeper.Change) error{m.exclusive, m.violation} {
		if err == nil {
			err = step(&c)
		}
	}
	for _, name := range m.Remove {
		if err == nil && !validName(name) {
			err = hinted("invalid --secret-rm", "write --secret-rm NAME")
		}
		c.Remove = append(c.Remove, name)
	}
	return c, err
}

func (m Modify) narrow(c *keeper.Change, text string) error {
	name, hosts, ok := strings.Cut(text, "=")
	if !ok || !validName(name) {
		return hinted("invalid --hosts", "write --hosts NAME=HOST,…")
	}
	list, err := parseHosts(hosts, name, exceptions{})
	if err != nil {
		return prefixed("--hosts "+shown(name), err)
	}
	c.Narrow = append(c.Narrow, keeper.Narrowing{Name: name, Hosts: list})
	return nil
}

// narrowing is that of a secret whose value is not read anew.
func narrowing(c *keeper.Change, name string) *keeper.Narrowing {
	i := slices.IndexFunc(c.Narrow, func(n keeper.Narrowing) bool { return n.Name == name })
	if i < 0 {
		c.Narrow, i = append(c.Narrow, keeper.Narrowing{Name: name}), len(c.Narrow)
	}
	return &c.Narrow[i]
}

// replaced is the secret of that name whose value is read anew, or nil.
func replaced(c *keeper.Change, name string) *secret.Secret {
	for i := range c.Set {
		if c.Set[i].Name == name {
			return &c.Set[i]
		}
	}
	return nil
}

func (m Modify) exclusive(c *keeper.Change) error {
	for _, text := range m.Exclusive {
		name, off := strings.CutSuffix(text, "=off")
		s := replaced(c, name)
		switch {
		case !validName(name):
			return hinted("invalid --exclusive", "write --exclusive NAME, or, with --secret NAME@HOST, --exclusive NAME=off")
		case off:
			c.Share = append(c.Share, name)
		case s != nil:
			s.Exclusive = true
		default:
			narrowing(c, name).Exclusive = true
		}
	}
	return nil
}

func (m Modify) violation(c *keeper.Change) error {
	for _, text := range m.OnViolation {
		name, v, err := ParseViolation(text)
		if err != nil {
			return err
		}
		if name == "" {
			return hinted("--on-violation: it is changed for a secret", "write --on-violation NAME=ACTION")
		}
		if s := replaced(c, name); s != nil {
			s.OnViolation = &v
		} else {
			narrowing(c, name).OnViolation = &v
		}
	}
	return nil
}
