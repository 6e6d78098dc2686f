package config

import (
	"context"
	"strings"
	"time"

	"github.com/cutoutdev/cutout/internal/keeper"
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
		err = m.apply(&spec)
	}
	c := keeper.Change{Set: spec.Secrets, Drain: m.Drain, DryRun: m.DryRun}
	for _, text := range m.Hosts {
		if err == nil {
			err = m.narrow(&c, text)
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
