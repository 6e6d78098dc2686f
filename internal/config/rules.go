package config

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/cutoutdev/cutout/internal/keeper"
	"github.com/cutoutdev/cutout/internal/secret"
	"github.com/cutoutdev/cutout/internal/source/helper"
)

// Rules are what flags say about secrets, unparsed. They are the same for
// every command that knows secrets.
type Rules struct {
	Secrets      []string // NAME[=SCHEME:REF]@HOST[:PORT],…, or of a known secret without @
	Placeholders []string // NAME=TEXT
	Surfaces     []string // NAME=LIST
	Scopes       []string // NAME='METHOD PATH'
	OnViolation  []string // [NAME=]ACTION[,hold][:HOST,…]
	Scrub        []string // [HOST=]on|lax|off, all
	Exclusive    []string // NAME

	AllowPlain        []string // NAME@HOST
	AllowUnverified   []string // NAME@HOST
	NoVerify          []string // HOST
	AllowSharedSuffix []string // *.SUFFIX
	AllowAnyHost      []string // NAME
	AllowShort        []string // NAME
}

// Check parses r without needing the values: for a command that only asks
// what would happen. Those values that stand in the environment are searched
// for in r and in also. A shaped placeholder, which only a keeper draws, is
// the default one.
func (r Rules) Check(ctx context.Context, lookup func(string) (string, bool), also ...Text) (keeper.Spec, error) {
	var spec keeper.Spec
	values := helper.FromEnv(lookup)
	defer values.Close()
	_, err := r.bind(ctx, &spec, values, false)
	if held := values.Check(ctx, append(r.texts(), also...)); held != nil {
		err = held
	}
	if err == nil {
		err = r.apply(&spec)
	}
	for i, s := range spec.Secrets {
		if s.Placeholder == "" {
			spec.Secrets[i].Placeholder = DefaultPlaceholder(s.Name)
		}
	}
	return spec, err
}

// Values read what secrets refer to, hold it, and search texts for it. They
// are a *[helper.Client], but where no value is needed.
type Values interface {
	Read(ctx context.Context, requests []helper.Request) ([]helper.Result, error)
	Check(ctx context.Context, texts []Text) error
}

// A Text is something that Cutout would put into the guest, its state or an
// argument list, with the words by which the user knows it.
type Text = helper.Text

// bind parses the --secret flags and has every value read that it can, also
// when it fails, so that the failure can be searched for them. Where values
// are not needed those of the environment are read, and a missing one is no
// mistake. What more is asked for is read behind them, into the results.
func (r Rules) bind(ctx context.Context, spec *keeper.Spec, values Values, needed bool, more ...helper.Request) ([]helper.Result, error) {
	exceptions, first := r.exceptions()
	var requests []helper.Request
	var texts []string // that they come from
	for _, text := range r.Secrets {
		f, err := parseSecret(text, exceptions)
		if err != nil {
			first = cmp.Or(first, In("secret", text, err))
			name, _, _ := strings.Cut(text, "@")
			name, _, _ = strings.Cut(name, "=")
			f = SecretFlag{Name: name, Source: Source{Scheme: "env", Ref: name}}
		} else {
			s := secret.Secret{Name: f.Name, Placeholder: DefaultPlaceholder(f.Name), Hosts: f.Hosts}
			if k, ok := known(f.Name); ok && f.Known {
				k.apply(&s)
			}
			spec.Secrets = append(spec.Secrets, s)
		}
		if needed || f.Source.Scheme == "env" {
			requests = append(requests, helper.Request{Name: f.Name, Scheme: f.Source.Scheme, Ref: f.Source.Ref})
			texts = append(texts, text)
		}
	}
	results, err := values.Read(ctx, append(requests, more...))
	first = cmp.Or(first, err)
	read := results[min(len(requests), len(results)):]
	for i, result := range results[:len(results)-len(read)] {
		q := requests[i]
		short := slices.Contains(r.AllowShort, q.Name)
		if at := slices.IndexFunc(spec.Secrets, func(s secret.Secret) bool { return s.Name == q.Name }); at >= 0 {
			spec.Secrets[at].Short = short && result.Len < secret.MinValue
			if needed {
				first = cmp.Or(first, In("secret", texts[i], checkBound(q, result, short)))
			}
		}
	}
	return read, cmp.Or(first, exceptions.unused())
}

