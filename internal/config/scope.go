package config

import (
	"slices"
	"strings"

	"github.com/cutoutdev/cutout/internal/secret"
)

// methods are the usual ones, for advice.
var methods = []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}

const scopeUsage = "write --scope NAME='METHOD /path/pattern', for example API_KEY='GET /repos/**'"

// ParseScope reads a --scope NAME='METHOD PATH'. Without a method any will
// do.
func ParseScope(s string) (name string, scope secret.Scope, err error) {
	name, text, ok := strings.Cut(s, "=")
	if !ok || !validName(name) {
		return "", scope, hinted("invalid --scope", scopeUsage)
	}
	where := "--scope " + shown(name)
	words := strings.Fields(text)
	if len(words) == 1 && strings.HasPrefix(words[0], "/") {
		words = []string{"*", words[0]}
	}
	if len(words) != 2 {
		return "", scope, hinted(where+" is not a method and a path", scopeUsage)
	}
	scope = secret.Scope{Method: words[0], Path: words[1]}
	if err := checkMethod(scope.Method); err != nil {
		return "", scope, prefixed(where, err)
	}
	if err := checkPathPattern(scope.Path); err != nil {
		return "", scope, prefixed(where, err)
	}
	return name, scope, nil
}

// checkMethod: methods are case-sensitive (RFC 9110 §9.1), and every
// registered one is in upper case.
func checkMethod(m string) error {
	if m == "*" {
		return nil
	}
	if len(m) > 32 || strings.ContainsFunc(m, func(r rune) bool { return (r < 'A' || r > 'Z') && r != '-' }) {
		return hinted("the method is not in capital letters", didYouMean(strings.ToUpper(m), methods)+"write GET, POST and so on, or * for any")
	}
	if near := Nearest(m, methods); near != "" && near != m && (distance(m, near) == 1 || sorted(m) == sorted(near)) {
		return hinted("the method is not a usual one", "did you mean "+near+"?")
	}
	return nil
}

// sorted returns the letters of s in order: transposed ones make no
// difference.
func sorted(s string) string {
	b := []byte(s)
	slices.Sort(b)
	return string(b)
}

// checkPathPattern refuses patterns that no path matches once both of its
// readings are looked at, or that mean something else than they seem to.
func checkPathPattern(p string) error {
	if !strings.HasPrefix(p, "/") {
		return hinted("the path does not begin with a slash", scopeUsage)
	}
	for i := range len(p) {
		if c := p[i]; c <= ' ' || c >= 0x7f || strings.IndexByte(`\?#%;`, c) >= 0 {
			return hinted(`the path holds a space, one of \ ? # % ; or a character that is not ASCII`,
				"a pattern is compared with the path as written and as decoded, without its query; write * for such a part")
		}
	}
	segments := strings.Split(p[1:], "/")
	for i, s := range segments {
		switch last := i == len(segments)-1; {
		case s == "." || s == ".." || s == "" && !last:
			return hinted("the path has an empty segment, . or ..", "write the path as the server sees it")
		case strings.Contains(s, "**") && (s != "**" || !last):
			return hinted("** is not the last segment of the path", "* stands for text within a segment, a last /** for any rest")
		}
	}
	return nil
}
