package main

import (
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/cutoutdev/cutout/internal/config"
)

// completeRules lets a shell complete what follows the flags of bindRules.
func completeRules(cmd *cobra.Command, r *config.Rules) {
	names := func() []string { return secretNames(r) }
	starts := func() []string { return joined(names(), []string{"="}) }
	words := map[string]func(typed string) []string{
		"secret":       completeSecret,
		"placeholder":  func(string) []string { return joined(names(), []string{"=shaped"}) },
		"surface":      func(typed string) []string { return joined(startOfItem(typed, starts()), config.SurfaceWords()) },
		"scope":        func(string) []string { return joined(starts(), config.Methods()) },
		"on-violation": func(string) []string { return joined(append(starts(), ""), config.ActionWords()) },
		"scrub":        func(string) []string { return config.ScrubModes() },
	}
	for _, flag := range []string{"exclusive", "allow-any-host", "allow-short"} {
		words[flag] = func(string) []string { return names() }
	}
	for _, flag := range []string{"allow-plain", "allow-unverified"} {
		words[flag] = func(string) []string { return namesAtHosts(r) }
	}
	for flag, list := range words {
		cmd.RegisterFlagCompletionFunc(flag, func(_ *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
			return list(typed), cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
		})
	}
}

// completeSecret offers the names of the catalogue and of variables, and after
// = the sources.
func completeSecret(typed string) []string {
	name, ref, named := strings.Cut(typed, "=")
	if !named || strings.Contains(ref, ":") {
		return append(config.KnownNames(), joined(environNames(), []string{"@"})...)
	}
	var out []string
	for _, form := range config.Schemes() {
		scheme, _, _ := strings.Cut(form, ":")
		out = append(out, name+"="+scheme+":")
	}
	return out
}

// secretNames lists the secrets of the --secret flags so far.
func secretNames(r *config.Rules) []string {
	var out []string
	for _, s := range r.Secrets {
		name, _, _ := strings.Cut(s, "@")
		name, _, _ = strings.Cut(name, "=")
		out = append(out, name)
	}
	return out
}

// namesAtHosts lists them with each of their hosts.
func namesAtHosts(r *config.Rules) []string {
	var out []string
	for i, name := range secretNames(r) {
		_, hosts, named := strings.Cut(r.Secrets[i], "@")
		if !named {
			hosts = strings.Join(config.KnownHosts(name), ",")
		}
		for h := range strings.SplitSeq(hosts, ",") {
			host, _, _ := strings.Cut(h, ":")
			out = append(out, name+"@"+host)
		}
	}
	return out
}

// startOfItem returns what precedes the list item that is being typed: the
// text up to the last comma, or one of starts.
func startOfItem(typed string, starts []string) []string {
	if i := strings.LastIndexByte(typed, ','); i >= 0 {
		return []string{typed[:i+1]}
	}
	return starts
}

// environNames lists the names of the caller's variables.
func environNames() []string {
	var out []string
	for _, e := range os.Environ() {
		name, _, _ := strings.Cut(e, "=")
		out = append(out, name)
	}
	slices.Sort(out)
	return out
}

// joined lists each of a before each of b.
func joined(a, b []string) []string {
	var out []string
	for _, x := range a {
		for _, y := range b {
			out = append(out, x+y)
		}
	}
	return out
}