// checkBound refuses a value that is not there or not one, as the keeper's
// store would later.
func checkBound(q helper.Request, r helper.Result, short bool) error {
	where := fmt.Sprintf("what %s gives for %s", q.Scheme, q.Name)
	hint := "look at what it refers to"
	if q.Scheme == "env" {
		where, hint = "the environment variable "+shown(q.Ref), fmt.Sprintf("export %s and try again", q.Ref)
	}
	switch {
	case r.Failed != "" && q.Scheme == "env":
		if shown(q.Ref) != q.Ref {
			hint = "--secret takes the name of a variable, not its value"
		}
		return hinted(fmt.Sprintf("--secret %s: %s is not set", shown(q.Name), where), hint)
	case r.Failed != "":
		return hinted(fmt.Sprintf("--secret %s: read it from %s: %s", shown(q.Name), q.Scheme, r.Failed), r.Hint)
	case r.Len == 0:
		return hinted(fmt.Sprintf("--secret %s: %s is empty", q.Name, where), hint)
	case !r.Expires.IsZero() && !r.Expires.After(time.Now()):
		return hinted(fmt.Sprintf("the value of %s has expired at %s", q.Name, r.Expires.UTC().Format(time.RFC3339)), "renew it where it comes from")
	case r.Len < secret.MinValue && !short:
		return hinted(fmt.Sprintf("the value of %s is shorter than %d bytes", q.Name, secret.MinValue),
			fmt.Sprintf("so short a text turns up by chance in answers and could not be told from the value; --allow-short %s takes it, and never looks for it in answers", q.Name))
	case r.Len > secret.MaxValue:
		return fmt.Errorf("the value of %s is longer than %d bytes", q.Name, secret.MaxValue)
	case r.LineBreak:
		return hinted(fmt.Sprintf("the value of %s holds a line break or NUL, which no header can carry", q.Name),
			fmt.Sprintf("a line end at the end does no harm in a file: %s=file:PATH", q.Name))
	}
	return nil
}

// A finder returns the secret that a flag names.
type finder func(flag, name string) (*secret.Secret, error)

