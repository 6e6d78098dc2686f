// Package config reads what a user writes, flags today, and makes of it the
// specification of a sandbox.
//
// It promises that a value which a user wrote in the wrong place is never
// repeated: not in an error, not in the specification.
package config

import (
	"errors"
	"fmt"
	"strings"

	"github.com/cutoutdev/cutout/internal/hostname"
	"github.com/cutoutdev/cutout/internal/secret"
	"github.com/cutoutdev/cutout/internal/source"
)

// A SecretFlag is one --secret: NAME[=SCHEME:REF]@HOST[:PORT][,…]. Without
// hosts NAME is that of a [KnownSecret], whose they are.
type SecretFlag struct {
	Name   string
	Source Source
	Hosts  []secret.Host
	Known  bool // no host was named
}

// A Source says where a value comes from.
type Source struct {
	Scheme string
	Ref    string // what it is there: a variable, a path, a command
}

// Schemes lists the sources, and what each refers by.
func Schemes() []string {
	return []string{"env:VAR", "file:PATH", "exec:COMMAND", "keyring:SERVICE/USER", "vault:PATH#FIELD", "age:FILE"}
}

// ParseSecret reads a --secret flag. Whatever stands after "=" may be a
// value that the user gave inline, so no error repeats it. It refuses hosts
// that may be many people's.
func ParseSecret(s string) (SecretFlag, error) { return parseSecret(s, exceptions{}) }

func parseSecret(s string, e exceptions) (SecretFlag, error) {
	at := strings.LastIndexByte(s, '@')
	left, hosts := s, ""
	if at >= 0 {
		left, hosts = s[:at], s[at+1:]
	}
	name, ref, inline := strings.Cut(left, "=")
	if !validName(name) {
		return SecretFlag{}, hinted("invalid --secret: it does not begin with the name of a variable",
			"write --secret NAME@HOST; the value is read from the environment variable NAME")
	}
	f := SecretFlag{Name: name, Source: Source{Scheme: "env", Ref: name}}
	if inline {
		var err error
		if f.Source, err = parseSource(name, ref); err != nil {
			return SecretFlag{}, In("source", left, err)
		}
	}
	if at < 0 {
		if k, ok := known(name); ok {
			f.Hosts, f.Known = k.hosts, true
			return f, nil
		}
	}
	if hosts == "" {
		return SecretFlag{}, hinted(fmt.Sprintf("--secret %s names no host", shown(name)), didYouMean(name, KnownNames())+
			"write --secret NAME@HOST, for example API_KEY@api.example.com; NAME is that of a variable, not its value. Only what cutout secret ls-known lists needs no host")
	}
	var err error
	if f.Hosts, err = parseHosts(hosts, name, e); err != nil {
		return SecretFlag{}, fmt.Errorf("--secret %s: %w", shown(name), err)
	}
	return f, nil
}

// parseHosts reads HOST[:PORT][,…] for the secret name.
func parseHosts(s, name string, e exceptions) ([]secret.Host, error) {
	var out []secret.Host
	for h := range strings.SplitSeq(s, ",") {
		host, err := parseHost(h, name, e)
		if err != nil {
			return nil, In("hosts", name+"@"+h, err)
		}
		out = append(out, host)
	}
	return out, nil
}

func parseSource(name, ref string) (Source, error) {
	src, form, ok := readSource(ref)
	switch {
	case ok:
		return src, nil
	case form != "":
		_, what, _ := strings.Cut(form, ":")
		return Source{}, hinted(fmt.Sprintf("--secret %s: %s: is not followed by a %s", shown(name), src.Scheme, what),
			fmt.Sprintf("write --secret %s=%s@HOST", shown(name), form))
	}
	return Source{}, hinted(fmt.Sprintf("--secret %s: values on the command line are refused: every process can read them", shown(name)),
		fmt.Sprintf("export %s=… and write --secret %[1]s@HOST, or name a source: %s", shown(name), strings.Join(Schemes(), ", ")))
}

// readSource reads SCHEME:REF. If only the scheme is known, form is what is
// written for it.
func readSource(text string) (src Source, form string, ok bool) {
	scheme, rest, _ := strings.Cut(text, ":")
	for _, form := range Schemes() {
		if known, _, _ := strings.Cut(form, ":"); known == scheme && text != scheme {
			bad := rest == "" || strings.ContainsRune(rest, 0) || scheme == "env" && !validName(rest)
			return Source{Scheme: scheme, Ref: rest}, form, !bad
		}
	}
	return Source{}, "", false
}

// parseHost reads HOST, HOST:PORT or HOST:* for the secret name, the port
// being 443 if none is written.
func parseHost(s, name string, e exceptions) (secret.Host, error) {
	text, port, found := strings.Cut(s, ":")
	pattern, err := e.pattern(text, name)
	if err != nil {
		return secret.Host{}, err
	}
	h := secret.Host{Pattern: pattern, Port: 443}
	switch {
	case !found:
	case port == "*":
		h.Port = 0
	default:
		if h.Port, err = hostname.ParsePort(port); err != nil {
			return secret.Host{}, fmt.Errorf("host %q has an invalid port", s)
		}
	}
	return h, nil
}

// shown is name if it can only be a variable's name. A value too can look
// like one (ghp_…), and a shell may have put it in the name's place.
func shown(name string) string {
	if len(name) > 64 || strings.ContainsFunc(name, func(r rune) bool { return 'a' <= r && r <= 'z' }) {
		return "(not shown: it may be a value)"
	}
	return name
}

// validName reports whether s is the name of an environment variable.
func validName(s string) bool {
	if s == "" || len(s) > 128 {
		return false
	}
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case 'A' <= c && c <= 'Z', 'a' <= c && c <= 'z', c == '_':
		case '0' <= c && c <= '9' && i > 0:
		default:
			return false
		}
	}
	return true
}

// An Error is a user's mistake with advice.
type Error = source.Error

func hinted(text, hint string) error { return &Error{Text: text, Hint: hint} }

// Hint returns the advice that goes with err, or "".
func Hint(err error) string {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Hint
	}
	return ""
}
