package config

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/cutoutdev/cutout/internal/hostname"
	"github.com/cutoutdev/cutout/internal/secret"
)

// exceptions are what a user admitted by name although it is dangerous.
type exceptions struct {
	shared []string // patterns, canonical
	texts  []string // as they are written
	any    []string // secrets that may go to every host
	used   map[string]bool
}

func (r Rules) exceptions() (exceptions, error) {
	e := exceptions{any: r.AllowAnyHost, used: map[string]bool{}}
	err := each("allow-shared-suffix", r.AllowSharedSuffix, func(text string) error {
		p, err := hostname.ParseShared(text)
		switch {
		case err != nil:
			return fmt.Errorf("--allow-shared-suffix: %w", err)
		case !p.Shared():
			return hinted(fmt.Sprintf("--allow-shared-suffix: %s needs no permission", p), "it covers the names of one owner; leave the flag out")
		}
		e.shared, e.texts = append(e.shared, p.String()), append(e.texts, text)
		return nil
	})
	return e, err
}

// pattern reads a host pattern of the secret name.
func (e exceptions) pattern(s, name string) (hostname.Pattern, error) {
	if s == "*" {
		if !slices.Contains(e.any, name) {
			return hostname.Pattern{}, hinted("the host pattern * would send the value to every server that the guest names",
				fmt.Sprintf("name the hosts that may get it; if it is worthless to others, --allow-any-host %s", shown(name)))
		}
		e.used["* "+name] = true
		return hostname.Any(), nil
	}
	p, err := hostname.ParsePattern(s)
	if !errors.Is(err, hostname.ErrShared) {
		return p, err
	}
	p, sharedErr := hostname.ParseShared(s)
	if sharedErr != nil || !slices.Contains(e.shared, p.String()) {
		return hostname.Pattern{}, hinted(err.Error(),
			fmt.Sprintf("name the hosts, or admit all their owners with --allow-shared-suffix '%s'", p))
	}
	e.used[p.String()] = true
	return p, nil
}

// unused refuses permission for what no secret asks: it is a mistake in
// either flag.
func (e exceptions) unused() error {
	for i, p := range e.shared {
		if !e.used[p] {
			return In("allow-shared-suffix", e.texts[i], hinted(fmt.Sprintf("--allow-shared-suffix %s: no secret has this host", p), "write it as in --secret, or leave it out"))
		}
	}
	return each("allow-any-host", e.any, func(name string) error {
		if !e.used["* "+name] {
			return hinted(fmt.Sprintf("--allow-any-host: %s does not go to *", shown(name)), "write --secret NAME@*, or leave the flag out")
		}
		return nil
	})
}

// parseNameAtHost reads NAME@HOST, HOST being one exact name.
func parseNameAtHost(flag, s string) (string, hostname.Name, error) {
	name, host, ok := strings.Cut(s, "@")
	if !ok || !validName(name) {
		return "", "", hinted("invalid "+flag, fmt.Sprintf("write %s NAME@HOST", flag))
	}
	n, err := parseExact(flag, host)
	return name, n, err
}

// parseExact reads one exact name without port.
func parseExact(flag, host string) (hostname.Name, error) {
	n, err := hostname.Parse(host)
	if err == nil {
		return n, nil
	}
	text := flag + ": what it names is not one host"
	if strings.ContainsAny(host, "*,:") {
		return "", hinted(text, "write one exact name, without * and port; give the flag again for another")
	}
	return "", hinted(text, "write "+flag+" with a host's name, for example api.example.com")
}

// plain lets values go unencrypted: to port 80 of a host that is bound
// without a port, else to the ports that it is bound with.
func (r Rules) plain(find finder) error {
	const flag = "--allow-plain"
	return each(flag[2:], r.AllowPlain, func(text string) error {
		name, host, err := parseNameAtHost(flag, text)
		if err != nil {
			return err
		}
		s, err := findHost(find, flag, name, host)
		if err != nil {
			return err
		}
		if !slices.Contains(s.Plain, host) {
			s.Plain = append(s.Plain, host)
		}
		return nil
	})
}

// unverified lets values go to hosts that do not prove who they are. It
// takes both flags: one that trusts the host, one that trusts it with the
// value.
func (r Rules) unverified(find finder, noVerify []hostname.Name) error {
	const flag = "--allow-unverified"
	return each(flag[2:], r.AllowUnverified, func(text string) error {
		name, host, err := parseNameAtHost(flag, text)
		if err != nil {
			return err
		}
		s, err := findHost(find, flag, name, host)
		if err != nil {
			return err
		}
		if !slices.Contains(noVerify, host) {
			return hinted(fmt.Sprintf("%s: the certificate of %s is verified", flag, host),
				fmt.Sprintf("add --tls-no-verify-upstream-for %s, or trust its CA with --tls-upstream-ca-cert-for %[1]s=FILE", host))
		}
		if !slices.Contains(s.Unverified, host) {
			s.Unverified = append(s.Unverified, host)
		}
		return nil
	})
}

// findHost returns the secret name, one of whose hosts must be host.
func findHost(find finder, flag, name string, host hostname.Name) (*secret.Secret, error) {
	s, err := find(flag, name)
	if err != nil {
		return nil, err
	}
	if !s.HasHost(host) {
		return nil, hinted(fmt.Sprintf("%s: %s is not a host of %s", flag, host, name), fmt.Sprintf("write --secret %s@%s too", name, host))
	}
	return s, nil
}