// apply parses everything but the --secret flags into spec.
func (r Rules) apply(spec *keeper.Spec) error {
	find := func(flag, name string) (*secret.Secret, error) {
		for i := range spec.Secrets {
			if spec.Secrets[i].Name == name {
				return &spec.Secrets[i], nil
			}
		}
		var names []string
		for _, s := range spec.Secrets {
			names = append(names, s.Name)
		}
		return nil, hinted(fmt.Sprintf("%s: there is no secret %s", flag, shown(name)),
			didYouMean(name, names)+"every name needs a --secret NAME@HOST")
	}
	if err := each("tls-no-verify-upstream-for", r.NoVerify, func(text string) error {
		n, err := parseExact("--tls-no-verify-upstream-for", text)
		spec.TLS.NoVerify = append(spec.TLS.NoVerify, n)
		return err
	}); err != nil {
		return err
	}
	for _, step := range []func() error{
		func() error { return r.placeholders(find) },
		func() error { return r.surfaces(find) },
		func() error { return r.scopes(find) },
		func() error { return r.violations(find, &spec.OnViolation) },
		func() error { return r.named(find) },
		func() error { return r.plain(find) },
		func() error { return r.unverified(find, spec.TLS.NoVerify) },
		func() error { return r.scrub(spec) },
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return checkSet(spec.Secrets)
}

func (r Rules) placeholders(find finder) error {
	return each("placeholder", r.Placeholders, func(text string) error {
		name, placeholder, err := ParsePlaceholder(text)
		if err != nil {
			return err
		}
		s, err := find("--placeholder", name)
		if err != nil {
			return err
		}
		s.Placeholder = placeholder
		return nil
	})
}

// surfaces: the first list of a secret replaces the default or the
// catalogue's, further ones add to it.
func (r Rules) surfaces(find finder) error {
	given := map[string]bool{}
	return each("surface", r.Surfaces, func(text string) error {
		name, list, err := ParseSurfaces(text)
		if err != nil {
			return err
		}
		s, err := find("--surface", name)
		if err != nil {
			return err
		}
		if given[name] {
			list = mergeSurfaces(*s.Surfaces, list)
		}
		given[name] = true
		s.Surfaces = &list
		return nil
	})
}

func (r Rules) scopes(find finder) error {
	return each("scope", r.Scopes, func(text string) error {
		name, scope, err := ParseScope(text)
		if err != nil {
			return err
		}
		s, err := find("--scope", name)
		if err != nil {
			return err
		}
		s.Scopes = append(s.Scopes, scope)
		return nil
	})
}

func (r Rules) violations(find finder, all *secret.Violation) error {
	given := map[string]bool{}
	return each("on-violation", r.OnViolation, func(text string) error {
		name, v, err := ParseViolation(text)
		if err != nil {
			return err
		}
		if given[name] {
			return hinted("--on-violation is given twice for "+forWhom(name), "give one action for each secret and one for all others")
		}
		given[name] = true
		if name == "" {
			*all = v
			return nil
		}
		s, err := find("--on-violation", name)
		if err != nil {
			return err
		}
		s.OnViolation = &v
		return nil
	})
}

func forWhom(name string) string {
	if name == "" {
		return "the sandbox"
	}
	return shown(name)
}

// named handles the flags that only name a secret.
func (r Rules) named(find finder) error {
	if err := each("exclusive", r.Exclusive, func(name string) error {
		s, err := find("--exclusive", name)
		if err == nil {
			s.Exclusive = true
		}
		return err
	}); err != nil {
		return err
	}
	return each("allow-short", r.AllowShort, func(name string) error {
		_, err := find("--allow-short", name)
		return err
	})
}

// checkSet refuses here what the keeper would refuse later. Shaped
// placeholders do not exist yet.
func checkSet(specs []secret.Secret) error {
	var drawn []*secret.Secret
	for i := range specs {
		if slices.ContainsFunc(specs[:i], func(s secret.Secret) bool { return s.Name == specs[i].Name }) {
			return In("secrets", specs[i].Name, hinted(fmt.Sprintf("secret %s is given twice", shown(specs[i].Name)), "name all its hosts in one --secret, separated by commas"))
		}
		if specs[i].Placeholder != "" {
			drawn = append(drawn, &specs[i])
		}
	}
	if _, err := secret.NewSet(drawn); err == nil {
		return nil
	}
	for i, s := range drawn { // whose is it?
		if _, err := secret.NewSet(drawn[:i+1]); err != nil {
			err = hinted(err.Error(), "give a secret another name, or another placeholder with --placeholder NAME=TEXT")
			return In("secrets", s.Name, In("placeholder", s.Name+"="+s.Placeholder, err))
		}
	}
	return nil
}

// texts lists all that the user wrote.
func (r Rules) texts() []Text {
	var texts []Text
	for _, p := range r.Placeholders {
		name, text, _ := strings.Cut(p, "=")
		texts = append(texts, Text{Where: "--placeholder", Text: name}, Text{Where: "the placeholder of " + name, Text: text})
	}
	for flag, list := range map[string][]string{
		"--secret": r.Secrets, "--surface": r.Surfaces, "--scope": r.Scopes, "--on-violation": r.OnViolation, "--scrub": r.Scrub,
		"--exclusive": r.Exclusive, "--allow-plain": r.AllowPlain, "--allow-unverified": r.AllowUnverified,
		"--tls-no-verify-upstream-for": r.NoVerify, "--allow-shared-suffix": r.AllowSharedSuffix,
		"--allow-any-host": r.AllowAnyHost, "--allow-short": r.AllowShort,
	} {
		for _, text := range list {
			texts = append(texts, Text{Where: flag, Text: text})
		}
	}
	return texts
}
