package config

import (
	_ "embed"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/cutoutdev/cutout/internal/secret"
)

// A KnownSecret is a row of the catalogue: what a --secret that names a
// well-known credential and no host stands for.
type KnownSecret struct {
	Name     string        `json:"name"`
	Hosts    []string      `json:"hosts"`
	Surfaces []string      `json:"surfaces"`
	Shaped   bool          `json:"shaped"` // its placeholder looks like the value
	Source   string        `json:"source"` // the service's page that says so
	hosts    []secret.Host // the same, parsed
	surfaces secret.Surfaces
}

//go:embed known.txt
var knownText string

// Known returns the catalogue, ordered by name. Callers must not change it.
var Known = sync.OnceValue(func() []KnownSecret {
	list, err := parseKnown(knownText)
	if err != nil {
		panic(err) // TestKnown reads it too
	}
	return list
})

// parseKnown reads the rows of text as it reads flags.
func parseKnown(text string) ([]KnownSecret, error) {
	var list []KnownSecret
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
			continue
		}
		k, err := parseKnownRow(line)
		if err != nil {
			return nil, fmt.Errorf("%q: %w", line, err)
		}
		list = append(list, k)
	}
	slices.SortFunc(list, func(a, b KnownSecret) int { return strings.Compare(a.Name, b.Name) })
	for i := range list[1:] {
		if list[i].Name == list[i+1].Name {
			return nil, fmt.Errorf("%s has two rows", list[i].Name)
		}
	}
	return list, nil
}

func parseKnownRow(line string) (KnownSecret, error) {
	col := strings.Fields(line)
	if len(col) != 5 {
		return KnownSecret{}, fmt.Errorf("a row has 5 columns")
	}
	k := KnownSecret{Name: col[0], Hosts: strings.Split(col[1], ","), Source: col[4]}
	if !validName(k.Name) {
		return k, fmt.Errorf("it does not begin with the name of a variable")
	}
	var err error
	if k.hosts, err = parseHosts(col[1], k.Name, exceptions{}); err != nil {
		return k, err
	}
	if col[2] == "-" {
		col[2] = "header,basic"
	}
	if _, k.surfaces, err = ParseSurfaces(col[0] + "=" + col[2]); err != nil {
		return k, err
	}
	k.Surfaces = strings.Split(col[2], ",")
	if k.Shaped = col[3] == shaped; !k.Shaped && col[3] != "-" {
		return k, fmt.Errorf("a placeholder is %s or -", shaped)
	}
	if !strings.HasPrefix(k.Source, "https://") {
		return k, fmt.Errorf("the source is no page")
	}
	return k, nil
}

// known returns the row of name.
func known(name string) (KnownSecret, bool) {
	i, ok := slices.BinarySearchFunc(Known(), name, func(k KnownSecret, name string) int { return strings.Compare(k.Name, name) })
	if !ok {
		return KnownSecret{}, false
	}
	return Known()[i], true
}

// apply gives s what the catalogue says of it.
func (k KnownSecret) apply(s *secret.Secret) {
	surfaces := k.surfaces
	s.Surfaces = &surfaces
	if k.Shaped {
		s.Placeholder = ""
	}
}

// KnownNames lists the names of the catalogue.
func KnownNames() []string {
	var out []string
	for _, k := range Known() {
		out = append(out, k.Name)
	}
	return out
}

// KnownHosts lists the hosts of the catalogue's name, none if it has no such
// name.
func KnownHosts(name string) []string {
	k, _ := known(name)
	return k.Hosts
}
