package policy

import (
	"slices"
	"strings"

	"github.com/cutoutdev/cutout/internal/secret"
)

// A server may take a request for another than its first line says: override
// fields and parameters give it another method or path, and a path that is
// not in normal form is one thing to the router in front and another to the
// application behind. Which of them ours is nobody can know, so a request is
// in scope only if every reading of it is.

// maxReadings bounds the work that one request can make. An honest path has
// one or two readings.
const maxReadings = 64

// inScope reports whether each reading of the request is in some scope.
func inScope(f Facts, scopes []secret.Scope) bool {
	if f.Method == "" || f.Target == "" {
		return false
	}
	methods, targets := []string{f.Method}, []string{f.Target}
	for name, values := range f.Header {
		switch field(name) {
		case "x-http-method-override", "x-http-method", "x-method-override":
			for _, v := range values {
				methods = append(methods, overrides(v)...)
			}
		case "x-original-url", "x-rewrite-url":
			targets = append(targets, values...)
		}
	}
	var paths []string
	for _, t := range targets {
		p, query, _ := strings.Cut(t, "?")
		methods = append(methods, methodParameters(query)...)
		more, ok := readings(p)
		if !ok {
			return false
		}
		paths = append(paths, more...)
	}
	for _, m := range methods {
		for _, p := range paths {
			if !slices.ContainsFunc(scopes, func(s secret.Scope) bool { return covers(s, m, p) }) {
				return false
			}
		}
	}
	return true
}

// field folds a field name as CGI and its kin do: X_Original_URL is
// X-Original-URL to an application.
func field(name string) string { return strings.ToLower(strings.ReplaceAll(name, "_", "-")) }

// overrides are the methods that an override names: servers trim, fold case
// and take the first or the last of a list.
func overrides(value string) []string {
	var out []string
	for m := range strings.SplitSeq(value, ",") {
		out = append(out, strings.ToUpper(strings.Trim(m, " \t")))
	}
	return out
}

// methodParameters returns the methods that parameters named _method give.
func methodParameters(query string) []string {
	var out []string
	for p := range strings.FieldsFuncSeq(query, func(r rune) bool { return r == '&' || r == ';' }) {
		name, value, _ := strings.Cut(p, "=")
		if strings.EqualFold(unescape(name), "_method") {
			out = append(out, overrides(unescape(value))...)
		}
	}
	return out
}

// steps are what servers do to a path before they look at it, in the order in
// which they do; each is one that some leave out.
var steps = [...]func(string) string{
	unescape,
	unescape, // %252e: a proxy in front has decoded it once
	untilEnd,
	func(p string) string { return strings.ReplaceAll(p, `\`, "/") },
	withoutParameters,
	withoutEmpty,
	resolved,
}

// readings returns p and what becomes of it by any of the steps. False: too
// many.
func readings(p string) ([]string, bool) {
	all := []string{p}
	for _, step := range steps {
		for _, q := range all {
			if r := step(q); !slices.Contains(all, r) {
				if all = append(all, r); len(all) > maxReadings {
					return nil, false
				}
			}
		}
	}
	return all, true
}

// unescape decodes the valid percent-escapes of s, once.
func unescape(s string) string {
	if !strings.Contains(s, "%") {
		return s
	}
	out := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) {
			hi, lo := unhex(s[i+1]), unhex(s[i+2])
			if hi|lo < 16 {
				out = append(out, hi<<4|lo)
				i += 2
				continue
			}
		}
		out = append(out, s[i])
	}
	return string(out)
}

// unhex returns 255 for what is no digit.
func unhex(c byte) byte {
	switch {
	case '0' <= c && c <= '9':
		return c - '0'
	case 'a' <= c|0x20 && c|0x20 <= 'f':
		return c | 0x20 - 'a' + 10
	}
	return 255
}

// untilEnd cuts a decoded path where C strings and URLs end.
func untilEnd(p string) string {
	if i := strings.IndexAny(p, "\x00?#"); i >= 0 {
		return p[:i]
	}
	return p
}

// withoutParameters drops ;name=value from each segment, RFC 3986 §3.3.
func withoutParameters(p string) string {
	if !strings.Contains(p, ";") {
		return p
	}
	segments := strings.Split(p, "/")
	for i, s := range segments {
		segments[i], _, _ = strings.Cut(s, ";")
	}
	return strings.Join(segments, "/")
}

func withoutEmpty(p string) string {
	for strings.Contains(p, "//") {
		p = strings.ReplaceAll(p, "//", "/")
	}
	return p
}

// resolved removes dot segments, RFC 3986 §5.2.4, and keeps empty ones.
func resolved(p string) string {
	if !strings.Contains(p, "/.") {
		return p
	}
	var out []string
	segments := strings.Split(p, "/")
	for i, s := range segments {
		last := i == len(segments)-1
		switch {
		case s == ".", s == "..":
			if s == ".." && len(out) > 1 {
				out = out[:len(out)-1]
			}
			if last {
				out = append(out, "")
			}
		default:
			out = append(out, s)
		}
	}
	return strings.Join(out, "/")
}

// covers reports whether s is for method and path. Both are compared as they
// are written: whoever folds their case finds no more than is written.
func covers(s secret.Scope, method, p string) bool {
	if s.Method != "*" && s.Method != method || !strings.HasPrefix(p, "/") {
		return false
	}
	pattern, rest := s.Path, false
	if before, ok := strings.CutSuffix(pattern, "/**"); ok {
		pattern, rest = before, true
	}
	want, got := strings.Split(pattern, "/"), strings.Split(p, "/")
	if len(got) < len(want) || len(got) == len(want) && rest || len(got) > len(want) && !rest {
		return false
	}
	for i := range want {
		if !segment(want[i], got[i]) {
			return false
		}
	}
	return true
}

// segment matches one segment against a pattern in which * is any text.
func segment(pattern, s string) bool {
	first, pattern, star := strings.Cut(pattern, "*")
	if !star {
		return first == s
	}
	s, ok := strings.CutPrefix(s, first)
	for ok {
		var part string
		if part, pattern, star = strings.Cut(pattern, "*"); !star {
			return strings.HasSuffix(s, part)
		}
		_, s, ok = strings.Cut(s, part)
	}
	return false
}
